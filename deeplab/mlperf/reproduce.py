"""Reproduces the published numbers: runs all steps, writes RESULTS.md.

A step is done if its facts are those in steps.json: command, environment, code,
and checksums of its inputs and output. Needs no TensorFlow itself.
"""
import datetime
import functools
import glob
import os
import shlex
import shutil
import subprocess
import sys

from deeplab.config import options as options_lib
from deeplab.data import download
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.evaluation import model_card
from deeplab.evaluation import published
from deeplab.evaluation import report as report_lib
from deeplab.mlperf import steps as steps_lib
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.system import environment
from deeplab.system import hardware

RESULTS = 'RESULTS.md'
TOLERANCE = 0.002
# Duration of a full run on 2 processors, from BENCHMARKS.md.
_HOURS = {options_lib.TENSORFLOW_1_2: '6 hours', options_lib.MODERN: '1 hour'}
_GIGABYTES = 4.3
# Columns of the tables: of both, of the first, of the second.
_FILE = ('model', 'form', 'file')
_WITHIN = 'within {}'.format(TOLERANCE)
_SCORE = ('convention', 'published', 'ours', 'difference', _WITHIN)
_CARD = ('when', 'commit', 'path', 'bytes', 'SHA-256', 'precision', 'input',
         'score', 'scored by', 'images', 'ms an image', 'geometry')

# --- Running ---------------------------------------------------------------


def run(options: options_lib.ReproduceOptions) -> str:
  """Runs all steps that are not done, and writes RESULTS.md.

  Returns:
    A line with the number of scores equal to the published ones.

  Raises:
    InputError: an input is missing or a step failed.
  """
  steps = steps_lib.make(options)
  folder = os.path.abspath(options.output_dir)
  files.check_folder(option('output_dir', options.output_dir), folder)
  environments = steps_lib.ENVIRONMENTS[options.environment]
  versions = {role: _versions(name) for role, name in environments.items()}
  machine = hardware.describe()
  commit = machine.pop('commit')
  del machine['date']
  machine.update((name, versions[role]) for role, name in environments.items())
  journal_path = os.path.join(folder, 'steps.json')
  journal = _read_journal(journal_path, options)
  print('{} steps, in {}\n{}'.format(
      len(steps), folder, _sample_notice(options) or
      'a whole run takes about {} on 2 processors, and {} GB of disk, of which '
      '{:.1f} GB are free'.format(
          _HOURS[options.environment], _GIGABYTES,
          shutil.disk_usage(folder).free / 1e9)), flush=True)
  for number, step in enumerate(steps, 1):
    title = '{} of {}: {}'.format(number, len(steps), step.name)
    noted = journal.get(step.name)
    facts = _facts(step, versions, folder)
    if noted and noted['facts'] == facts:
      print('== {} (done before)'.format(title), flush=True)
      continue
    if noted:
      before = noted['facts']
      title += ' (again, as these have changed: {})'.format(', '.join(
          name for name in {**before, **facts}
          if before.get(name) != facts.get(name)))
    _do(step, title, environments.get(step.role), folder)
    journal[step.name] = {
        'facts': _facts(step, versions, folder), 'commit': commit,
        'when': datetime.datetime.now().strftime('%Y-%m-%d %H:%M')}
    files.write_json(journal_path, journal)
  rows = [_row(step, journal[step.name], folder)
          for step in steps if step.figure]
  path = os.path.join(options.output_dir, RESULTS)
  files.write_text(path, _page(options, rows, machine))
  if options.sample:
    return 'a sample of {} images, no verdict: {}'.format(
        steps_lib.count(options.sample, 'validation'), path)
  return '{} of {} scores are within {} of the published ones: {}'.format(
      sum(row[_WITHIN] == 'yes' for row in rows), len(rows), TOLERANCE, path)


def _read_journal(path, options):
  """Returns the content of steps.json: facts, commit and time by step."""
  if os.path.exists(path):
    journal = checked_read.read_json(path, path, 'the facts of the steps')
    if isinstance(journal, dict):
      # Earlier releases wrote other entries.
      return {name: noted for name, noted in journal.items()
              if isinstance(noted, dict) and {
                  'facts', 'commit', 'when'} <= set(noted)}
  elif not os.listdir(os.path.dirname(path)):
    return {}
  raise InputError('{}: holds something else; give a new folder',
                   option('output_dir', options.output_dir))


def _versions(name):
  """Returns the versions of an environment's packages."""
  program = ('import sys; sys.path.insert(0, sys.argv[1]); '
             'from deeplab.system import environment; '
             'print(environment.versions())')
  python = environment.python_of(name)
  try:
    return subprocess.check_output(
        [python, '-c', program, environment.REPOSITORY],
        universal_newlines=True).strip()
  except (OSError, subprocess.CalledProcessError):
    raise InputError('{}: does not run; ./scripts/setup.sh {} makes it',
                     python, name)


