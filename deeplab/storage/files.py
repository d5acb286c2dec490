"""Atomic writes: files and folders get their names once they are complete.

Files are written to a hidden temporary folder beside the target first.
"""
import concurrent.futures
import contextlib
import errno
import glob
import hashlib
import json
import os
import stat
import tempfile
from typing import (
  Any,
  Callable,
  Dict,
  Iterable,
  Iterator,
  List,
  Mapping,
  Optional,
  Sequence,
  Union,
)

from deeplab import constants
from deeplab import errors
from deeplab.errors import InputError
from deeplab.storage import locks
from deeplab.storage import remote

_READ_BYTES = 2 ** 20
# Errors of file systems that cannot sync.
_CANNOT_SYNC = (errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP,
                errno.EROFS)
# A journaling file system writes its journal once for concurrent syncs.
_SYNCED_AT_A_TIME = 16


# --- Writing ---------------------------------------------------------------


@contextlib.contextmanager
def replacing(*paths: str) -> Iterator[List[str]]:
  """Context that gives temporary paths and renames them to `paths` at its end.

  If the block fails, the temporary files are removed and the old files stay.
  The files are renamed in order, once all are complete and synced to disk: the
  last one may mark the others as complete. A folder replaces an existing
  folder with all its content. Missing folders are made. Remote files are
  written on this machine and uploaded at the end.

  Args:
    *paths: files or folders.

  Yields:
    The temporary paths, at which nothing exists yet.

  Raises:
    OSError: a file cannot be written; the error names the final path.
  """
  parents = {folder for folder in map(_folder_of, paths)
             if not remote.is_remote(folder)}
  with _temporaries(paths) as temporaries:
    yield temporaries
    _sync(_tree(*temporaries))
    for number, (temporary, path) in enumerate(zip(temporaries, paths)):
      if 0 < number == len(paths) - 1:
        _sync(parents)
      try:
        _publish(temporary, path)
      except OSError as error:
        if number:
          template = '{}; of {} files, these are new: {}; run again'
          error.strerror = template.format(
              error.strerror, len(paths), errors.some_of(paths[:number]))
        raise
    _sync(parents)


@contextlib.contextmanager
def replacing_own(
    given: errors.Option, folder: str, names: Sequence[str],
    ours: Callable[[str], bool] = lambda path: False) -> Iterator[str]:
  """Context with a folder to write to, whose files move to another at its end.

  Files that an earlier run wrote there are replaced, or removed if this run
  does not write them. All other files stay. If the block fails, the folder
  stays as it was. While files move, the folder has a file INCOMPLETE. It stays
  if the move is interrupted; then the next run replaces all files.

  Args:
    given: the option that names the folder, for messages.
    folder: destination; made if missing. It may be `.` or a link.
    names: glob patterns of all files that the block may write, relative to the
      folder. The last one is the name of a file that identifies the writer of
      the others; it moves last.
    ours: function of that file's path. True: an earlier run wrote it, and so
      every file that matches the patterns.

  Yields:
    The path of a new, empty folder.

  Raises:
    InputError: another run writes there, or a file that this run would replace
      was not written by an earlier run.
    OSError: a file cannot be written; the error names the final path.
  """
  check_folder(given, folder)
  root = os.path.realpath(folder)
  with locks.alone(given, root), locks.hidden_folder(root) as new, (
      _naming_final_paths([new], [root])):
    replaced = _replaceable(given, root, names, ours)
    yield new
    _sync(_tree(new))
    written = [os.path.relpath(os.path.join(inner, name), new)
               for inner, _, found in os.walk(new) for name in found]
    written.sort(key=lambda name: (name == names[-1], name))
    _refuse_foreign(given, [
        name for name in written if not _is_plain(root, name) or
        name not in replaced and os.path.lexists(os.path.join(root, name))])
    incomplete = os.path.join(root, constants.INCOMPLETE)
    _write(incomplete, b'A run has not finished writing here.\n')
    _sync([incomplete])
    targets = [os.path.join(root, name) for name in written]
    for name, target in zip(written, targets):
      _make_folder(_folder_of(target))
      os.replace(os.path.join(new, name), target)
    for name in replaced.difference(written):
      os.remove(os.path.join(root, name))
    _sync(map(_folder_of, targets))
    os.remove(incomplete)


def write_json(path: str, content: Any) -> None:
  """Writes JSON; see `replacing`."""
  write_bytes(path, json_bytes(content))


