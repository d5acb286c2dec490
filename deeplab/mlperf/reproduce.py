"""Reproduces the published numbers: runs a table of steps, writes RESULTS.md.

Each step is a command of the suite. It is skipped if its command, environment,
code, inputs and output match steps.json. Needs no TensorFlow itself.
"""
import datetime
import functools
import glob
import os
import shlex
import shutil
import subprocess
import sys
from typing import Any, Dict, List, NamedTuple, Tuple

from deeplab import constants
from deeplab.config import options as options_lib
from deeplab.data import download
from deeplab.data import pairs as pairs_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.evaluation import published
from deeplab.evaluation import report as report_lib
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.system import environment
from deeplab.system import hardware as machine_lib

RESULTS = 'RESULTS.md'
TOLERANCE = 0.002
_VAL_IMAGES = download.ADE20K_PAIRS['validation']
# Duration of a full run on 2 processors, from BENCHMARKS.md.
_HOURS = {options_lib.TENSORFLOW_1_2: '6 hours', options_lib.MODERN: '1 hour'}
_GIGABYTES = 4.3

# --- What is published -----------------------------------------------------

_FLOAT, _QAT = 'Float', 'Quantization-aware training'
_PTQ = 'Post-training quantization'
CHECKPOINT, GRAPH, LITE = 'checkpoint', 'frozen graph', 'TFLite'
_FLOAT_CHECKPOINT = 'float/model.ckpt-200000'
_QAT_CHECKPOINT = 'quantize_aware_training/model.ckpt-100000'


class Figure(NamedTuple):
  """A published score on the 2000 validation images."""
  model: str
  form: str
  # Path in the folder of published files, or a checkpoint prefix.
  path: str
  # Field of metrics.Scores.
  score: str = 'miou'

  @property
  def published(self) -> Tuple[float, ...]:
    """The published value, or two if the reference states two."""
    ending = '.index' if self.form == CHECKPOINT else ''
    return published.FIGURES[self.path + ending][self.score]

  @property
  def measured(self) -> str:
    """The machine of the measurement."""
    return 'device CPU' if self.score == 'miou_mlperf_app' else 'x86'


FIGURES = (
    Figure(_FLOAT, CHECKPOINT, _FLOAT_CHECKPOINT),
    Figure(_FLOAT, GRAPH, 'float/freeze.pb'),
    Figure(_FLOAT, LITE, 'float/freeze.tflite', 'miou_mlperf_app'),
    Figure(_QAT, CHECKPOINT, _QAT_CHECKPOINT),
    Figure(_QAT, GRAPH, 'quantize_aware_training/freeze.pb'),
    Figure(_QAT, LITE, 'quantize_aware_training/freeze_qat.tflite',
           'miou_kept_classes'),
    Figure(_PTQ, LITE, 'post_train_quant/freeze_ptq.tflite',
           'miou_kept_classes'))
# The evaluated file was published, or made here from the published checkpoint.
PUBLISHED, MADE = 'published', 'made here'

# --- Steps -----------------------------------------------------------------

# Environments: for networks, for TFLite, or none.
_NETWORK, _TFLITE, _SHELL = 'network', 'tflite', 'shell'
_ENVIRONMENTS = {
    options_lib.TENSORFLOW_1_2: {_NETWORK: 'tf1', _TFLITE: 'tf2'},
    options_lib.MODERN: {_NETWORK: 'modern', _TFLITE: 'modern'}}

_SIZE = (' --eval_crop_size=512,512 --min_resize_value=512'
         ' --max_resize_value=512')
_RECORDS = ' --dataset_dir={records} --resize_factor=16' + _SIZE
_STRIDES = ' --output_stride=16 --decoder_output_stride=4'
_QUANTIZED = ' --quantize_delay_step=0'
_PREPROCESS = ('gen_preprocessed_data.py --dataset_dir={records} --overwrite' +
               _SIZE)
_EXPORT = ('export_model.py --num_classes=32 --train_crop_size=512,512' +
           _STRIDES)
# Rows: name, role, command, inputs (files, folders or prefixes), output. Braces
# hold keys of _paths.
_PUBLISHED_STEP = (
    'published files', _SHELL,
    'scripts/fetch_checkpoints.sh --output_dir={published}', '', '{published}')
_ADE20K_STEP = (
    'ADE20K', _SHELL, 'download_and_convert_ade20k.sh --download_only {zip}',
    '', '{data}')
