"""Tests scripts/setup.sh and test.sh with stand-ins for Python.

A stand-in runs the scripts' `-c` checks in this interpreter, but reports
another version. It records `-m` calls and does nothing else.
"""
import os
import shlex
import shutil
import subprocess
import sys

import pytest

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOLS = ('bash', 'cat', 'cksum', 'cp', 'dirname', 'env', 'ls', 'mkdir',
         'mktemp', 'nice', 'rm', 'sed', 'tail', 'tee')

STAND_IN = """#!{bash}
case "$1" in
  -c)
    exec {python} -I -S -c '
import sys
sys.version_info = ({version})
sys.base_prefix = sys.argv[1]
sys.executable = sys.argv[2]
sys.path.append(sys.argv[4])
exec(sys.argv[3])' {prefix} "$0" "$2" {packages} ;;
  -m)
    echo "$0 ${{*:2}}" >>{log}
    case "$2" in
      venv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
      pip | ruff | mypy) [[ ! -e {broken}."$2" ]] ;;
      pytest)
        printf 'a test\\n3 passed\\n'
        [[ ! -e {broken}."$4" ]] || exit "$(<{broken}."$4")" ;;
    esac ;;
  -W) [[ ! -e {broken}.tensorflow ]] ;;
esac
"""


class House:
  """A copy of the repository's scripts on a machine without Python."""

  def __init__(self, folder):
    self.folder = folder
    self.repository = folder / 'repository'
    self.log = folder / 'calls'
    self.broken = folder / 'broken'
    self.packages = folder / 'packages'
    self.packages.mkdir()
    (self.repository / 'scripts').mkdir(parents=True)
    for script in ('setup.sh', 'test.sh'):
      shutil.copy(os.path.join(REPOSITORY, 'scripts', script),
                  str(self.repository / 'scripts'))
    for name, version in (
        ('tf1', '1.15.5'), ('tf2', '2.2.3'), ('modern', '2.21.0')):
      (self.repository / 'requirements-{}.txt'.format(name)).write_text(
          'tensorflow=={}\nnumpy==1.18.5\n'.format(version))
    (self.repository / 'requirements-dev.txt').write_text('pytest==7.0.1\n')
    self.tools = folder / 'tools'
    self.tools.mkdir()
    for tool in TOOLS:
      (self.tools / tool).symlink_to(shutil.which(tool))
    self.environment = {'PATH': str(self.tools), 'HOME': str(folder / 'home')}

  def add_python(self, path, version='3.7.16', prefix=None):
    """Adds a stand-in at a path below the folder; returns the full path."""
    python = self.folder / path
    python.parent.mkdir(parents=True, exist_ok=True)
    prefix = str(python.parent.parent) if prefix is None else prefix
    python.write_text(STAND_IN.format(
        bash=shutil.which('bash'), python=shlex.quote(sys.executable),
        prefix=prefix,
        version=version.replace('.', ', '), log=self.log, broken=self.broken,
        packages=self.packages))
    python.chmod(0o755)
    return str(python)

  def add_tool(self, name, text):
    tool = self.tools / name
    tool.write_text('#!{}\n{}\n'.format(shutil.which('bash'), text))
    tool.chmod(0o755)

  def change(self, requirements):
    with open(str(self.repository / requirements), 'a') as output:
      output.write('tqdm==4.64.1\n')

  def setup(self, *arguments):
    """Runs setup.sh; returns (status, lines on stdout, text on stderr)."""
    return self.run('setup.sh', *arguments)

  def run(self, script, *arguments):
    process = subprocess.run(
        [str(self.repository / 'scripts' / script)] + list(arguments),
        env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True)
    return process.returncode, process.stdout.splitlines(), process.stderr

  def calls(self):
    """Returns the `-m` calls since the last call, one string each."""
    lines = self.log.read_text().splitlines() if self.log.exists() else []
    self.log.write_text('')
    return lines

  def state(self):
    """Returns the fields that --state prints for each environment."""
    status, lines, errors = self.setup('--state')
    assert (status, errors) == (0, '')
    assert self.calls() == []  # --state creates nothing
    return [line.split('\t') for line in lines]

  def make_tf1(self):
    """Creates environment tf1 from a new Python on PATH."""
    python = self.add_python('tools/python3.7')
    assert self.setup('tf1')[1] == [READY_TF1]
    self.calls()
    return python


@pytest.fixture()
def house(tmp_path):
  return House(tmp_path)


READY_TF1 = 'ready: .venvs/tf1 (TensorFlow 1.15.5, Python 3.7.16)'
READY_BOTH = READY_TF1 + ' .venvs/tf2 (TensorFlow 2.2.3, Python 3.7.16)'
INSTALLED_TF1 = [
    '.venvs/tf1/bin/python pip install -qq ' + what for what in (
        'pip==21.3.1 wheel==0.37.1',
        '-r requirements-tf1.txt -r requirements-dev.txt')]
