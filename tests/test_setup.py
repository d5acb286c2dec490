"""scripts/setup.sh and test.sh with stand-ins for Python.

What setup.sh finds, makes and keeps; where test.sh runs what.

A stand-in runs the script's own `-c` checks in this interpreter, which is told
to be of another version, and writes down every `-m` call instead of obeying.
"""
import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOLS = ('bash', 'cat', 'cksum', 'cp', 'dirname', 'env', 'ls', 'mkdir',
         'mktemp', 'nice', 'rm', 'sed')

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
        echo {counts} >"$DEEPLAB_TEST_SUMMARY"
        [[ ! -e {broken}."$4" ]] || exit "$(<{broken}."$4")" ;;
    esac ;;
  -W) [[ ! -e {broken}.tensorflow ]] ;;
  *) exec {python} "$@" ;;
esac
"""
COUNTS = {'passed': 3, 'failed': 1, 'skipped': 2, 'seconds': 60,
          'reasons': {'no moon': 2}, 'python': '3.5', 'tensorflow': '1.15'}


class House(object):
  """A copy of the repository's house on a machine without any Python."""

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
    (self.repository / 'tests').mkdir()
    shutil.copy(os.path.join(REPOSITORY, 'tests', 'summary.py'),
                str(self.repository / 'tests'))
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
    """Puts a stand-in at a path below the folder; returns the full path."""
    python = self.folder / path
    python.parent.mkdir(parents=True, exist_ok=True)
    prefix = str(python.parent.parent) if prefix is None else prefix
    python.write_text(STAND_IN.format(
        bash=shutil.which('bash'), python=shlex.quote(sys.executable),
        prefix=prefix,
        version=version.replace('.', ', '), log=self.log, broken=self.broken,
        packages=self.packages, counts=shlex.quote(json.dumps(COUNTS))))
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
    """Returns the `-m` calls since the last time, a string each."""
    lines = self.log.read_text().splitlines() if self.log.exists() else []
    self.log.write_text('')
    return lines

  def pythons_used(self):
    """Returns the interpreters environments were made from."""
    return [call.split(' ')[0] for call in self.calls() if ' venv ' in call]

  def is_marked_ready(self, name='tf1'):
    return (self.repository / '.venvs' / name / 'ready').exists()


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


class TestCommandLine(object):

  @pytest.mark.parametrize('arguments, shown', [
      ((), 'no argument'), (('tf3',), 'tf3'), (('tf1', 'tf2'), 'tf1 tf2'),
      (('1.15',), '1.15')])
  def test_refuses_what_it_does_not_know(self, house, arguments, shown):
    house.add_python('tools/python3.7')
    status, lines, errors = house.setup(*arguments)
    assert status == 2
    assert lines == []
    assert errors.splitlines()[:2] == [
        'ERROR setup.sh: {}: expected tf1, tf2, modern or all'.format(shown),
        'usage: ./scripts/setup.sh tf1|tf2|modern|all']
    assert house.calls() == []


class TestState(object):

  def states(self, house):
    status, lines, errors = house.setup('--state')
    assert (status, errors) == (0, '')
    assert house.calls() == []  # it makes nothing
    return [line.split('\t') for line in lines]

  def test_says_what_there_is_to_make_environments_from(self, house):
    python = house.add_python('tools/python3.11', '3.11.7')
    assert self.states(house) == [
        ['tf1', 'missing', '1.15.5', '-', '-', '-', '3.7 or 3.6'],
        ['tf2', 'missing', '2.2.3', '-', '-', '-', '3.7 or 3.6'],
        ['modern', 'missing', '2.21.0', '-', '3.11', python, '3.10 to 3.13']]
    assert not (house.repository / '.venvs').exists()

  def test_says_what_is_ready_and_what_is_not_any_more(self, house):
    python = house.add_python('tools/python3.7')

    def first():
      return self.states(house)[0]

    house.setup('tf1')
    house.calls()
    assert first() == ['tf1', 'ready', '1.15.5', '3.7.16', '3.7', python,
                       '3.7 or 3.6']
    house.change('requirements-dev.txt')
    assert first()[1] == 'untested'
    house.change('requirements-tf1.txt')
    assert first()[1] == 'outdated'
    house.setup('tf1')
    house.calls()
    assert first()[1] == 'ready'
    # An installation that was cut off.
    (house.repository / '.venvs' / 'tf1' / 'ready').unlink()
    assert first()[1] == 'outdated'

  def test_refuses_an_unsuitable_choice(self, house):
    house.environment['DEEPLAB_PYTHON'] = house.add_python('python', '3.11.7')
    status, _, errors = house.setup('--state')
    assert status == 2
    assert errors.startswith('ERROR setup.sh: DEEPLAB_PYTHON=')
    assert len(errors.splitlines()) == 1


