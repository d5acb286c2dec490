"""What holds for every source file of the suite."""
import ast
import glob
import os
import re
import textwrap

import pytest

from tests import scripts

SOURCES = sorted(
    os.path.relpath(path, scripts.REPOSITORY)
    for path in glob.glob(os.path.join(scripts.REPOSITORY, 'deeplab', '**',
                                       '*.py'), recursive=True) +
    glob.glob(os.path.join(scripts.REPOSITORY, '*.py')))
LIBRARY = [path for path in SOURCES if path.startswith('deeplab' + os.sep)]
# NamedTuple fields of Any, where nothing else is true, and why.
ANY_FIELDS = {
    'Case.settings': 'keyword arguments of one of several functions',
    'Field.default': 'a value of whatever type the field has',
    'File.settings': 'keyword arguments of one of several functions',
    'Result.numbers': 'what a JSON file holds',
    'Result.summary': 'what a JSON file holds',
}


def read(path):
  with open(os.path.join(scripts.REPOSITORY, path), encoding='utf-8') as source:
    return source.read()


def test_parity_names_what_it_is_with():
  """A file and, after it, a symbol or what it does there."""
  found = []
  for path in SOURCES:
    text = read(path)
    found += [re.sub(r'\s*\n\s*(# )?', ' ', text[match.start():][:400])
              for match in re.finditer(r'Parity:', text)]
  assert len(found) > 15
  for following in found:
    assert re.match(r'Parity: .{,120}?[\w/]+\.(py|h)\b', following), following


# --- Types -----------------------------------------------------------------


def missing_hints(node, scope=''):
  """Yields 'Class.method: argument' or 'function: result' for each missing one.

  Of functions and methods that others may call: not those with a leading
  underscore, in a class that has one, or within another function.
  """
  for child in ast.iter_child_nodes(node):
    if not isinstance(child, (ast.ClassDef, ast.FunctionDef)):
      yield from missing_hints(child, scope)
    elif child.name.startswith('_'):
      continue
    elif isinstance(child, ast.ClassDef):
      yield from missing_hints(child, scope + child.name + '.')
    else:
      missing = unhinted_arguments(child.args)
      if child.returns is None:
        missing.append('result')
      yield from ('{}{}: {}'.format(scope, child.name, what)
                  for what in missing)


def unhinted_arguments(arguments):
  """Names the arguments without a hint that mean something."""
  named = (getattr(arguments, 'posonlyargs', []) + arguments.args +
           arguments.kwonlyargs)
  rest = [argument for argument in (arguments.vararg, arguments.kwarg)
          if argument and not argument.arg.startswith('unused')]
  return [argument.arg for argument in named + rest
          if argument.annotation is None and
          argument.arg not in ('self', 'cls')]


def any_fields(tree):
  """Names the fields of NamedTuples whose hints have Any in them."""
  return {
      '{}.{}'.format(node.name, field.target.id)
      for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
      if 'NamedTuple' in names_in(node.bases)
      for field in node.body if isinstance(field, ast.AnnAssign)
      if 'Any' in names_in([field.annotation])}


def names_in(expressions):
  """Names and attributes that expressions are made of."""
  return {getattr(node, 'id', getattr(node, 'attr', None))
          for expression in expressions for node in ast.walk(expression)}


@pytest.mark.parametrize('path', LIBRARY)
def test_public_functions_have_type_hints(path):
  assert not list(missing_hints(ast.parse(read(path))))


def test_fields_of_any_are_those_with_a_reason():
  assert set(ANY_FIELDS) == {
      field for path in LIBRARY for field in any_fields(ast.parse(read(path)))}


def test_what_lacks_hints_is_found():
  """The two above look at what they say."""
  tree = ast.parse(textwrap.dedent("""
      def whole(first: int, *unused, second: int = 0) -> None:
        def inner(bare): pass

      def partly(first, second: int, *rest, third=0, **more): pass

      def _private(bare): pass

      try:
        pass
      except ValueError:
        class Public(NamedTuple):
          fine: Optional[int]
          first: Any
          second: typing.Dict[str, typing.Any]

          def method(self, unused_argument) -> None: pass

      class _Private:
        field: Any

        def method(self, bare): pass
      """))
  assert list(missing_hints(tree)) == [
      'partly: first', 'partly: third', 'partly: rest', 'partly: more',
      'partly: result', 'Public.method: unused_argument']
  assert any_fields(tree) == {'Public.first', 'Public.second'}