MODERN = '.venvs/modern (TensorFlow 2.21.0, Python 3.11.7)'


# --- Finding Python --------------------------------------------------------


def test_state_names_the_python_of_each_environment(house):
  python = house.add_python('tools/python3.11', '3.11.7')
  assert house.state() == [
      ['tf1', 'missing', '1.15.5', '-', '-', '-', '3.7 or 3.6'],
      ['tf2', 'missing', '2.2.3', '-', '-', '-', '3.7 or 3.6'],
      ['modern', 'missing', '2.21.0', '-', '3.11', python, '3.10 to 3.13']]
  assert not (house.repository / '.venvs').exists()


@pytest.mark.slow
def test_order_of_preferred_pythons(house):
  """Each Python is preferred to those added before it."""
  def preferred(row=0):
    return house.state()[row][5]

  conda = house.add_python('conda/envs/old/bin/python')
  house.add_tool(
      'conda', 'echo "# conda environments:"; '
      'echo "base  *  {0}/conda"; echo "old  {0}/conda/envs/old"'.format(
          house.folder))
  assert preferred() == conda
  uv = house.add_python('uv/bin/python3.7')
  house.add_tool('uv', 'echo {}'.format(uv))
  assert preferred() == uv
  pyenv = house.add_python('home/.pyenv/versions/3.7.16/bin/python')
  # pyenv puts such names on PATH for versions that are not active.
  house.add_tool('python3.7', 'echo "command not found" >&2; exit 127')
  assert preferred() == pyenv
  house.environment['PYENV_ROOT'] = str(house.folder / 'elsewhere')
  path = house.add_python('elsewhere/versions/3.6.15/bin/python', '3.6.15')
  assert preferred() == path
  # An activated environment leads to its base Python.
  base = house.add_python('base/bin/python3.7')
  house.add_python('tools/python3', prefix=str(house.folder / 'base'))
  assert preferred() == base
  for name, version in (('python3.6', '3.6.15'), ('python3.7', '3.7.16')):
    path = house.add_python('tools/' + name, version)
    assert preferred() == path
  # An unsuitable Python hides no suitable one of the same name.
  house.add_python('first/python3.7', '3.5.10')
  house.environment['PATH'] = '{}:{}'.format(
      house.folder / 'first', house.environment['PATH'])
  assert preferred() == path
  named = house.add_python('named/bin/python3.6', '3.6.15')
  house.environment['DEEPLAB_PYTHON'] = named
  assert preferred() == named
  for version in ('3.10', '3.13', '3.12', '3.11'):
    path = house.add_python('tools/python' + version, version + '.1')
    assert preferred(row=2) == path


@pytest.mark.parametrize('version', [None, '3.5.10', '3.9.18', '3.14.0'])
def test_without_a_suitable_python_ways_to_get_one_are_listed(house, version):
  if version:
    house.add_python('tools/python3', version)
  status, lines, errors = house.setup('all')
  assert (status, lines) == (2, [])
  assert errors.startswith(
      'ERROR setup.sh: found no Python 3.7 or 3.6 for TensorFlow 1.15 and '
      '2.2, no Python 3.10 to 3.13 for TensorFlow 2.21\n')
  assert sorted(line for line in errors.splitlines() if line[0] == ' ') == [
      '  DEEPLAB_MODERN_PYTHON=/path/to/python3.11 ./scripts/setup.sh all',
      '  DEEPLAB_PYTHON=/path/to/python3.7 ./scripts/setup.sh all',
      '  apt-get install python3-venv    (if python3 is 3.10 to 3.13)',
      '  conda create -n python311 python=3.11',
      '  conda create -n python37 python=3.7',
      '  pyenv install 3.11', '  pyenv install 3.7',
      '  uv python install 3.11', '  uv python install 3.7']
  assert not (house.repository / '.venvs').exists()


@pytest.mark.parametrize('name, there, missing, way, other_way', [
    ('tf1', '3.11.7', '3.7 or 3.6 for TensorFlow 1.15 and 2.2', '3.7', '3.11'),
    ('modern', '3.7.16', '3.10 to 3.13 for TensorFlow 2.21', '3.11', '3.7')])
def test_only_ways_for_the_requested_environment_are_listed(
    house, name, there, missing, way, other_way):
  house.add_python('tools/python3', there)
  status, _, errors = house.setup(name)
  assert status == 2
  assert errors.startswith(
      'ERROR setup.sh: found no Python {}\n'.format(missing))
  assert 'pyenv install {}\n'.format(way) in errors
  assert 'pyenv install {}\n'.format(other_way) not in errors
  assert errors.endswith('./scripts/setup.sh modern\n')