def write_text(path: str, text: str) -> None:
  """Writes text as UTF-8; see `replacing`."""
  write_bytes(path, text.encode('utf-8'))


def write_bytes(path: str, content: bytes) -> None:
  """Writes bytes; see `replacing`."""
  write_all({path: content})


def write_all(contents: Mapping[str, Union[bytes, Dict[str, bytes]]]) -> None:
  """Writes several files, from path to bytes; see `replacing`.

  A dict instead of bytes is a folder: it maps file names to bytes.
  """
  with replacing(*contents) as temporaries:
    for temporary, content in zip(temporaries, contents.values()):
      if isinstance(content, bytes):
        _write(temporary, content)
        continue
      os.mkdir(temporary)
      for name, inner in content.items():
        _write(os.path.join(temporary, name), inner)


def json_bytes(content: Any) -> bytes:
  """Returns JSON as bytes, the same for the same content."""
  return (json.dumps(content, indent=2, sort_keys=True) + '\n').encode('utf-8')


def digest(content: Any) -> str:
  """Returns the SHA-256 of some content's JSON, in hexadecimal."""
  return hashlib.sha256(json_bytes(content)).hexdigest()


def sha256_of(path: str) -> str:
  """Returns the SHA-256 of a file, in hexadecimal."""
  checksum = hashlib.sha256()
  with remote.reading(path) as source:
    for chunk in iter(lambda: source.read(_READ_BYTES), b''):
      checksum.update(chunk)
  return checksum.hexdigest()


# --- Checks before long work -----------------------------------------------


def check_outputs(
    given: errors.Option, *paths: str, inputs: Iterable[Optional[str]] = (),
    ours: Optional[Callable[[str], bool]] = None, example: str = '') -> None:
  """Checks that files can be written, by trying; makes missing folders.

  Args:
    given: the option that names them, for the message.
    *paths: the files.
    inputs: files and folders that the command reads; None and '' are skipped.
      An output may not be an input, nor replace a file in an input folder.
    ours: returns whether the suite wrote the existing file at a path; other
      files are not replaced. None: any file is replaced.
    example: a file name to suggest if a folder was given.

  Raises:
    InputError: a file may not be replaced or cannot be written.
  """
  read = [os.path.realpath(path) for path in inputs if path]
  for path in paths:
    named = '' if path == given.text else path + ' '
    if remote.is_folder(path) or path.endswith(os.sep):
      raise InputError(
          '{}: {}is a folder, expected the name of a file{}', given, named,
          ', such as {}'.format(os.path.join(path, example))
          if example else '')
    if remote.is_remote(path) or not os.path.isfile(path):
      continue  # a device or a pipe is refused below
    # An empty file has nothing to lose.
    is_ours = not os.path.getsize(path) or ours is not None and ours(path)
    real = os.path.realpath(path)
    if real in read or not is_ours and any(
        real.startswith(os.path.join(each, '')) for each in read):
      raise InputError('{}: {}is an input of this command; give another name',
                       given, named)
    if ours and not is_ours:
      raise InputError(
          '{}: {}exists and was not written by this command; give another name '
          'or remove it', given, named)
  try:
    with _temporaries(paths) as temporaries:
      for temporary, path in zip(temporaries, paths):
        # On a full disk, an empty file could still be written.
        _write(temporary, b'\n')
        if remote.is_remote(path):
          remote.make_folder(_folder_of(path))
  except OSError as error:
    raise InputError('{}: {}', given, error.strerror if (
        error.filename in (None, given.text)) else errors.of_system(error))


def check_folder(given: errors.Option, folder: str, *,
                 inputs: Iterable[Optional[str]] = ()) -> None:
  """Checks that a folder can be written to; makes it if it is missing.

  Args:
    given: the option that names it, for the message.
    folder: the folder.
    inputs: folders with pictures that the command reads; the next run would
      read the output as pictures.

  Raises:
    InputError: the folder is a file or an input, or cannot be written to.
  """
  if remote.exists(folder) and not remote.is_folder(folder):
    raise InputError('{}: is a file, expected a folder', given)
  if os.path.realpath(folder) in [
      os.path.realpath(path) for path in inputs if path]:
    raise InputError('{}: is a folder of pictures that this command reads; '
                     'give another folder', given)
  check_outputs(given, os.path.join(folder, 'x'))


