"""Downloads ADE20K and the published files; checks each against a pinned SHA-1.

A file is NAME.part until its SHA-1 is right; the next attempt resumes it. Needs
only Python 3.6 and no package.
"""
import hashlib
import http.client
import os
import re
import shutil
import tempfile
import time
from typing import Callable, Dict, Sequence
import urllib.error
import urllib.request
import zipfile
import zlib

from deeplab import errors
from deeplab.errors import InputError
from deeplab.storage import checked_read
from deeplab.storage import locks
from deeplab.system import environment

# Paths in the current folder, where the other scripts expect them.
ADE20K = 'ADE20K'
ZIP = 'ADEChallengeData2016.zip'
DATA = 'ADEChallengeData2016'
RECORDS = 'tfrecord'
ADE20K_SHA1 = '219e1696abb36c8ba3a3afe7fb2f4b4606a897c7'
# http is a fallback because the server has had expired certificates.
ADE20K_URLS = tuple(
    scheme + '://data.csail.mit.edu/places/ADEchallenge/' + ZIP
    for scheme in ('https', 'http'))
# Size of the zip file; its contents and the records take as much each.
ADE20K_BYTES = 0.9e9
# Pairs of an image and a label.
ADE20K_PAIRS = {'training': 20210, 'validation': 2000}

PUBLISHED_FOLDERS = ('float', 'post_train_quant', 'quantize_aware_training')
PUBLISHED_URL = ('https://raw.githubusercontent.com/mlcommons/mobile_open/main/'
                 'vision/deeplab/models_and_code/checkpoints')
PUBLISHED_LIST = os.path.join(
    environment.REPOSITORY, 'checkpoints', 'git-blob-sha1.txt')

# Most attempts in one run; an attempt without a byte is the last.
_ATTEMPTS = 5
# Timeout of an attempt without a byte.
_TIMEOUT_SECS = 60
_SECONDS_BETWEEN_LINES = 10
_READ_BYTES = 1 << 20
# HTTP status if NAME.part is at least as long as the file.
_RANGE_NOT_SATISFIABLE = 416
_SHA1 = re.compile('[0-9a-f]{40}')
_UNPACKED = '.unpack.'


# --- One file --------------------------------------------------------------


def fetch(addresses: Sequence[str], path: str,
          checksum_of: Callable[[str], str], expected: str) -> None:
  """Downloads a file, or resumes its download.

  Args:
    addresses: URLs of the file; each is tried if the one before sends nothing.
    path: where to put it; must not exist.
    checksum_of: function from a path to a SHA-1 in hexadecimal.
    expected: the file's SHA-1.

  Raises:
    InputError: it cannot be downloaded, or its SHA-1 is wrong.
    OSError: it cannot be written.
  """
  partial = path + '.part'
  # An earlier run may have been killed right after the last byte.
  if not os.path.exists(partial) or checksum_of(partial) != expected:
    address = _download(addresses, partial)
    found = checksum_of(partial)
    if found != expected:
      os.remove(partial)
      raise InputError('{}: has SHA-1 {}; expected {}'.format(
          address, found, expected))
  os.replace(partial, path)


def _download(addresses, partial):
  """Completes a partial file; returns the address used."""
  problem = ''
  for address in addresses:
    print((problem and problem + '; trying the next address\n') +
          'downloading ' + address, flush=True)
    before = found = _size(partial)
    for _ in range(_ATTEMPTS):
      problem = _attempt(address, partial)
      if not problem:
        return address
      if _size(partial) <= found:
        break
      found = _size(partial)
    if found > before:
      raise InputError('{}: broke off after {} bytes ({}); rerun to resume'
                       .format(address, found, problem))
    problem = 'cannot download {} ({})'.format(address, problem)
  raise InputError(problem + '; rerun to try again')