@pytest.mark.parametrize('variable, argument, version, expected', [
    ('DEEPLAB_PYTHON', 'tf1', '3.11.7', '3.7 or 3.6'),
    ('DEEPLAB_PYTHON', '--state', '3.11.7', '3.7 or 3.6'),
    ('DEEPLAB_MODERN_PYTHON', 'modern', '3.7.16', '3.10 to 3.13')])
def test_a_wrong_python_is_refused(
    house, variable, argument, version, expected):
  house.add_python('tools/python3.7')
  house.add_python('tools/python3.11', '3.11.7')
  path = house.add_python('named/python', version)
  house.environment[variable] = path
  status, _, errors = house.setup(argument)
  assert status == 2
  assert errors == (
      'ERROR setup.sh: {}={}: expected a Python {} with the modules venv and '
      'ensurepip\n'.format(variable, path, expected))
  assert house.calls() == []


@pytest.mark.parametrize('arguments, shown', [
    ((), 'no argument'), (('tf3',), 'tf3'), (('tf1', 'tf2'), 'tf1 tf2')])
def test_unknown_arguments_are_refused(house, arguments, shown):
  status, lines, errors = house.setup(*arguments)
  assert (status, lines) == (2, [])
  assert errors.splitlines()[:2] == [
      'ERROR setup.sh: {}: expected tf1, tf2, modern or all'.format(shown),
      'usage: ./scripts/setup.sh tf1|tf2|modern|all']


# --- Creating environments -------------------------------------------------


def test_all_creates_each_environment_once(house):
  old = house.add_python('tools/python3.7')
  new = house.add_python('tools/python3.11', '3.11.7')
  status, lines, errors = house.setup('all')
  assert (status, lines) == (0, [READY_BOTH + ' ' + MODERN])
  assert 'left out' not in errors
  calls = house.calls()
  assert calls[:3] == [old + ' venv .venvs/tf1'] + INSTALLED_TF1
  made = '.venvs/modern/bin/python'
  assert calls[6:] == [
      new + ' venv .venvs/modern', made + ' pip install -qq pip==26.3',
      made + ' pip install -qq -r requirements-modern.txt -r '
      'requirements-dev.txt']
  # The second run needs no other Python.
  os.remove(old)
  assert house.setup('all') == (0, lines, '')
  assert house.calls() == []


@pytest.mark.parametrize('version, ready, left_out', [
    ('3.7.16', READY_BOTH, '.venvs/modern (found no Python 3.10 to 3.13)'),
    ('3.11.7', 'ready: ' + MODERN,
     '.venvs/tf1 (found no Python 3.7 or 3.6) '
     '.venvs/tf2 (found no Python 3.7 or 3.6)')])
def test_all_skips_environments_without_a_python(
    house, version, ready, left_out):
  house.add_python('tools/python3', version)
  for _ in range(2):
    status, lines, errors = house.setup('all')
    assert (status, lines) == (0, [ready])
    assert errors.splitlines()[-1] == 'left out: ' + left_out


def change_requirements(house):
  house.change('requirements-tf1.txt')
  house.change('requirements-dev.txt')


def interrupt(house):
  (house.repository / '.venvs' / 'tf1' / 'ready').unlink()


def move(house):
  moved = house.folder / 'moved'
  house.repository.rename(moved)
  house.repository = moved


def name_another_python(house):
  house.environment['DEEPLAB_PYTHON'] = house.add_python(
      'named/bin/python3.6', '3.6.15')


@pytest.mark.parametrize('change', [
    change_requirements, interrupt, move, name_another_python])
def test_an_outdated_environment_is_created_again(house, change):
  house.make_tf1()
  change(house)
  assert house.state()[0][1] == 'outdated'
  left_over = house.repository / '.venvs' / 'tf1' / 'left_over'
  left_over.write_text('')
  assert house.setup('tf1')[0] == 0
  assert len(house.calls()) == 3
  assert not left_over.exists()
  assert house.state()[0][1] == 'ready'


def test_changed_test_requirements_are_installed(house):
  # This needs no Python to create the environment again.
  os.remove(house.make_tf1())
  house.change('requirements-tf2.txt')
  assert house.state()[0][1] == 'ready'
  before = (house.repository / 'requirements-dev.txt').read_text()
  house.change('requirements-dev.txt')
  assert house.state()[0][1] == 'untested'
  broken = house.folder / 'broken.pip'
  broken.write_text('')
  status, lines, errors = house.setup('tf1')
  assert (status, lines) == (1, [])
  assert errors.splitlines()[-1].startswith(
      'ERROR setup.sh: tf1: pip could not install')
  broken.unlink()
  house.calls()
  # Half of the change may be installed, so reverting it is a change too.
  (house.repository / 'requirements-dev.txt').write_text(before)
  assert house.setup('tf1') == (0, [READY_TF1], (
      'tf1: installing requirements-dev.txt into .venvs/tf1\n'))
  assert house.calls() == INSTALLED_TF1
  assert house.setup('tf1') == (0, [READY_TF1], '')
  assert house.calls() == []


