"""What the tests of the two downloading scripts share."""
import contextlib
import http.server
import os
import re
import shutil
import threading

import pytest

# Makes the file x where bash takes it for a number.
ATTACK = '5+A[$(touch${IFS}x)]'


def path_with(name, commands, folder):
  """Returns a PATH on which a shell script comes before a program.

  Args:
    name: the program's name.
    commands: the script, without its first line.
    folder: pathlib.Path to make a folder of programs in.
  """
  tools = folder / 'tools'
  tools.mkdir()
  program = tools / name
  program.write_text('#!/bin/sh\n' + commands)
  program.chmod(0o755)
  return '{}:{}'.format(tools, os.environ['PATH'])


def path_without_curl(folder):
  """Returns a PATH with all programs but curl; skips where there is no wget.

  Args:
    folder: pathlib.Path to make a folder of programs in.
  """
  if not shutil.which('wget'):
    pytest.skip('no wget')
  tools = folder / 'tools'
  tools.mkdir()
  for place in os.get_exec_path():
    names = os.listdir(place) if os.path.isdir(place) else []
    for name in names:
      link = tools / name
      if name != 'curl' and not link.is_symlink():
        link.symlink_to(os.path.join(place, name))
  return str(tools)


def first_wanted(handler):
  """Returns the first byte that a request's range asks for; None: all of it."""
  wanted = re.match(r'bytes=(\d+)-', handler.headers.get('Range', ''))
  return int(wanted.group(1)) if wanted else None


def send_head(handler, content, first):
  """Answers a request, but for the body, which is returned.

  Args:
    handler: an http.server.BaseHTTPRequestHandler.
    content: all bytes of the file.
    first: see first_wanted.
  """
  rest = content[first or 0:]
  handler.send_response(200 if first is None else 206)
  handler.send_header('Content-Length', str(len(rest)))
  if first is not None:
    handler.send_header('Content-Range', 'bytes {}-{}/{}'.format(
        first, len(content) - 1, len(content)))
  handler.end_headers()
  return rest


class _SlowHandler(http.server.BaseHTTPRequestHandler):
  """Serves server.files with ranges, slowly enough to be cut off."""

  def do_HEAD(self):
    self._answer()

  def do_GET(self):
    content = self._answer()
    for start in range(0, len(content), 4096):
      self.wfile.write(content[start:start + 4096])
      self.server.pause.wait(0.005)

  def _answer(self):
    """Sends the head; returns what is to follow."""
    content = self.server.files.get(self.path.lstrip('/'), b'')
    return send_head(self, content, first_wanted(self))

  def log_message(self, *unused_args):
    pass


class _Server(http.server.HTTPServer):

  def handle_error(self, *unused_args):
    pass  # the other end was killed


@contextlib.contextmanager
def serving(contents):
  """Context of an HTTP server that answers slowly.

  Args:
    contents: dict from path to bytes.

  Yields:
    Its address.
  """
  server = _Server(('127.0.0.1', 0), _SlowHandler)
  server.files, server.pause = contents, threading.Event()
  thread = threading.Thread(target=server.serve_forever, args=(0.05,))
  thread.start()
  try:
    yield 'http://127.0.0.1:{}'.format(server.server_address[1])
  finally:
    server.shutdown()
    thread.join()
    server.server_close()
