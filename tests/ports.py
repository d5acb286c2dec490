"""Addresses on this machine for servers of tests."""
import socket


def free_addresses(count):
  """Returns `count` different 'host:port' that nothing listens at."""
  sockets = [socket.socket() for _ in range(count)]
  for one in sockets:
    one.bind(('127.0.0.1', 0))
  addresses = ['127.0.0.1:{}'.format(one.getsockname()[1]) for one in sockets]
  for one in sockets:
    one.close()
  return addresses
