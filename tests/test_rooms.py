"""Checks that rooms of deeplab/ import only rooms below them."""
import ast
import glob
import os

from tests import scripts

# From bottom to top; rooms on one floor do not import each other.
FLOORS = (
    ('constants', 'errors'), ('system', 'storage'), ('config',), ('cli',),
    ('distribution',), ('nets',), ('checkpoints',), ('models',), ('data',),
    ('evaluation',), ('training',), ('export',), ('mlperf', 'tools'))
LIBRARY = os.path.join(scripts.REPOSITORY, 'deeplab')
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imports():
  """Yields (path, its room, room that it imports)."""
  for path in glob.glob(os.path.join(LIBRARY, '**', '*.py'), recursive=True):
    name = os.path.relpath(path, LIBRARY)
    with open(path, encoding='utf-8') as source:
      tree = ast.parse(source.read())
    for node in ast.walk(tree):
      if isinstance(node, ast.ImportFrom) and (node.module or '').startswith(
          'deeplab'):
        for alias in node.names:
          yield name, name.split(os.sep)[0].split('.')[0], '{}.{}'.format(
              node.module, alias.name).split('.')[1]


def test_each_room_imports_only_rooms_below_it():
  found = list(imports())
  assert {room for _, room, _ in found} <= set(FLOOR)
  assert [(name, other) for name, room, other in found
          if room != other and FLOOR[other] >= FLOOR[room]] == []
  # Otherwise the check above would see no imports.
  assert any(other == 'nets' for _, _, other in found)


def test_every_room_is_on_the_map():
  rooms = {os.path.relpath(path, LIBRARY).split(os.sep)[0].split('.')[0]
           for path in glob.glob(os.path.join(LIBRARY, '**', '*.py'),
                                 recursive=True)} - {'__init__'}
  assert rooms == set(FLOOR)
  with open(os.path.join(scripts.REPOSITORY, 'docs', 'architecture.md'),
            encoding='utf-8') as page:
    text = page.read()
  assert [room for room in rooms if room not in text] == []