def _facts(step, versions, folder):
  """Returns the facts of a step: a dict for JSON.

  It has checksums of the output and of every file that the command names.
  """
  facts = {
      'command': step.command, 'environment': versions.get(step.role, ''),
      'code': [_checksum(os.path.join(environment.REPOSITORY, name))
               for name in ('deeplab', step.command[0])]}
  for path in [word.partition('=')[2] for word in step.command] + [step.output]:
    checksum = path and _checksum(os.path.join(folder, path))
    if checksum:
      facts[path] = checksum
  return facts


def _checksum(path):
  """Returns the SHA-256 of a file, folder or checkpoint; '': missing."""
  found = {os.path.relpath(file, path): _checksum_of_file(
      file, os.stat(file).st_mtime_ns) for file in _files_of(path)}
  return found.get('.') or (files.digest(found) if found else '')


@functools.lru_cache(maxsize=None)
def _checksum_of_file(path, unused_time):
  """Returns a file's SHA-256, cached while it does not change."""
  return files.sha256_of(path)


def _files_of(path):
  """Returns the files of a folder or checkpoint prefix, or the path."""
  if os.path.isdir(path):
    return [os.path.join(folder, name) for folder, _, names in os.walk(path)
            for name in names if not name.endswith('.pyc')]
  return [path] if os.path.isfile(path) else glob.glob(
      glob.escape(path) + '.*')


def _do(step, title, name, folder):
  """Runs a step's command in an environment; replaces its output's file."""
  script, *arguments = step.command
  command = [os.path.join(environment.REPOSITORY, script)] + arguments
  if name:
    command.insert(0, environment.python_of(name))
  print('\n== {}\n{}\n'.format(title, ' \\\n    '.join(
      map(shlex.quote, command))), flush=True)
  output = os.path.join(folder, step.output)
  if os.path.isfile(output):
    os.remove(output)
  status = _execute(step, command, folder)
  if status:
    raise InputError(
        'step {} ended with status {}; its output is above; the same command '
        'continues with this step', title, status)
  if not _files_of(output):
    raise InputError('step {} left no {}', title, step.output)


def _execute(step, command, folder):
  """Runs a command; returns its exit status."""
  variables = dict(os.environ)
  if step.role == steps_lib.SHELL:
    variables['PYTHON'] = sys.executable
  process = subprocess.Popen(command, cwd=folder, env=variables)
  try:
    return process.wait()
  except BaseException:
    process.terminate()
    process.wait()
    raise


# --- Results ---------------------------------------------------------------


def _sample_notice(options):
  """Returns the notice for results on a sample; '': the whole data set."""
  if not options.sample:
    return ''
  return ('SAMPLE of {} images: the scores say nothing of the published ones, '
          'which are of {}; they only show that every step runs'.format(
              steps_lib.count(options.sample, 'validation'), published.IMAGES))


def _row(step, noted, folder):
  """Returns the cells of an evaluation as a dict by column."""
  report = report_lib.read(os.path.join(folder, step.output))
  # The first one, if a file has figures of several conventions.
  field, values = next(iter(published.FIGURES[step.figure].items()))
  ours = getattr(report.scores, field)
  difference = min((ours - value for value in values), key=abs)
  card = model_card.rows(report)
  card['scored by'] = card.pop('convention')
  form = os.path.splitext(step.figure)[1]
  row = dict.fromkeys(_CARD, '-')  # A report may lack facts about the model.
  row.update(
      card, **{_WITHIN: 'yes' if abs(difference) <= TOLERANCE else 'NO'},
      model=steps_lib.MODELS[os.path.dirname(step.figure)],
      form=steps_lib.FORMS[form], file=step.whose,
      path=step.figure.replace(steps_lib.CHECKPOINT, ''),
      convention={field: name for field, name, _ in report_lib.MEANS}[field],
      published=published.text_of(values), ours='{:.4f}'.format(ours),
      difference='{:+.4f}'.format(difference),
      when=noted['when'], commit=noted['commit'])
  return row


def _page(options, rows, facts):
  """Returns the text of RESULTS.md."""
  notice = _sample_notice(options)
  lines = ['# Results', ''] + (['**{}.**'.format(notice), ''] if notice else [])
  lines += ['Made by `./scripts/reproduce.sh`; not to be edited.', '']
  if notice:
    rows = [dict(row, **{_WITHIN: 'sample'}) for row in rows]
  lines += _table(_FILE + _SCORE, rows)
  lines += [
      '', 'Published are scores of {} validation images, each in its own '
      'convention. The only one of the float TFLite file was measured on a '
      'device.'.format(published.IMAGES), '', '## Environment', '']
  lines += ['- {}: {}'.format(*fact) for fact in facts.items()]
  lines += ['', '## Models', ''] + _table(_FILE + _CARD, rows)
  lines += ['', '## Published files', '']
  lines += _table(('file', 'SHA-1'), [
      {'file': name, 'SHA-1': state}
      for name, state in sorted(download.state_of_published(os.path.join(
          os.path.abspath(options.output_dir),
          steps_lib.published_folder(options))).items())])
  return '\n'.join(lines) + '\n'


def _table(columns, rows):
  cells = [columns, ['---'] * len(columns)]
  cells += [[str(row[column]) for column in columns] for row in rows]
  return ['| {} |'.format(' | '.join(row)) for row in cells]
