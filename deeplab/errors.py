"""The one exception that means "the user can put this right", and its words.

A message names an option as the library does, by its field. Whoever shows the
message may say it otherwise: deeplab.cli says the flag.
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
  """Returns an Option, for a message, with its value unless that is None."""
  return Option(name, None if value is None else _written(value))


class Message:
  """Text with options in it, and with other messages.

  Made of a template for str.format and what it takes; a template that is given
  alone is the text as it is.
  """

  def __init__(self, template: str, *parts: Any):
    self._template = template
    self._parts = parts

  def __str__(self):
    return self.shown(str)

  def shown(self, show: Callable[[Option], str]) -> str:
    """Returns the text, each option in it as `show` says it."""
    if not self._parts:
      return self._template
    return self._template.format(*[_shown(part, show) for part in self._parts])


class InputError(Message, Exception):
  """Bad input: an option, a file or a folder that is not what was expected.

  The message is one line that says what was wrong, the value received, what
  was expected and, where it helps, what to do. Scripts print it without a
  traceback and leave with exit status 2.
  """


def of_system(
    error: OSError, show_path: Callable[[str], str] = str) -> str:
  """Says what could not be done with which file, without a number.

  Args:
    error: of the system.
    show_path: what to say in place of the file's path.
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
  """Returns text in which whatever is no visible character is escaped.

  A name may hold a newline, which would make two lines of one, what a terminal
  takes for a command, or bytes that are no text.
  """
  return ''.join(character if character.isprintable()
                 else ascii(character)[1:-1] for character in text)


def one_line(text: str) -> str:
  """Returns another program's text with blanks in place of line breaks."""
  return ' '.join(text.split())


def some_of(
    items: Sequence[str], separator: str = ', ', limit: int = 3) -> str:
  """Joins the first few of several texts and says how many more there are."""
  return separator.join(_first_few(items, limit))


def some_messages(messages: Sequence[Message], separator: str = '; ',
                  limit: int = 3) -> Message:
  """The same of messages."""
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
