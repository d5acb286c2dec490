"""The one exception that means "the user can put this right", and its words."""


class InputError(Exception):
  """Bad input: a flag, a file or a folder that is not what was expected.

  The message is one line that says what was wrong, the value received, what
  was expected and, where it helps, what to do. Scripts print it without a
  traceback and leave with exit status 2.
  """


def some_of(items, separator=', ', limit=3):
  """Joins the first few of a list of str and says how many more there are."""
  parts = list(items[:limit])
  if len(items) > limit:
    parts.append('and {} more'.format(len(items) - limit))
  return separator.join(parts)
