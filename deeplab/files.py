"""Files and folders that have their name only once they are complete.

What is being written lies in a hidden folder beside it, which has a file that
its process holds a lock on. The kernel frees the lock with the process, however
that ends: who writes there next removes the folder.
"""
import concurrent.futures
import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
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

from deeplab import contract
from deeplab import errors
from deeplab import inputs as inputs_lib
from deeplab import locks
from deeplab import storage
from deeplab.errors import InputError

_PREFIX, _SUFFIX = '.deeplab-', '.tmp'
_LOCK = '.deeplab-lock'
_READ_BYTES = 2 ** 20
# How file systems say that they cannot be told to write to the disk now.
_CANNOT_SYNC = (errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP,
                errno.EROFS)
# File systems with a journal write it once for all that wait for it.
_SYNCED_AT_A_TIME = 16


@contextlib.contextmanager
def replacing(*paths: str) -> Iterator[List[str]]:
  """Context that gives names to write to, and in the end the wanted ones.

  If the block fails, what was written is removed and what had the wanted names
  is as it was. Several files are renamed in their order, once all are complete
  and on the disk: the last one may say that the others are there. A folder
  replaces a folder, whatever is in it, which the caller has looked at. Missing
  folders are made. Leftovers of killed runs are removed. Remote files are
  written on this machine first, and go up in the end.

  Args:
    *paths: files or folders.

  Yields:
    As many paths, of this context alone; nothing is there yet.

  Raises:
    OSError: a file cannot be written; the wanted name is in it.
  """
  is_remote = bool(paths) and storage.is_remote(paths[0])
  with (_on_this_machine if is_remote else _temporaries)(paths) as temporaries:
    yield temporaries
    folders = set(map(_folder_of, paths))
    if not is_remote:
      sync(*temporaries)
    for number, (temporary, path) in enumerate(zip(temporaries, paths)):
      if 0 < number == len(paths) - 1 and not is_remote:
        _sync_all(folders)
      try:
        if is_remote:
          storage.make_folder(_folder_of(path))
          storage.upload(temporary, path)
        else:
          _replace(temporary, path)
      except OSError as error:
        if number:
          raise OSError(error.errno, '{}; of {} files, these are new: {}; run '
                        'again'.format(error.strerror, len(paths),
                                       errors.some_of(paths[:number])), path)
        raise
    if not is_remote:
      _sync_all(folders)


def check_outputs(
    given: errors.Option, *paths: str, inputs: Iterable[Optional[str]] = (),
    ours: Optional[Callable[[str], bool]] = None, example: str = '') -> None:
  """Checks files that are to be written: before long work, not after it.

  Args:
    given: the option that names them, for the message.
    *paths: the files; missing folders are made.
    inputs: files and folders that the command reads; None and '' do not count.
      An output may not be an input, nor replace a file in an input folder.
    ours: function of the path of a file that exists, which says whether the
      suite wrote it; others are not replaced. None: any file is replaced.
    example: a file name to suggest if a folder was given.

  Raises:
    InputError: a file may not be replaced or cannot be written.
  """
  read = [os.path.realpath(path) for path in inputs if path]
  for path in paths:
    named = '' if path == given.text else path + ' '
    if storage.is_folder(path) or path.endswith(os.sep):
      raise InputError(
          '{}: {}is a folder, expected the name of a file{}', given, named,
          ', such as {}'.format(os.path.join(path, example))
          if example else '')
    if storage.is_remote(path) or not os.path.isfile(path):
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
          '{}: {}exists and is no file that this command writes; give another '
          'name or remove it', given, named)
  try:
    if paths and storage.is_remote(paths[0]):
      storage.make_folder(_folder_of(paths[0]))
      return
    with _temporaries(paths) as temporaries:
      for temporary in temporaries:
        # A full disk takes an empty file.
        _write(temporary, b'\n')
  except OSError as error:
    raise InputError('{}: {}', given, error.strerror if (
        error.filename in (None, given.text)) else errors.of_system(error))