_STEPS = (
    ('records', _NETWORK,
     'build_ade20k_data.py --output_dir={records}'
     ' --train_image_folder={data}/images/training'
     ' --train_image_label_folder={data}/annotations/training'
     ' --val_image_folder={data}/images/validation'
     ' --val_image_label_folder={data}/annotations/validation',
     '{data}/images {data}/annotations', '{records}'),
    ('preprocess val', _NETWORK,
     _PREPROCESS + ' --eval_split=val --preprocessed_dataset_dir={val}',
     '{records}', '{val}'),
    ('preprocess train', _NETWORK,
     _PREPROCESS + ' --eval_split=train --preprocessed_dataset_dir={train}'
     ' {image_list}', '{records}', '{train}'),
    ('export: ' + _FLOAT, _NETWORK,
     _EXPORT + ' --checkpoint_path={published}/' + _FLOAT_CHECKPOINT +
     ' --export_path={made}/float/freeze.pb',
     '{published}/' + _FLOAT_CHECKPOINT, '{made}/float/freeze.pb'),
    ('convert: ' + _FLOAT, _NETWORK,
     'scripts/convert_tflite.py --graph_def={made}/float/freeze.pb'
     ' --out_tflite={made}/float/freeze.tflite --mode=float',
     '{made}/float/freeze.pb', '{made}/float/freeze.tflite'),
    ('export: ' + _QAT, _NETWORK,
     _EXPORT + ' --checkpoint_path={published}/' + _QAT_CHECKPOINT +
     ' --export_path={made}/quantize_aware_training/freeze.pb' + _QUANTIZED,
     '{published}/' + _QAT_CHECKPOINT,
     '{made}/quantize_aware_training/freeze.pb'),
    ('convert: ' + _QAT, _NETWORK,
     'scripts/convert_tflite.py'
     ' --graph_def={made}/quantize_aware_training/freeze.pb'
     ' --out_tflite={made}/quantize_aware_training/freeze_qat.tflite'
     ' --mode=qat', '{made}/quantize_aware_training/freeze.pb',
     '{made}/quantize_aware_training/freeze_qat.tflite'),
    ('quantize after training', _TFLITE,
     'post_training_quant.py --dataset_dir={train}'
     ' --graph_def={made}/float/freeze.pb'
     ' --out_tflite={made}/post_train_quant/freeze_ptq.tflite'
     ' --input_type=uint8 --sample_num={sample_num}',
     '{train} {made}/float/freeze.pb',
     '{made}/post_train_quant/freeze_ptq.tflite'),
)
# Role, command and inputs of the evaluation of each form of a model.
_EVALUATIONS = {
    CHECKPOINT: (_NETWORK, 'eval.py --checkpoint_dir={model}' + _STRIDES +
                 _RECORDS, '{model} {records}'),
    GRAPH: (_NETWORK, 'eval_pb.py --pb={model}' + _RECORDS,
            '{model} {records}'),
    LITE: (_TFLITE, 'segmentation_inference_eval_seg_tflite.py'
           ' --net_file={model} --test_dir={val}', '{model} {val}')}


class Step(NamedTuple):
  """A command of the suite."""
  name: str
  # _NETWORK, _TFLITE or _SHELL.
  role: str
  # Path of a script from the repository's root, then its arguments.
  command: List[str]
  inputs: List[str]
  output: str


class _Plan(NamedTuple):
  """All steps and rows."""
  steps: List[Step]
  # Rows of the results: figure, PUBLISHED or MADE, step.
  rows: List[Tuple[Figure, str, Step]]
  # Number of validation images.
  images: int
  # Number of calibration images.
  calibration: int


def make_plan(options: options_lib.ReproduceOptions) -> _Plan:
  """Returns the steps of a run.

  Raises:
    InputError: the sample, the published files or the zip file is missing.
  """
  images, calibration = _VAL_IMAGES, constants.CALIBRATION_IMAGES
  if options.sample:
    images = _count_images(options.sample, 'validation')
    calibration = min(calibration, _count_images(options.sample, 'training'))
  if options.zip:
    checked_read.check(options.zip, option('zip', options.zip),
                 'a copy of ADEChallengeData2016.zip')
  there = list(FIGURES)
  if options.sample and options.published:
    there = [figure for figure in FIGURES if _files_of(
        os.path.join(options.published, figure.path))]
    missing = [figure.path for figure in FIGURES
               if figure.form == CHECKPOINT and figure not in there]
    if missing:
      raise InputError('{}: has no {}', option('published', options.published),
                       some_of(missing))
  paths = dict(_paths(options), sample_num=str(calibration))
  table = [] if options.sample and options.published else [_PUBLISHED_STEP]
  table += [] if options.sample else [_ADE20K_STEP]
  rows = [(figure, PUBLISHED, _evaluation(figure, PUBLISHED, paths))
          for figure in there]
  rows += [(figure, MADE, _evaluation(figure, MADE, paths))
           for figure in FIGURES if figure.form != CHECKPOINT]
  steps = [_step(row, paths) for row in table + list(_STEPS)]
  return _Plan(steps + [step for _, _, step in rows], rows, images, calibration)


