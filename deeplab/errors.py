"""User-input errors and how their messages are formatted.

A message names an option by its field. deeplab.cli.runner shows its flag.
"""
import os
from typing import Any, Callable, Iterable, NamedTuple, Optional, Sequence


class Option(NamedTuple):
  """An option in a message; made by `option`."""
  # Its field's name, or the name of a function's argument.
  name: str
  # Its value, as users write it; None: the message says the name alone.
  text: Optional[str]

  def __str__(self):
    return self.name if self.text is None else '{}={}'.format(*self)


def option(name: str, value: Any = None) -> Option:
  """Returns an Option for a message; None: without a value."""
  return Option(name, None if value is None else _written(value))


class Message:
  """A template for str.format, and parts: options, messages, other values.

  A template without parts is the text as it is.
  """

  def __init__(self, template: str, *parts: Any):
    self._template = template
    self._parts = parts

  def __str__(self):
    return self.shown(str)

  def shown(self, show: Callable[[Option], str]) -> str:
    """Returns the text; `show` returns the text of an option."""
    if not self._parts:
      return self._template
    return self._template.format(*[_shown(part, show) for part in self._parts])


class InputError(Message, Exception):
  """Bad input: an option, a file or a folder that is not what was expected.

  The message is one line: the problem, the value received, what was expected
  and, if it helps, a remedy. Scripts print it without a traceback and exit with
  status 2.
  """


def of_system(
    error: OSError, show_path: Callable[[str], str] = str) -> str:
  """Returns a message with file and reason, without the error's number.

  Args:
    error: raised by the system.
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
  """Replaces line breaks in another program's text by blanks."""
  return ' '.join(text.split())


def some_of(
    items: Sequence[str], separator: str = ', ', limit: int = 3) -> str:
  """Joins the first few texts and says how many more there are."""
  return separator.join(_first_few(items, limit))


def some_messages(messages: Sequence[Message], separator: str = '; ',
                  limit: int = 3) -> Message:
  """Joins the first few messages and says how many more there are."""
  return joined(separator, _first_few(messages, limit))


def _first_few(items, limit):
  parts = list(items[:limit])
  if len(items) > limit:
    parts.append('and {} more'.format(len(items) - limit))
  return parts


def _shown(part, show):
  if isinstance(part, Option):
    return show(part)
  return part.shown(show) if isinstance(part, Message) else part


def _written(value):
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, (list, tuple)):
    return ','.join(map(str, value))
  return str(value)