class TestFindingPython(object):

  @pytest.mark.parametrize('version', [
      None, '2.7.18', '3.5.10', '3.8.18', '3.9.18', '3.14.0'])
  def test_without_a_suitable_python_lists_the_ways(self, house, version):
    if version:
      house.add_python('tools/python3', version)
    status, lines, errors = house.setup('all')
    assert status == 2
    assert lines == []
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

  def test_ways_are_of_the_environment_asked_for(self, house):
    house.add_python('tools/python3', '3.11.7')
    status, _, errors = house.setup('tf1')
    assert status == 2
    assert errors.startswith('ERROR setup.sh: found no Python 3.7 or 3.6 for '
                             'TensorFlow 1.15 and 2.2\n')
    assert 'pyenv install 3.7\n' in errors
    assert 'pyenv install 3.11\n' not in errors
    assert errors.endswith('\n  ./scripts/setup.sh modern\n')
    house.add_python('tools/python3', '3.7.16')
    status, _, errors = house.setup('modern')
    assert status == 2
    assert errors.startswith('ERROR setup.sh: found no Python 3.10 to 3.13 for '
                             'TensorFlow 2.21\n')
    assert 'pyenv install 3.11\n' in errors
    assert 'pyenv install 3.7\n' not in errors
    assert './scripts/setup.sh modern\n' in errors

  # From the source that goes first to the one that goes last.
  @pytest.mark.parametrize('source', range(7))
  def test_order_of_sources(self, house, source):
    def deeplab_python():
      path = house.add_python('named/bin/python3.6', '3.6.15')
      house.environment['DEEPLAB_PYTHON'] = path
      return path

    def uv():
      path = house.add_python('uv/bin/python3.7')
      house.add_tool('uv', 'echo {}'.format(path))
      return path

    def conda():
      path = house.add_python('conda/envs/old/bin/python')
      house.add_tool(
          'conda', 'echo "# conda environments:"; '
          'echo "base  *  {0}/conda"; echo "old  {0}/conda/envs/old"'.format(
              house.folder))
      return path

    sources = [
        deeplab_python,
        lambda: house.add_python('tools/python3.7'),
        lambda: house.add_python('tools/python3.6', '3.6.15'),
        lambda: house.add_python('tools/python3'),
        lambda: house.add_python('home/.pyenv/versions/3.7.16/bin/python'),
        uv,
        conda]
    expected = [add() for add in sources[source:]][0]
    status, _, errors = house.setup('tf1')
    assert status == 0, errors
    assert house.pythons_used() == [expected]

  def test_pyenv_root(self, house):
    house.environment['PYENV_ROOT'] = str(house.folder / 'elsewhere')
    path = house.add_python('elsewhere/versions/3.6.15/bin/python', '3.6.15')
    assert house.setup('tf1')[0] == 0
    assert house.pythons_used() == [path]

  def test_skips_a_name_on_the_path_that_does_not_run(self, house):
    # As pyenv's stand-ins do for versions that are not switched on.
    house.add_tool('python3.7', 'echo "command not found" >&2; exit 127')
    path = house.add_python('home/.pyenv/versions/3.7.16/bin/python')
    assert house.setup('tf1')[0] == 0
    assert house.pythons_used() == [path]

  def test_skips_one_on_the_path_that_hides_another(self, house):
    house.add_python('first/python3.7', '3.5.10')
    house.environment['PATH'] = '{}:{}'.format(
        house.folder / 'first', house.environment['PATH'])
    path = house.add_python('tools/python3.7')
    assert house.setup('tf1')[0] == 0
    assert house.pythons_used() == [path]

  # From the version that goes first to the one that goes last.
  @pytest.mark.parametrize('first', range(4))
  def test_order_of_modern_versions(self, house, first):
    paths = [house.add_python('tools/python' + version, version + '.1')
             for version in ('3.11', '3.12', '3.13', '3.10')[first:]]
    house.add_python('tools/python3', '3.12.0')
    assert house.setup('modern')[0] == 0
    assert house.pythons_used() == [paths[0]]

  @pytest.mark.parametrize('variable, name, version, expected', [
      ('DEEPLAB_PYTHON', 'tf1', '3.11.7', '3.7 or 3.6'),
      ('DEEPLAB_PYTHON', 'all', '3.11.7', '3.7 or 3.6'),
      ('DEEPLAB_MODERN_PYTHON', 'modern', '3.7.16', '3.10 to 3.13')])
  def test_an_unsuitable_choice_is_refused_not_replaced(
      self, house, variable, name, version, expected):
    house.add_python('tools/python3.7')
    house.add_python('tools/python3.11', '3.11.7')
    path = house.add_python('named/python', version)
    house.environment[variable] = path
    status, _, errors = house.setup(name)
    assert status == 2
    assert errors == (
        'ERROR setup.sh: {}={}: expected a Python {} with the modules venv and '
        'ensurepip\n'.format(variable, path, expected))
    assert house.calls() == []

  def test_an_activated_environment_leads_to_its_base(self, house):
    base = house.add_python('base/bin/python3.7')
    house.add_python('tools/python3', prefix=str(house.folder / 'base'))
    assert house.setup('tf1')[0] == 0
    assert house.pythons_used() == [base]