def _count_images(sample, split):
  folder = os.path.join(sample, 'images', split)
  count = sum(map(pairs_lib.has_image_name, os.listdir(folder))) if (
      os.path.isdir(folder)) else 0
  if not count:
    raise InputError(
        '{}: no image in {}; expected images/ and annotations/, with training/ '
        'and validation/ in each', option('sample', sample),
        os.path.join('images', split))
  return count


def _paths(options):
  """Returns the values for braces; paths are absolute."""
  folder = os.path.abspath(options.output_dir)
  paths = {name: os.path.join(folder, path) for name, path in (
      ('records', 'tfrecord'), ('val', 'preprocessed/val'), ('made', 'made'),
      ('train', 'preprocessed/train'), ('reports', 'reports'))}
  return dict(
      paths,
      published=os.path.abspath(
          options.published or os.path.join(folder, 'checkpoints')),
      data=os.path.abspath(options.sample or os.path.join(
          folder, download.ADE20K, download.DATA)),
      zip='--zip=' + os.path.abspath(options.zip) if options.zip else '',
      image_list='' if options.sample else '--image_list=' + os.path.join(
          environment.REPOSITORY, 'checkpoints', 'post_train_quant', 'ptq.txt'))


def _evaluation(figure, whose, paths):
  role, command, read = _EVALUATIONS[figure.form]
  if (figure.model, figure.form) == (_QAT, CHECKPOINT):
    command += _QUANTIZED
  folder = paths['published' if whose == PUBLISHED else 'made']
  report = '{reports}/%s_%s.json' % (
      whose.replace(' ', '_'), figure.path.replace('/', '_'))
  return _step(
      ('evaluate, {}: {} {}'.format(whose, figure.model, figure.form), role,
       command + ' --report_json=' + report, read, report),
      dict(paths, model=os.path.join(folder, figure.path)))


def _step(row, paths):
  """Builds a Step from a row and the values for its braces."""
  name, role, command, read, output = row
  # Words are split first because paths may have blanks.
  return Step(
      name, role,
      list(filter(None, (word.format(**paths) for word in command.split()))),
      [word.format(**paths) for word in read.split()], output.format(**paths))


# --- Facts of a step -------------------------------------------------------


def _facts(step, versions, library):
  """Returns the facts of a step; it is done if steps.json has the same.

  Args:
    step: the step.
    versions: dict from role to the versions of its environment.
    library: checksum of the library.
  """
  return {
      'command': step.command, 'environment': versions.get(step.role, ''),
      'code': [library, _checksum(
          os.path.join(environment.REPOSITORY, step.command[0]))],
      'inputs': [_checksum(path) for path in step.inputs],
      'output': _checksum(step.output)}


def _checksum(path):
  """Returns the SHA-256 of a file, folder or checkpoint; '': missing."""
  found = {}
  for file in _files_of(path):
    state = os.stat(file)
    found[os.path.relpath(file, path)] = _checksum_of_file(
        file, state.st_ino, state.st_size, state.st_mtime_ns)
  if os.path.isfile(path):
    return found['.']
  return files.digest(found) if found else ''


@functools.lru_cache(maxsize=None)
def _checksum_of_file(path, *unused_state):
  """Returns a file's SHA-256, cached while its state does not change."""
  return files.sha256_of(path)


def _files_of(path):
  """Returns the files of a folder or checkpoint prefix, or the path."""
  if os.path.isdir(path):
    return [os.path.join(folder, name) for folder, _, names in os.walk(path)
            for name in names if not name.endswith('.pyc')]
  return [path] if os.path.isfile(path) else glob.glob(
      glob.escape(path) + '.*')


