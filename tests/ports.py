"""Addresses of this machine for servers that a test starts."""
import socket


def free_addresses(count):
  """Returns so many 'host:port' that nobody listens at, all different."""
  sockets = [socket.socket() for _ in range(count)]
  for one in sockets:
    one.bind(('127.0.0.1', 0))
  addresses = ['127.0.0.1:{}'.format(one.getsockname()[1]) for one in sockets]
  for one in sockets:
    one.close()
  return addresses