def json_with(*keys: str) -> Callable[[str], bool]:
  """Returns a function that says whether a file is JSON with some keys.

  Args:
    *keys: of the object in the file; 'a.b' is a key of the object at key a.
  """
  def found(path):
    try:
      content = inputs_lib.read_json(path, path, 'JSON')
      for key in keys:
        value = content
        for name in key.split('.'):
          value = value[name]
    except (InputError, OSError, LookupError, TypeError):
      return False
    return True

  return found


def check_folder(given: errors.Option, folder: str, *,
                 inputs: Iterable[Optional[str]] = ()) -> None:
  """Checks that a folder can be written to; makes it if it is missing.

  Args:
    given: the option that names it, for the message.
    folder: the folder.
    inputs: folders with pictures that the command reads, which would take what
      is written for pictures the next time.

  Raises:
    InputError: saying why not.
  """
  if storage.exists(folder) and not storage.is_folder(folder):
    raise InputError('{}: is a file, expected a folder', given)
  if os.path.realpath(folder) in [
      os.path.realpath(path) for path in inputs if path]:
    raise InputError('{}: is a folder of pictures that this command reads; '
                     'give another folder', given)
  check_outputs(given, os.path.join(folder, 'x'))


@contextlib.contextmanager
def replacing_own(
    given: errors.Option, folder: str, names: Sequence[str],
    ours: Callable[[str], bool] = lambda path: False) -> Iterator[str]:
  """Context with a folder to write to, whose files go to another in the end.

  Files that an earlier run wrote there are replaced, or removed if this run
  does not write them. All other files stay. A file that bears a name which this
  run needs and that no earlier run wrote is an error. If the block fails, the
  folder is as it was. While files get their names, the folder has a file
  INCOMPLETE, which stays if that is interrupted; the next run replaces all.

  Args:
    given: the option that names the folder, for messages.
    folder: where the files go; made if missing. It may be `.`, or a link.
    names: glob patterns of all files that the block may write, from the folder.
      The last one is the name of a file that says who wrote the others; it
      appears last.
    ours: function of that file's path, which says whether an earlier run wrote
      it, and with it all files that fit the patterns.

  Yields:
    The path of a new, empty folder.

  Raises:
    InputError: another run writes there, or a file may not be replaced.
    OSError: a file cannot be written; the wanted name is in it.
  """
  check_folder(given, folder)
  root = os.path.realpath(folder)
  with contextlib.ExitStack() as stack:
    stack.enter_context(locks.alone(given, root))
    replaced = _replaceable(given, root, names, ours)
    new = os.path.join(_hidden_folder(root, stack), 'new')
    os.mkdir(new)
    try:
      yield new
      sync(new)
      written = [os.path.relpath(os.path.join(inner, name), new)
                 for inner, _, found in os.walk(new) for name in found]
      written.sort(key=lambda name: (name == names[-1], name))
      foreign = [name for name in written
                 if not _is_plain(root, name) or name not in replaced and
                 os.path.lexists(os.path.join(root, name))]
      _refuse_foreign(given, foreign)
      incomplete = os.path.join(root, contract.INCOMPLETE)
      _write(incomplete, b'A run has not finished writing here.\n')
      sync(incomplete)
      for name in written:
        path = os.path.join(root, name)
        _make_folder(_folder_of(path))
        os.replace(os.path.join(new, name), path)
      for name in replaced.difference(written):
        os.remove(os.path.join(root, name))
      _sync_all({_folder_of(os.path.join(root, name)) for name in written})
      os.remove(incomplete)
    except OSError as error:
      _name_what_was_wanted(error, [new], [root])
      raise


