"""An HTTP server of files, for tests of downloads."""
import contextlib
import http.server
import re
import threading


class _Handler(http.server.BaseHTTPRequestHandler):

  def do_GET(self):
    server, content = self.server, self.server.files.get(self.path[1:])
    wanted = re.match(r'bytes=(\d+)-', self.headers.get('Range', ''))
    first = int(wanted.group(1)) if wanted else 0
    server.requests.append((self.path[1:], first))
    if content is None or first >= max(1, len(content)):
      self.send_error(404 if content is None else 416)
      return
    self.send_response(206 if wanted else 200)
    self.send_header('Content-Length', str(len(content) - first))
    self.end_headers()
    rest = content[first:]
    if server.cuts:
      server.cuts -= 1
      rest = rest[:len(rest) // 2]
    for start in range(0, len(rest), 4096):
      self.wfile.write(rest[start:start + 4096])
      server.pause.wait(server.pause_secs)

  def log_message(self, *unused_args):
    pass


class _Server(http.server.HTTPServer):

  def handle_error(self, *unused_args):
    pass  # the client was killed


@contextlib.contextmanager
def serving(files, pause_secs=0.005):
  """Context of an HTTP server.

  Args:
    files: dict from path to bytes; it may change while the server runs.
    pause_secs: seconds to wait after each 4096 bytes.

  Yields:
    A server with `address`; `requests`, a list of (path, first byte); and
    `cuts`, the number of answers to break off in the middle.
  """
  server = _Server(('127.0.0.1', 0), _Handler)
  server.address = 'http://127.0.0.1:{}'.format(server.server_address[1])
  server.files, server.requests, server.cuts = files, [], 0
  server.pause, server.pause_secs = threading.Event(), pause_secs
  thread = threading.Thread(target=server.serve_forever, args=(0.05,))
  thread.start()
  try:
    yield server
  finally:
    server.shutdown()
    thread.join()
    server.server_close()