def _attempt(address, partial):
  """Requests the missing bytes once; returns the problem, or ''."""
  size = _size(partial)
  request = urllib.request.Request(
      address, headers={'Range': 'bytes={}-'.format(size)} if size else {})
  try:
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECS) as response:
      is_rest = response.status == http.HTTPStatus.PARTIAL_CONTENT
      with open(partial, 'ab' if is_rest else 'wb') as output:
        _copy(response, output)
      # `length` is the number of missing bytes; None: the server sent none.
      return 'the connection ended early' if response.length else ''
  except urllib.error.HTTPError as error:
    if error.code == _RANGE_NOT_SATISFIABLE and size:
      os.remove(partial)
      return _attempt(address, partial)
    return 'HTTP status {}'.format(error.code)
  except (OSError, http.client.HTTPException, ValueError) as error:
    reason = getattr(error, 'reason', error)  # a URLError wraps it
    return errors.one_line(
        errors.of_system(reason) if isinstance(reason, OSError)
        else str(reason)) or type(reason).__name__


def _copy(response, output):
  shown = time.time()
  for content in iter(lambda: response.read(_READ_BYTES), b''):
    output.write(content)
    if time.time() > shown + _SECONDS_BETWEEN_LINES:
      shown = time.time()
      print('{:.0f} MB so far'.format(output.tell() / 1e6), flush=True)


def _size(path):
  return os.path.getsize(path) if os.path.exists(path) else 0


def sha1_of(path: str, first: bytes = b'') -> str:
  """Returns the SHA-1 of `first` and a file's content, in hexadecimal."""
  digest = hashlib.sha1(first)
  with open(path, 'rb') as source:
    for content in iter(lambda: source.read(_READ_BYTES), b''):
      digest.update(content)
  return digest.hexdigest()


def blob_sha1_of(path: str) -> str:
  """Returns a file's Git blob SHA-1."""
  return sha1_of(path, 'blob {}\0'.format(os.path.getsize(path)).encode())


def _check_address(address, variable):
  if not re.fullmatch(r'https?://[^\s\x00-\x1f]+', address):
    raise InputError('{}={}: expected an address that begins with https:// or '
                     'http://'.format(variable, address))


# --- ADE20K ----------------------------------------------------------------


def get_ade20k(zip_file: str, addresses: Sequence[str], sha1: str,
               pairs: Dict[str, int]) -> None:
  """Downloads and unpacks ADE20K/ADEChallengeData2016 in the current folder.

  Args:
    zip_file: a copy of the zip file; '': it is downloaded.
    addresses: URLs of the zip file; see `fetch`.
    sha1: SHA-1 of the zip file.
    pairs: expected number of pairs in each split; empty: any.

  Raises:
    InputError: there is no such file, its SHA-1 is wrong, or another run is
      using the folder.
    OSError: something cannot be written.
  """
  for address in addresses:
    _check_address(address, 'ADE20K_URL')
  if not _SHA1.fullmatch(sha1):
    raise InputError('ADE20K_SHA1={}: expected 40 hexadecimal digits in small '
                     'letters'.format(sha1))
  if zip_file and not os.path.isfile(zip_file):
    raise InputError('--zip={}: no such file'.format(zip_file))
  os.makedirs(ADE20K, exist_ok=True)
  with locks.alone(ADE20K, ADE20K):
    _get_pairs(zip_file, addresses, sha1, pairs)


