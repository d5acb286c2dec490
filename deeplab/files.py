"""Files and folders that have their name only once they are complete."""
import contextlib
import json
import os
import re
import shutil
from typing import Any, Iterator, List

_TEMPORARY = re.compile(r'\.\d+\.tmp$')


@contextlib.contextmanager
def replacing(*paths: str) -> Iterator[List[str]]:
  """Context that gives names to write to, and in the end the wanted ones.

  Where the block fails, what was written is removed, and what had the wanted
  names before is as it was. Several files are renamed one after the other, once
  all are complete.

  Args:
    *paths: files, which are replaced; or folders, which may exist only empty.

  Yields:
    As many paths beside them, of this process alone; nothing is there yet.
  """
  # In the same folders, as no rename leads from one file system to another.
  temporaries = ['{}.{}.tmp'.format(path, os.getpid()) for path in paths]
  try:
    yield temporaries
    for temporary, path in zip(temporaries, paths):
      os.replace(temporary, path)
  finally:
    for temporary in temporaries:
      if os.path.isdir(temporary):
        shutil.rmtree(temporary, ignore_errors=True)
      elif os.path.exists(temporary):
        os.remove(temporary)


def wanted_name(name: str) -> str:
  """Returns the name that a file of `replacing` is to get; others unchanged."""
  return _TEMPORARY.sub('', name)


def write_json(path: str, content: Any) -> None:
  """Writes JSON; see `replacing`."""
  write_text(path, json.dumps(content, indent=2, sort_keys=True) + '\n')


def write_text(path: str, text: str) -> None:
  """Writes text as UTF-8; see `replacing`."""
  write_bytes(path, text.encode('utf-8'))


def write_bytes(path: str, content: bytes) -> None:
  """Writes bytes; see `replacing`."""
  with replacing(path) as (temporary,), open(temporary, 'wb') as out:
    out.write(content)