def _read_journal(path, options):
  """Returns the content of steps.json.

  Raises:
    InputError: the folder has other files, or another run's.
  """
  folder, given = os.path.dirname(path), option(
      'output_dir', options.output_dir)
  begun = {'environment': options.environment,
           'sample': options.sample and os.path.abspath(options.sample)}
  if not os.path.exists(path):
    if os.listdir(folder):
      raise InputError('{}: holds something else; give a new folder', given)
    return {'begun': begun, 'steps': {}}
  journal = checked_read.read_json(path, path, 'what the steps were done with')
  if not isinstance(journal, dict) or journal.get('begun') != begun:
    raise InputError('{}: was begun with another environment or sample; give a '
                     'new folder', given)
  return journal


# --- Running ---------------------------------------------------------------


def run(options: options_lib.ReproduceOptions) -> Dict[str, Any]:
  """Runs all steps that are not done, and writes the results.

  Returns:
    The content of results.json.

  Raises:
    InputError: an input is missing or a step failed.
  """
  plan = make_plan(options)
  folder = os.path.abspath(options.output_dir)
  files.check_folder(option('output_dir', options.output_dir), folder)
  pythons = _ENVIRONMENTS[options.environment]
  versions = {role: _version(name) for role, name in pythons.items()}
  machine = machine_lib.describe()
  library = _checksum(os.path.join(environment.REPOSITORY, 'deeplab'))
  journal_path = os.path.join(folder, 'steps.json')
  journal = _read_journal(journal_path, options)
  print('\n'.join(_announcement(options, plan)), flush=True)
  for number, step in enumerate(plan.steps, 1):
    title = '{} of {}: {}'.format(number, len(plan.steps), step.name)
    noted = journal['steps'].get(step.name, {})
    changed = [name for name, fact in _facts(step, versions, library).items()
               if noted.get(name) != fact]
    if not changed:
      print('== {} (done before)'.format(title), flush=True)
      continue
    if noted:
      title += ' (again, as these have changed: {})'.format(', '.join(changed))
      if os.path.isfile(step.output):
        os.remove(step.output)
    _do(step, title, pythons, folder)
    facts = _facts(step, versions, library)
    if not facts['output']:
      raise InputError('step {} left no {}', title, step.output)
    journal['steps'][step.name] = dict(
        facts, commit=machine['commit'],
        when=datetime.datetime.now().strftime('%Y-%m-%d %H:%M'))
    files.write_json(journal_path, journal)
  content = _results(options, plan, journal['steps'], versions, machine)
  files.write_all({
      os.path.join(folder, 'results.json'): files.json_bytes(content),
      os.path.join(folder, RESULTS): markdown(content).encode('utf-8')})
  return content


def _do(step, title, pythons, folder):
  """Prints and runs the command of a step."""
  script, *arguments = step.command
  command = [os.path.join(environment.REPOSITORY, script)] + arguments
  if step.role != _SHELL:
    command.insert(0, _python(pythons[step.role]))
  print('\n== {}\n{}\n'.format(title, ' \\\n    '.join(
      map(shlex.quote, command))), flush=True)
  status = _execute(step, command, folder)
  if status:
    raise InputError(
        'step {} ended with status {}; what it says is above; the same '
        'command goes on from there', title, status)


def _announcement(options, plan):
  lines = ['{} steps, in {}'.format(
      len(plan.steps), os.path.abspath(options.output_dir))]
  if options.sample:
    return lines + [sample_notice(plan.images)]
  return lines + [
      'a whole run takes about {} on 2 processors, and {} GB of disk, of which '
      '{:.1f} GB are free'.format(
          _HOURS[options.environment], _GIGABYTES,
          shutil.disk_usage(options.output_dir).free / 1e9)]


def _python(name):
  return os.path.join(environment.REPOSITORY, '.venvs', name, 'bin', 'python')


def _version(name):
  """Returns an environment's versions of Python and TensorFlow."""
  program = (
      'import platform, sys; sys.path.insert(0, sys.argv[1]); '
      'from deeplab.system import environment; print("Python", '
      'platform.python_version() + ", TensorFlow", '
      'environment.tensorflow_version())')
  try:
    return subprocess.check_output(
        [_python(name), '-c', program, environment.REPOSITORY],
        universal_newlines=True).strip()
  except (OSError, subprocess.CalledProcessError):
    raise InputError('{}: does not run; ./scripts/setup.sh {} makes it',
                     _python(name), name)


