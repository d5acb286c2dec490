"""The one exception that means "the user can put this right"."""


class InputError(Exception):
  """Bad input: a flag, a file or a folder that is not what was expected.

  The message is one line that says what was wrong, the value received, what
  was expected and, where it helps, what to do. Scripts print it without a
  traceback and leave with exit status 2.
  """