def _replaceable(given, root, names, ours):
  """Returns the names, from root, of an earlier run's files; see above."""
  found = {os.path.relpath(path, root) for name in names
           for path in glob.glob(os.path.join(glob.escape(root), name))}
  foreign = [name for name in sorted(
      found.union(map(os.path.dirname, names))) if not _is_plain(root, name)]
  if not foreign and not ours(os.path.join(root, names[-1])) and not (
      os.path.exists(os.path.join(root, contract.INCOMPLETE))):
    foreign = sorted(found)
  _refuse_foreign(given, foreign)
  return found


def _is_plain(root, name):
  """Whether no link leads from a folder's real path to a name in it."""
  path = os.path.normpath(os.path.join(root, name))
  return os.path.realpath(path) == path


def _refuse_foreign(given, names):
  if names:
    raise InputError(
        '{}: holds {}, which no earlier run of this command wrote there; give '
        'another folder or remove it', given, errors.some_of(names))


def remove_leftovers(folder: str) -> None:
  """Removes what `replacing` had begun there in processes that are dead.

  On a file system without locks all of it is left alone.
  """
  for name in os.listdir(folder):
    if not (name.startswith(_PREFIX) and name.endswith(_SUFFIX)):
      continue
    path = os.path.join(folder, name)
    try:
      with locks.exclusive(os.path.join(path, _LOCK)):
        _remove(path)
    except FileNotFoundError:
      # Its process died before it had a lock, or has no lock yet and will make
      # another one.
      with contextlib.suppress(OSError):
        os.rmdir(path)
    except OSError:
      pass  # it is alive


def sync(*paths: str) -> None:
  """Makes files, and folders with all that is in them, reach the disk.

  A machine that loses its power may otherwise keep the name and lose the bytes.

  Raises:
    OSError: they cannot be written.
  """
  found = [path for path in paths if not os.path.isdir(path)]
  for path in paths:
    for folder, _, names in os.walk(path):
      inner = [os.path.join(folder, name) for name in names]
      found += [path for path in inner if not os.path.islink(path)] + [folder]
  _sync_all(found)


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

  A dict in place of bytes is a folder, from the names of its files to their
  bytes; it replaces a folder, whatever is in that.
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
  """Returns JSON as files have it, the same for the same content."""
  return (json.dumps(content, indent=2, sort_keys=True) + '\n').encode('utf-8')


def digest(content: Any) -> str:
  """Returns the SHA-256 of json_bytes of something, in hexadecimal."""
  return hashlib.sha256(json_bytes(content)).hexdigest()


def sha256_of(path: str) -> str:
  """Returns the SHA-256 of a file, in hexadecimal."""
  checksum = hashlib.sha256()
  with storage.reading(path) as source:
    for part in iter(lambda: source.read(_READ_BYTES), b''):
      checksum.update(part)
  return checksum.hexdigest()


# --- The hidden folder -----------------------------------------------------


@contextlib.contextmanager
def _temporaries(paths: Sequence[str]) -> Iterator[List[str]]:
  """Context with a name to write to for each path, until its end."""
  folders: Dict[str, str] = {}
  temporaries: List[str] = []
  try:
    with contextlib.ExitStack() as stack:
      for path in paths:
        _refuse_devices(path)
        parent = _folder_of(path)
        if parent not in folders:
          _make_folder(parent)
          remove_leftovers(parent)
          folders[parent] = _hidden_folder(parent, stack)
        # By its own name, which may be as long as names can be.
        temporaries.append(
            os.path.join(folders[parent], os.path.basename(path)))
      yield temporaries
  except OSError as error:
    _name_what_was_wanted(error, temporaries, paths)
    raise


def _hidden_folder(parent: str, stack: contextlib.ExitStack) -> str:
  """Makes a folder with a lock, until the end of a stack of contexts."""
  while True:
    with contextlib.ExitStack() as attempt:
      # In the same folder, as no rename leads from one file system to another.
      folder = tempfile.mkdtemp(dir=parent, prefix=_PREFIX, suffix=_SUFFIX)
      attempt.callback(_remove, folder)
      try:
        _hold(os.path.join(folder, _LOCK), attempt)
      except (BlockingIOError, FileNotFoundError):
        continue  # taken for a dead one's before it was held: another one
      stack.push(attempt.pop_all())
      return folder