@pytest.mark.parametrize('what, message', [
    ('pip', 'pip could not install requirements-tf1.txt and '
     'requirements-dev.txt; see above'),
    ('tensorflow', 'TensorFlow is installed but cannot be imported; see '
     'above')])
def test_a_failed_installation_is_not_marked_ready(house, what, message):
  house.add_python('tools/python3.7')
  broken = house.folder / 'broken.{}'.format(what)
  broken.write_text('')
  status, lines, errors = house.setup('tf1')
  assert (status, lines) == (1, [])
  assert errors.splitlines()[-1] == 'ERROR setup.sh: tf1: ' + message
  house.calls()
  assert house.state()[0][1] == 'outdated'
  broken.unlink()
  assert house.setup('tf1')[1] == [READY_TF1]


# --- test.sh ---------------------------------------------------------------


HOME = '({} or not (tf1 or tf2 or modern))'


def calls_of_tests(house):
  """Returns the calls that do not belong to setup.sh, and those of pytest."""
  calls = [call for call in house.calls()
           if ' venv ' not in call and ' pip ' not in call]
  return calls, [call for call in calls if ' pytest ' in call]


def marks_in(name, home):
  return HOME.format(name) if name == home else name


@pytest.mark.parametrize('versions, environments, checks, extent, marks', [
    (('3.7.16', '3.11.7'), ('tf1', 'tf2', 'modern'),
     ['tf1 ruff check .', 'modern mypy'], [], ' and not extended'),
    (('3.7.16', '3.11.7'), ('tf1',), ['tf1 ruff check .', 'modern mypy'],
     ['--quick'], ' and not (slow or extended)'),
    (('3.7.16',), ('tf1', 'tf2'), ['tf1 ruff check .'], ['--all'], ''),
    (('3.11.7',), ('modern',), ['modern ruff check .', 'modern mypy'], [],
     ' and not extended')])
def test_checks_and_tests_run_in_each_environment(
    house, versions, environments, checks, extent, marks):
  for version in versions:
    house.add_python('tools/python' + version.rpartition('.')[0], version)
  for package in ('ruff', 'mypy'):
    (house.packages / (package + '.py')).write_text('')
  status, lines, errors = house.run(
      'test.sh', *extent + ['-x', 'tests/test_a.py'])
  assert status == 0, errors
  calls, _ = calls_of_tests(house)
  assert calls == [
      '.venvs/{}/bin/python {}'.format(*check.split(' ', 1))
      for check in checks] + [
          '.venvs/{}/bin/python pytest -m {} -n3 --dist=loadfile -x '
          'tests/test_a.py'.format(
              name, marks_in(name, environments[0]) + marks)
          for name in environments]
  notice = 'no Python 3.7 or 3.6: tests run in .venvs/modern, except those'
  assert any(notice in line for line in lines) == (versions == ('3.11.7',))
  assert lines[-len(environments):] == [
      name + ': 3 passed' for name in environments]


@pytest.mark.parametrize('tool', ['ruff', 'mypy'])
def test_no_test_runs_if_the_linter_or_type_checker_fails(house, tool):
  house.add_python('tools/python3.7')
  house.add_python('tools/python3.11', '3.11.7')
  (house.packages / (tool + '.py')).write_text('')
  (house.folder / ('broken.' + tool)).write_text('')
  assert house.run('test.sh')[0] == 1
  assert calls_of_tests(house)[1] == []


# Exit statuses of pytest; 5: no tests ran.
@pytest.mark.parametrize('statuses, expected', [
    ({'tf1': 1, 'tf2': 5}, 1), ({'modern': 2}, 2), ({'tf1': 5}, 0),
    ({'tf1': 5, 'tf2': 5, 'modern': 5}, 5)])
def test_exit_status(house, statuses, expected):
  house.add_python('tools/python3.7')
  house.add_python('tools/python3.11', '3.11.7')
  for name, status in statuses.items():
    (house.folder / 'broken.{} and not extended'.format(
        marks_in(name, 'tf1'))).write_text(str(status))
  assert house.run('test.sh')[0] == expected
  # The other environments run even if one fails.
  assert len(calls_of_tests(house)[1]) == 3


def test_without_any_python_no_test_runs(house):
  status, lines, errors = house.run('test.sh')
  assert (status, lines) == (2, [])
  assert errors.startswith('ERROR setup.sh: found no Python')