def _execute(step, command, folder):
  """Runs a command; returns its exit status."""
  variables = dict(os.environ)
  if step.role == _SHELL:
    variables['PYTHON'] = sys.executable
  process = subprocess.Popen(command, cwd=folder, env=variables)
  try:
    return process.wait()
  except BaseException:
    process.terminate()
    process.wait()
    raise


# --- Results ---------------------------------------------------------------


def sample_notice(images: int) -> str:
  """Returns the notice for results on a sample."""
  return ('SAMPLE of {} images: the scores say nothing of the published ones, '
          'which are of {}; they only show that every step runs'.format(
              images, _VAL_IMAGES))


def _results(options, plan, noted, versions, machine):
  """Returns the content of results.json; `noted` maps steps to facts."""
  rows = []
  for figure, whose, step in plan.rows:
    report = report_lib.read(step.output)
    ours = getattr(report.scores, figure.score)
    difference = min((ours - value for value in figure.published), key=abs)
    facts = noted[step.name]
    rows.append(dict(
        figure._asdict(), published=figure.published,
        measured=figure.measured, file=whose, ours=ours, difference=difference,
        within_tolerance=abs(difference) <= TOLERANCE, images=report.images,
        seconds=report.seconds, geometry=report.geometry,
        runtime=report.runtime, sha256=facts['inputs'][0], when=facts['when'],
        commit=facts['commit']))
  return {
      'rows': rows, 'is_sample': bool(options.sample), 'images': plan.images,
      'calibration_images': plan.calibration, 'tolerance': TOLERANCE,
      'environment': options.environment,
      'environments': {name: versions[role] for role, name in _ENVIRONMENTS[
          options.environment].items()},
      'machine': {name: machine[name] for name in machine
                  if name not in ('date', 'commit')},
      'published_files': download.state_of_published(
          _paths(options)['published'])}


def markdown(content: Dict[str, Any]) -> str:
  """Returns RESULTS.md for the content of results.json."""
  lines = ['# Results', '']
  if content['is_sample']:
    lines += ['**{}.**'.format(sample_notice(content['images'])), '']
  lines += ['Made by `./scripts/reproduce.sh`; not to be edited.', '']
  names = ('model', 'form', 'file')
  conventions = {field: name for field, name, _ in report_lib.MEANS}
  lines += _table(
      names + ('convention', 'published', 'ours', 'difference',
               'within {}'.format(content['tolerance'])),
      [[row[name] for name in names] + [
          conventions[row['score']], published.text_of(row['published']),
          '{ours:.4f}'.format(**row), '{difference:+.4f}'.format(**row),
          'sample' if content['is_sample'] else
          'yes' if row['within_tolerance'] else 'NO']
       for row in content['rows']])
  lines += [
      '', 'Published are scores of {} validation images, each in its own '
      'convention. The only one of the float TFLite file was measured on a '
      'device.'.format(_VAL_IMAGES), '', '## Environment', '']
  lines += ['- {}: {}'.format(*item) for item in content['machine'].items()]
  lines += ['- {}: {}'.format(*item)
            for item in sorted(content['environments'].items())]
  lines += ['- calibration images: {}'.format(content['calibration_images'])]
  lines += ['', '## Measured', '']
  lines += _table(
      names + ('when', 'commit', 'from', 'SHA-256', 'images', 'seconds',
               'runtime', 'geometry'),
      [[row[name] for name in names + ('when', 'commit', 'path')] + [
          row['sha256'][:12], row['images'], '{seconds:.0f}'.format(**row),
          row['runtime'], row['geometry']] for row in content['rows']])
  lines += ['', '## Published files', '']
  lines += _table(('file', 'SHA-1'), sorted(content['published_files'].items()))
  return '\n'.join(lines) + '\n'


def _table(head, rows):
  return ['| {} |'.format(' | '.join(map(str, cells)))
          for cells in [head, ['---'] * len(head), *rows]]


def summary_line(content: Dict[str, Any], output_dir: str) -> str:
  """Returns a line with the number of scores equal to the published ones."""
  where = os.path.join(output_dir, RESULTS)
  if content['is_sample']:
    return 'a sample of {} images, no verdict: {}'.format(
        content['images'], where)
  met = sum(row['within_tolerance'] for row in content['rows'])
  return '{} of {} scores are within {} of the published ones: {}'.format(
      met, len(content['rows']), content['tolerance'], where)