def _hold(lock: str, stack: contextlib.ExitStack) -> None:
  """Makes a file and holds a lock on it, until the end of the stack."""
  _write(lock, b'')
  try:
    stack.enter_context(locks.exclusive(lock))
  except (BlockingIOError, FileNotFoundError):
    raise
  except OSError:
    return  # no locks on this file system: nor can any other process take it
  if not os.path.exists(lock):
    raise FileNotFoundError(lock)


def _remove(folder: str) -> None:
  """Removes a hidden folder, as far as it can be."""
  with contextlib.suppress(OSError):
    for name in os.listdir(folder):
      path = os.path.join(folder, name)
      if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
      elif name != _LOCK:
        os.remove(path)
    # Last: without it, what is in the folder would stay for ever.
    os.remove(os.path.join(folder, _LOCK))
  with contextlib.suppress(OSError):
    os.rmdir(folder)


def _refuse_devices(path: str) -> None:
  """Raises OSError for what would be lost if a file took its name."""
  try:
    mode = os.stat(path).st_mode
  except FileNotFoundError:
    return
  if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
    raise OSError(errno.EINVAL, 'is a device or a pipe, expected the name of a '
                  'file', path)


def _make_folder(folder: str) -> None:
  try:
    os.makedirs(folder, exist_ok=True)
  except FileExistsError:
    raise NotADirectoryError(
        errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)


def _name_what_was_wanted(
    error: OSError, temporaries: Sequence[str], paths: Sequence[str]) -> None:
  """Puts into an error the name that a file was to get, for its own."""
  if error.errno is None:
    return
  name = error.filename
  if name is None:
    # A write does not say of what: of the last file that was begun.
    begun = [path for temporary, path in zip(temporaries, paths)
             if os.path.lexists(temporary)]
    error.filename = (begun or paths)[-1]
  elif _PREFIX in str(name):
    within = [path for temporary, path in zip(temporaries, paths)
              if (str(name) + os.sep).startswith(temporary + os.sep)]
    error.filename = (within or paths)[0]
    error.filename2 = None


@contextlib.contextmanager
def _on_this_machine(paths: Sequence[str]) -> Iterator[List[str]]:
  """Context with a name on this machine for each remote path.

  Paths that share a folder have names in one folder.
  """
  parents = sorted(set(map(_folder_of, paths)))
  temporaries: List[str] = []
  try:
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
      for path in paths:
        parent = os.path.join(folder, str(parents.index(_folder_of(path))))
        os.makedirs(parent, exist_ok=True)
        temporaries.append(os.path.join(parent, os.path.basename(path)))
      yield temporaries
  except OSError as error:
    _name_what_was_wanted(error, temporaries, paths)
    raise


# --- Steps -----------------------------------------------------------------


def _replace(temporary: str, path: str) -> None:
  """Gives a file or folder its name."""
  if not (os.path.isdir(temporary) and os.path.isdir(path)):
    os.replace(temporary, path)
    return
  # In the hidden folder, which is removed in the end.
  former = temporary + '.former'
  os.replace(path, former)
  try:
    os.replace(temporary, path)
  except BaseException:  # a signal, too
    os.replace(former, path)
    raise


def _folder_of(path: str) -> str:
  return os.path.dirname(path) or os.curdir


def _write(path: str, content: bytes) -> None:
  with open(path, 'wb') as out:
    out.write(content)


def _sync_one(path: str) -> None:
  """Syncs a file or a folder, without what is in it."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError as error:
    if error.errno not in _CANNOT_SYNC:
      raise
  finally:
    os.close(descriptor)


def _sync_all(paths: Iterable[str]) -> None:
  """Syncs files and folders, without what is in these, many at a time."""
  with concurrent.futures.ThreadPoolExecutor(_SYNCED_AT_A_TIME) as pool:
    for _ in pool.map(_sync_one, paths):
      pass