def _replaceable(given, root, names, ours):
  """Returns an earlier run's files, relative to root; see replacing_own."""
  found = {os.path.relpath(path, root) for name in names
           for path in glob.glob(os.path.join(glob.escape(root), name))}
  foreign = [name for name in sorted(
      found.union(map(os.path.dirname, names))) if not _is_plain(root, name)]
  if not foreign and not ours(os.path.join(root, names[-1])) and not (
      os.path.exists(os.path.join(root, constants.INCOMPLETE))):
    foreign = sorted(found)
  _refuse_foreign(given, foreign)
  return found


def _is_plain(root, name):
  """Whether a name below a folder's real path is reached without links."""
  path = os.path.normpath(os.path.join(root, name))
  return os.path.realpath(path) == path


def _refuse_foreign(given, names):
  if names:
    raise InputError(
        '{}: holds {}, which no earlier run of this command wrote there; give '
        'another folder or remove it', given, errors.some_of(names))


# --- Temporary paths -------------------------------------------------------


@contextlib.contextmanager
def _temporaries(paths: Sequence[str]) -> Iterator[List[str]]:
  """Context with a temporary path for each path."""
  folders: Dict[str, str] = {}
  temporaries: List[str] = []
  with contextlib.ExitStack() as stack, (
      _naming_final_paths(temporaries, paths)):
    for path in paths:
      with contextlib.suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
          # A rename would replace it.
          raise OSError(errno.EINVAL, 'is a device or a pipe, expected the '
                        'name of a file', path)
      parent = _folder_of(path)
      if parent not in folders:
        if not remote.is_remote(path):
          _make_folder(parent)
        folders[parent] = stack.enter_context(
            tempfile.TemporaryDirectory(prefix=locks.PREFIX)
            if remote.is_remote(path) else locks.hidden_folder(parent))
      # The same name, because a longer one may be too long.
      temporaries.append(os.path.join(folders[parent], os.path.basename(path)))
    yield temporaries


@contextlib.contextmanager
def _naming_final_paths(temporaries, paths):
  """Context that puts final paths in place of temporary ones in OSErrors."""
  try:
    yield
  except OSError as error:
    if error.errno is not None and (
        error.filename is None or locks.PREFIX in str(error.filename)):
      # An error of a write has no path; it concerns the last existing file.
      found = [path for temporary, path in zip(temporaries, paths)
               if (os.path.lexists(temporary) if error.filename is None else
                   (str(error.filename) + os.sep).startswith(
                       temporary + os.sep))]
      error.filename, error.filename2 = (found or paths)[-1], None
    raise


# --- Steps -----------------------------------------------------------------


def _publish(temporary: str, path: str) -> None:
  """Renames or uploads a temporary file or folder."""
  if remote.is_remote(path):
    remote.make_folder(_folder_of(path))
    remote.upload(temporary, path)
    return
  if not (os.path.isdir(temporary) and os.path.isdir(path)):
    os.replace(temporary, path)
    return
  # In the hidden folder, which is removed at the end.
  former = temporary + '.former'
  os.replace(path, former)
  try:
    os.replace(temporary, path)
  except BaseException:  # a signal, too
    os.replace(former, path)
    raise


def _folder_of(path: str) -> str:
  return os.path.dirname(path) or os.curdir


def _make_folder(folder: str) -> None:
  try:
    os.makedirs(folder, exist_ok=True)
  except FileExistsError:
    raise NotADirectoryError(
        errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)


def _write(path: str, content: bytes) -> None:
  with open(path, 'wb') as out:
    out.write(content)


def _tree(*paths: str) -> Iterator[str]:
  """Yields files and folders with all their content, except links."""
  for path in paths:
    yield path
    for folder, folders, names in os.walk(path):
      inner = [os.path.join(folder, name) for name in folders + names]
      yield from (path for path in inner if not os.path.islink(path))


def _sync(paths: Iterable[str]) -> None:
  """Syncs files and folders, without their content, to the disk.

  Otherwise a power failure may keep names but lose bytes.
  """
  with concurrent.futures.ThreadPoolExecutor(_SYNCED_AT_A_TIME) as pool:
    for _ in pool.map(_sync_one, set(paths)):
      pass


def _sync_one(path: str) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError as error:
    if error.errno not in _CANNOT_SYNC:
      raise
  finally:
    os.close(descriptor)