def _get_pairs(zip_file, addresses, sha1, pairs):
  data = os.path.join(ADE20K, DATA)
  if os.path.isdir(data):
    _check_pairs(data, pairs, 'remove this folder and rerun')
    print('{} is complete, nothing to download'.format(data), flush=True)
    return
  remedy = 'give another copy, or none to download it'
  if not zip_file:
    zip_file, remedy = os.path.join(ADE20K, ZIP), 'remove it and rerun'
    if not os.path.exists(zip_file):
      fetch(addresses, zip_file, sha1_of, sha1)
  found = sha1_of(zip_file)
  if found != sha1:
    raise InputError('{}: has SHA-1 {}; expected {}; {}'.format(
        zip_file, found, sha1, remedy))
  for name in os.listdir(ADE20K):
    if name.startswith(_UNPACKED):  # left by a killed run
      shutil.rmtree(os.path.join(ADE20K, name))
  print('unpacking ' + zip_file, flush=True)
  with tempfile.TemporaryDirectory(dir=ADE20K, prefix=_UNPACKED) as folder:
    unpacked = os.path.join(folder, DATA)
    try:
      with zipfile.ZipFile(zip_file) as archive:
        archive.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
      raise InputError('{}: cannot be unpacked: {}'.format(
          zip_file, errors.one_line(str(error))))
    _check_pairs(unpacked, pairs, 'is it {}?'.format(ZIP))
    os.rename(unpacked, data)


def _check_pairs(folder, pairs, remedy):
  """Raises InputError if the numbers of images and labels are wrong."""
  for split, expected in pairs.items():
    for kind, ending in (('images', '.jpg'), ('annotations', '.png')):
      inner = os.path.join(folder, kind, split)
      found = sum(name.endswith(ending) for name in os.listdir(inner)) if (
          os.path.isdir(inner)) else 0
      if found != expected:
        raise InputError('{}: holds {} files *{}; expected {}; {}'.format(
            inner, found, ending, expected, remedy))


# --- The published files ---------------------------------------------------


def published(path: str = PUBLISHED_LIST) -> Dict[str, str]:
  """Reads a list of published files.

  Args:
    path: lines of a Git blob SHA-1 and a path.

  Returns:
    Dict from path, which is relative and has no '..', to SHA-1.

  Raises:
    InputError: there is no such file, or a line is wrong.
  """
  sums: Dict[str, str] = {}
  text = checked_read.read_text(path, path, 'a list of published files')
  for number, line in enumerate(text.splitlines(), 1):
    if line.strip() and not line.startswith('#'):
      sha1, *names = line.split()
      if len(names) != 1 or not _SHA1.fullmatch(sha1) or (
          names[0] != os.path.normpath(names[0])) or names[0] in sums or (
              names[0].startswith(('/', '..'))):
        raise InputError('{}: line {}: {}; expected a SHA-1 and a relative '
                         'path, each once'.format(
                             path, number, errors.one_line(line)))
      sums[names[0]] = sha1
  return sums


def state_of_published(folder: str) -> Dict[str, str]:
  """Compares a folder with the published files.

  Returns:
    Dict from path to 'verified', 'another file' or 'missing'.
  """
  found = {}
  for name, expected in published().items():
    path = os.path.join(folder, name)
    found[name] = 'missing' if not os.path.isfile(path) else (
        'verified' if blob_sha1_of(path) == expected else 'another file')
  return found


def get_published(sums: Dict[str, str], address: str, folder: str) -> None:
  """Downloads the published files that are missing from a folder.

  Args:
    sums: SHA-1 by path, from `published`.
    address: URL of their folder.
    folder: where to put them; existing files are kept.

  Raises:
    InputError: files are still missing, or have another SHA-1.
  """
  _check_address(address, 'CHECKPOINTS_URL')
  missing = []
  for name, expected in sums.items():
    path = os.path.join(folder, name)
    try:
      if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fetch(['{}/{}'.format(address, name)], path, blob_sha1_of, expected)
      elif blob_sha1_of(path) != expected:
        raise InputError('is another file than the published one; move it away')
    except (InputError, OSError) as error:
      problem = (errors.of_system(error) if isinstance(error, OSError)
                 else str(error))
      missing.append('{}: {}'.format(name, problem))
      print('missing: ' + missing[-1], flush=True)
  print('{}: {} of {} files verified'.format(
      folder, len(sums) - len(missing), len(sums)), flush=True)
  if missing:
    raise InputError('{} of {} files are missing, the first: {}'.format(
        len(missing), len(sums), missing[0]))
