"""User-input errors and how their messages are formatted.

A message names an option by its field; deeplab.cli.runner prints its flag.
"""
import os
from typing import Any, Callable, Iterable, NamedTuple, Optional, Sequence


class Option(NamedTuple):
  """An option in a message; made by `option`."""
  # The name of its field, or of a function's argument.
  name: str
  # Its value, as users write it; None: the message shows only the name.
  text: Optional[str]

  def __str__(self):
    return self.name if self.text is None else '{}={}'.format(*self)


def option(name: str, value: Any = None) -> Option:
  """Returns an Option for a message; value None: the message shows no value."""
  return Option(name, None if value is None else _written(value))


class Message:
  """A template for str.format and its values: options, messages or others.

  A template without values is not formatted.
  """

  def __init__(self, template: str, *values: Any):
    self._template = template
    self._values = values

  def __str__(self):
    return self.shown(str)

  def shown(self, show: Callable[[Option], str]) -> str:
    """Returns the text; `show` returns the text of an option."""
    if not self._values:
      return self._template
    return self._template.format(
        *[_shown(value, show) for value in self._values])


class InputError(Message, Exception):
  """Bad input: an option, a file or a folder that differs from the expected.

  The message is one line: the value, the problem, the expected value, a remedy.
  Scripts print it without a traceback and exit with status 2.
  """


def of_system(
    error: OSError, show_path: Callable[[str], str] = str) -> str:
  """Returns a message with file and reason, without the error number.

  Args:
    error: raised by the operating system.
    show_path: returns the text to show for the file's path.
  """
  if error.strerror is None:
    return str(error) or type(error).__name__
  names = [os.fsdecode(name) for name in (error.filename, error.filename2)
           if isinstance(name, (str, bytes))]
  return ': '.join([show_path(name) for name in names[-1:]] + [error.strerror])


def joined(separator: str, messages: Iterable[Message]) -> Message:
  """Joins messages into one."""
  messages = list(messages)
  return Message(separator.join(['{}'] * len(messages)), *messages)


def printable(text: str) -> str:
  """Escapes invisible characters: line breaks, terminal commands, raw bytes."""
  return ''.join(character if character.isprintable()
                 else ascii(character)[1:-1] for character in text)


def one_line(text: str) -> str:
  """Replaces line breaks in another program's text with blanks."""
  return ' '.join(text.split())


def some_of(
    items: Sequence[str], separator: str = ', ', limit: int = 3) -> str:
  """Joins the first few texts and adds the number of the others."""
  return separator.join(_first_few(items, limit))


def some_messages(messages: Sequence[Message], separator: str = '; ',
                  limit: int = 3) -> Message:
  """Joins the first few messages and adds the number of the others."""
  return joined(separator, _first_few(messages, limit))


def _first_few(items, limit):
  first = list(items[:limit])
  if len(items) > limit:
    first.append('and {} more'.format(len(items) - limit))
  return first


def _shown(value, show):
  if isinstance(value, Option):
    return show(value)
  return value.shown(show) if isinstance(value, Message) else value


def _written(value):
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, (list, tuple)):
    return ','.join(map(str, value))
  return str(value)
