"""Simulates a full disk."""
import contextlib
import resource


@contextlib.contextmanager
def largest_file(size):
  """Limits the size of files that this process can write, in bytes."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