class TestMaking(object):

  def test_installs_then_says_what_is_ready(self, house):
    python = house.add_python('tools/python3.7')
    status, lines, _ = house.setup('tf1')
    assert status == 0
    assert lines == [READY_TF1]
    assert house.calls() == [python + ' venv .venvs/tf1'] + INSTALLED_TF1

  def test_modern_gets_a_pip_of_its_own(self, house):
    python = house.add_python('tools/python3.11', '3.11.7')
    assert house.setup('modern')[1] == ['ready: ' + MODERN]
    made = '.venvs/modern/bin/python'
    assert house.calls() == [
        python + ' venv .venvs/modern',
        made + ' pip install -qq pip==26.3',
        made + ' pip install -qq -r requirements-modern.txt -r '
        'requirements-dev.txt']

  def test_all_makes_all(self, house):
    old = house.add_python('tools/python3.7')
    new = house.add_python('tools/python3.11', '3.11.7')
    status, lines, errors = house.setup('all')
    assert status == 0
    assert lines == [READY_BOTH + ' ' + MODERN]
    assert 'left out' not in errors
    assert house.pythons_used() == [old, old, new]
    for name in ('tf1', 'tf2', 'modern'):
      assert house.is_marked_ready(name)

  @pytest.mark.parametrize('version, ready, left_out', [
      ('3.7.16', READY_BOTH, '.venvs/modern (found no Python 3.10 to 3.13)'),
      ('3.11.7', 'ready: ' + MODERN,
       '.venvs/tf1 (found no Python 3.7 or 3.6) '
       '.venvs/tf2 (found no Python 3.7 or 3.6)')])
  def test_all_leaves_out_what_it_has_no_python_for(
      self, house, version, ready, left_out):
    house.add_python('tools/python3', version)
    for _ in range(2):
      status, lines, errors = house.setup('all')
      assert status == 0
      assert lines == [ready]
      assert errors.splitlines()[-1] == 'left out: ' + left_out

  def test_a_second_run_installs_nothing(self, house):
    house.add_python('tools/python3.7')
    house.setup('tf1')
    house.calls()
    # It needs no Python outside of the environment either.
    os.remove(str(house.folder / 'tools' / 'python3.7'))
    assert house.setup('tf1') == (0, [READY_TF1], '')
    assert house.calls() == []

  def test_changed_requirements_rebuild(self, house):
    house.add_python('tools/python3.7')
    house.setup('tf1')
    house.calls()
    left_over = house.repository / '.venvs' / 'tf1' / 'left_over'
    left_over.write_text('')
    house.change('requirements-tf1.txt')
    assert house.setup('tf1')[0] == 0
    assert len(house.calls()) == 3
    assert not left_over.exists()

  def test_changed_requirements_of_the_tests_are_added(self, house):
    house.add_python('tools/python3.7')
    house.setup('tf1')
    house.calls()
    house.change('requirements-dev.txt')
    # A Python to rebuild from would not be found.
    os.remove(str(house.folder / 'tools' / 'python3.7'))
    assert house.setup('tf1') == (0, [READY_TF1], (
        'tf1: installing requirements-dev.txt into .venvs/tf1\n'))
    assert house.calls() == INSTALLED_TF1
    assert house.setup('tf1') == (0, [READY_TF1], '')
    assert house.calls() == []

  def test_an_update_that_failed_is_not_ready_and_goes_on(self, house):
    house.add_python('tools/python3.7')
    house.setup('tf1')
    before = (house.repository / 'requirements-dev.txt').read_text()
    house.change('requirements-dev.txt')
    broken = house.folder / 'broken.pip'
    broken.write_text('')
    status, lines, errors = house.setup('tf1')
    assert (status, lines) == (1, [])
    assert errors.splitlines()[-1].startswith(
        'ERROR setup.sh: tf1: pip could not install')
    broken.unlink()
    house.calls()
    # Half of it may be installed: what was there before is no longer either.
    (house.repository / 'requirements-dev.txt').write_text(before)
    assert house.setup('tf1')[1] == [READY_TF1]
    assert house.calls() == INSTALLED_TF1

  def test_changed_requirements_of_both_rebuild(self, house):
    house.add_python('tools/python3.7')
    house.setup('tf1')
    house.calls()
    house.change('requirements-dev.txt')
    house.change('requirements-tf1.txt')
    assert house.setup('tf1')[0] == 0
    assert len(house.calls()) == 3

  def test_requirements_of_the_other_environment_do_not_matter(self, house):
    house.add_python('tools/python3.7')
    house.setup('tf1')
    house.calls()
    (house.repository / 'requirements-tf2.txt').write_text('tensorflow==2.2.0')
    house.setup('tf1')
    assert house.calls() == []

  def test_another_python_asked_for_rebuilds(self, house):
    house.add_python('tools/python3.7')
    house.setup('tf1')
    house.calls()
    path = house.add_python('named/bin/python3.6', '3.6.15')
    house.environment['DEEPLAB_PYTHON'] = path
    assert house.setup('tf1')[1] == [
        'ready: .venvs/tf1 (TensorFlow 1.15.5, Python 3.6.15)']
    assert house.pythons_used() == [path]
    house.setup('tf1')
    assert house.pythons_used() == []

  def test_a_moved_repository_rebuilds(self, house):
    house.add_python('tools/python3.7')
    house.setup('tf1')
    house.calls()
    moved = house.folder / 'moved'
    house.repository.rename(moved)
    house.repository = moved
    house.setup('tf1')
    assert len(house.calls()) == 3

  def test_an_interrupted_installation_starts_over(self, house):
    house.add_python('tools/python3.7')
    house.setup('tf1')
    house.calls()
    os.remove(str(house.repository / '.venvs' / 'tf1' / 'ready'))
    assert house.setup('tf1')[1] == [READY_TF1]
    assert len(house.calls()) == 3

  @pytest.mark.parametrize('what, message', [
      ('pip', 'pip could not install requirements-tf1.txt and '
       'requirements-dev.txt; see above'),
      ('tensorflow', 'TensorFlow is installed but cannot be imported; see '
       'above')])
  def test_a_failed_installation_is_never_ready(self, house, what, message):
    house.add_python('tools/python3.7')
    broken = house.folder / 'broken.{}'.format(what)
    broken.write_text('')
    status, lines, errors = house.setup('tf1')
    assert status == 1
    assert lines == []
    assert errors.splitlines()[-1] == 'ERROR setup.sh: tf1: ' + message
    assert not house.is_marked_ready()
    broken.unlink()
    assert house.setup('tf1')[1] == [READY_TF1]


