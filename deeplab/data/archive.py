"""Unpacks zip archives that may be hostile.

Everything that an archive says of its members is checked before the first one
is unpacked. Python's zipfile checks each member's CRC, and writes no more of it
than the size that was checked here.
"""
import os
import stat
import struct
import zipfile
import zlib

from deeplab import errors
from deeplab import progress

# An archive that unpacks to more than both is taken for a bomb. Images do not
# compress: ADE20K's archive and what it holds have the same size.
_LARGEST_SIZE = 8 << 30  # bytes
_LARGEST_RATIO = 10

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1  # bit of flag_bits
# Of the mode, which external_attr holds in its upper half; 0: not stated.
_FILE_TYPES = (0, stat.S_IFREG, stat.S_IFDIR)

# What zipfile raises for damaged archives, which is more than it documents.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError,
               OverflowError, RuntimeError, ValueError)


def unpack(path: str, output_dir: str, folder: str) -> None:
  """Unpacks an archive; shows progress.

  Args:
    path: the zip file.
    output_dir: an empty folder. Where unpacking fails, it may hold a part.
    folder: name of the one folder that all members lie in.

  Raises:
    errors.InputError: the archive is damaged, or holds what does not belong
      into a data set: links, names that lead elsewhere, encrypted members, the
      same name twice, or many times its own size. Of the latter, nothing has
      been unpacked.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      members = archive.infolist()
      _check_members(members, path, folder)
      _check_size(members, path)
      for member in progress.shown(members, 'unpacking', unit='file'):
        archive.extract(member, output_dir)
  except _UNREADABLE as error:
    reason = (errors.of_system(error) if isinstance(error, OSError)
              else errors.one_line(str(error)))
    raise errors.InputError('{}: cannot be unpacked: {}'.format(
        path, reason or type(error).__name__))


def _check_members(members, path, folder):
  """Raises InputError where some members must not be unpacked."""
  problems = []
  names = set()
  for member in members:
    problem = _problem_with(member, folder)
    # Some file systems do not tell capitals from small letters.
    name = member.filename.rstrip('/').lower()
    if not problem and name in names:
      problem = 'is there twice'
    names.add(name)
    if problem:
      problems.append('{!r} {}'.format(member.orig_filename, problem))
  if problems:
    raise errors.InputError('{}: not unpacked: {}'.format(
        path, errors.some_of(problems, '; ')))


def _check_size(members, path):
  """Raises InputError where an archive is a bomb."""
  size = sum(member.file_size for member in members)
  limit = max(_LARGEST_SIZE, _LARGEST_RATIO * os.path.getsize(path))
  if size > limit:
    raise errors.InputError(
        '{}: not unpacked: would be {} MB, expected at most {} MB'.format(
            path, size // 10**6, limit // 10**6))


def _problem_with(member, folder):
  """Says why a ZipInfo must not be unpacked; None where it may be."""
  # zipfile cuts names at a zero byte and may take another one from an extra
  # field.
  if member.filename != member.orig_filename:
    return 'has two names'
  name = member.filename
  # A folder's name ends in a slash.
  parts = (name[:-1] if name.endswith('/') else name).split('/')
  # To Windows a backslash is a slash, and a colon ends a drive's name.
  if {'', '.', '..'} & set(parts) or '\\' in name or ':' in name:
    return 'is no plain relative path'
  if not name.isprintable():
    return 'has control characters in its name'
  if parts[0] != folder:
    return 'is not in {}/'.format(folder)
  if stat.S_IFMT(member.external_attr >> 16) not in _FILE_TYPES:
    return 'is a link or a device'
  if member.flag_bits & _ENCRYPTED:
    return 'is encrypted'
  if member.compress_type not in _METHODS:
    return 'is compressed with method {}, expected deflate'.format(
        member.compress_type)
  return None