def counts_of_runs(number, seconds=''):
  """Returns the closing words for so many runs with COUNTS."""
  return ('{} passed, {} failed, {} skipped' + seconds).format(
      3 * number, number, 2 * number, 60 * number)


HOME = '({} or not (tf1 or tf2 or modern))'
QUICK = 'not (slow or extended)'
SLOW = 'slow and not extended'


class TestRunningTests(object):
  """The marks that test.sh runs, and where."""

  def runs(self, house):
    """Returns the `pytest` calls: sorted, as they take turns as they like."""
    return sorted(call for call in house.calls() if ' pytest ' in call)

  @pytest.mark.parametrize('arguments, slow', [
      ([], SLOW), (['--all'], '(slow or extended)')])
  @pytest.mark.parametrize('versions, environments', [
      (('3.7.16', '3.11.7'), ['tf1', 'tf2', 'modern']),
      (('3.7.16',), ['tf1', 'tf2']), (('3.11.7',), ['modern'])])
  def test_every_environment_that_there_is_a_python_for(
      self, house, versions, environments, arguments, slow):
    for version in versions:
      house.add_python('tools/python' + version.rpartition('.')[0], version)
    status, lines, errors = house.run(
        'test.sh', *arguments + ['-x', 'tests/test_a.py'])
    assert status == 0, errors
    runs = self.runs(house)
    names = 2 * environments
    assert runs == sorted(
        '.venvs/{}/bin/python pytest -m {} and {} -p tests.summary '
        '--dist=loadfile -n{} -x tests/test_a.py'.format(
            name, HOME.format(name) if name == environments[0] else name, marks,
            2 if marks == slow and name != environments[0] else 1)
        for name in environments for marks in (slow, QUICK))
    for run in runs:
      assert any(run.split(' ')[0] in line for line in lines), run
    notice = 'no Python 3.7 or 3.6: tests run in .venvs/modern, but for those'
    assert any(notice in line for line in lines) == (versions == ('3.11.7',))
    assert lines[-len(set(names)) - 2:] == [
        '{}: Python 3.5, TensorFlow 1.15: {}'.format(
            name, counts_of_runs(names.count(name), ', {} s'))
        for name in sorted(set(names))] + [
            'skipped: no moon: {}'.format(2 * len(names)),
            counts_of_runs(len(names))]

  def test_quick_runs_at_home_and_leaves_out_what_is_slow(self, house):
    house.add_python('tools/python3.7')
    house.add_python('tools/python3.11', '3.11.7')
    status, lines, errors = house.run('test.sh', '--quick', '-x')
    assert status == 0, errors
    assert self.runs(house) == [
        '.venvs/tf1/bin/python pytest -m {} and {} -p tests.summary '
        '--dist=loadfile -n2 -x'.format(HOME.format('tf1'), QUICK)]
    assert lines[-1] == counts_of_runs(1)

  @pytest.mark.parametrize('arguments', [[], ['--quick'], ['--all']])
  @pytest.mark.parametrize('versions, expected', [
      (('3.7.16', '3.11.7'), ['tf1 ruff check .', 'modern mypy']),
      (('3.7.16',), ['tf1 ruff check .']),
      (('3.11.7',), ['modern ruff check .', 'modern mypy'])])
  def test_style_and_types_come_first(
      self, house, arguments, versions, expected):
    for version in versions:
      house.add_python('tools/python' + version.rpartition('.')[0], version)
    for package in ('ruff', 'mypy'):
      (house.packages / (package + '.py')).write_text('')
    status, lines, errors = house.run('test.sh', *arguments)
    assert status == 0, errors
    calls = [call for call in house.calls()
             if ' venv ' not in call and ' pip ' not in call]
    assert calls[:len(expected)] == [
        '.venvs/{}/bin/python {}'.format(*call.split(' ', 1))
        for call in expected]
    assert all(' pytest ' in call for call in calls[len(expected):])
    assert [line for line in lines if line in ('== ruff check', '== mypy')] == [
        '== ruff check', '== mypy'][:len(expected)]

  @pytest.mark.parametrize('tool', ['ruff', 'mypy'])
  def test_no_test_runs_where_style_or_types_are_wrong(self, house, tool):
    house.add_python('tools/python3.7')
    house.add_python('tools/python3.11', '3.11.7')
    (house.packages / (tool + '.py')).write_text('')
    (house.folder / ('broken.' + tool)).write_text('')
    assert house.run('test.sh')[0] == 1
    assert self.runs(house) == []

  # Exit statuses of pytest by environment and marks; 5: no test selected.
  @pytest.mark.parametrize('statuses, expected', [
      ({('tf2', SLOW): 1}, 1), ({('modern', QUICK): 2}, 2),
      ({('tf2', SLOW): 5}, 0), ({('tf2', SLOW): 5, ('tf2', QUICK): 5}, 0),
      ({('tf2', SLOW): 5, ('modern', SLOW): 1}, 1),
      ({(name, marks): 5 for name in ('tf1', 'tf2', 'modern')
        for marks in (SLOW, QUICK)}, 5),
      ({('tf1', SLOW): 5}, 0), ({('tf1', QUICK): 5}, 0),
      ({('tf1', SLOW): 1}, 1), ({('tf1', QUICK): 1}, 1)])
  def test_exit_status(self, house, statuses, expected):
    house.add_python('tools/python3.7')
    house.add_python('tools/python3.11', '3.11.7')
    for (name, marks), status in statuses.items():
      (house.folder / 'broken.{} and {}'.format(
          HOME.format(name) if name == 'tf1' else name, marks)).write_text(
              str(status))
    assert house.run('test.sh')[0] == expected
    # A failure in one does not keep the others from running.
    assert len(self.runs(house)) == 6

  def test_without_any_python_it_stops(self, house):
    status, lines, errors = house.run('test.sh')
    assert (status, lines) == (2, [])
    assert errors.startswith('ERROR setup.sh: found no Python')
