"""From downloads to the published numbers: steps, and the table of results.

Each step is a command of the suite, in the environment that it is for. One
whose result is there is not done again, so that the same call goes on where it
was stopped. Needs no TensorFlow itself.
"""
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from typing import (
  Any,
  Callable,
  Dict,
  Iterable,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
)

from deeplab import contract
from deeplab import files
from deeplab import inputs
from deeplab import options as options_lib
from deeplab import report as report_lib
from deeplab.benchmark import results as benchmark_results
from deeplab.data import pairs as pairs_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_of

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESULTS = 'RESULTS.md'
RESULTS_JSON = 'results.json'
# What a folder was begun with.
_BEGUN = 'begun.json'
TOLERANCE = 0.002
_IMAGE_LIST = os.path.join(ROOT, 'checkpoints', 'post_train_quant', 'ptq.txt')
_SUMS = os.path.join(ROOT, 'checkpoints', 'git-blob-sha1.txt')

# --- What is published -----------------------------------------------------

FLOAT, QAT, PTQ = 'float', 'quantize_aware_training', 'post_train_quant'
_MODELS = {FLOAT: 'Float', QAT: 'Quantization-aware training',
           PTQ: 'Post-training quantization'}
# Step of the published checkpoints.
_CHECKPOINT = {FLOAT: 'model.ckpt-200000', QAT: 'model.ckpt-100000'}
_TFLITE = {FLOAT: 'freeze.tflite', QAT: 'freeze_qat.tflite',
           PTQ: 'freeze_ptq.tflite'}
_QUANTIZED = {FLOAT: (), QAT: ('--quantize_delay_step=0',)}
_CONVERTED_AS = {FLOAT: options_lib.FLOAT, QAT: options_lib.QUANTIZATION_AWARE}
CHECKPOINT, GRAPH, LITE = 'checkpoint', 'frozen graph', 'TFLite'


class Figure(NamedTuple):
  """A score that is published, on the 2000 validation images."""
  model: str
  form: str
  # One, or two where the reference states both.
  published: Tuple[float, ...]
  # Which of metrics.Scores it is.
  score: str
  # Where it was measured.
  measured: str = 'x86'


FIGURES = (
    Figure(FLOAT, CHECKPOINT, (0.5528,), 'miou'),
    Figure(FLOAT, GRAPH, (0.5528,), 'miou'),
    Figure(FLOAT, LITE, (0.5501, 0.5509), 'miou_mlperf_app', 'device CPU'),
    Figure(QAT, CHECKPOINT, (0.5553,), 'miou'),
    Figure(QAT, GRAPH, (0.5553,), 'miou'),
    Figure(QAT, LITE, (0.5483,), 'miou_kept_classes'),
    Figure(PTQ, LITE, (0.5469,), 'miou_kept_classes'),
)
# Whose file was evaluated: the published one, or one that was made of the
# published checkpoint here.
PUBLISHED, MADE = 'published', 'made here'

# --- What steps take -------------------------------------------------------

# Seconds an image on a processor of two, from BENCHMARKS.md, rounded up: for a
# first idea. (tf, modern)
_SECONDS = {
    'build': (0.003, 0.003), 'preprocess': (0.011, 0.009),
    CHECKPOINT: (0.18, 0.08), GRAPH: (0.19, 0.09), 'calibrate': (1.3, 1.2),
    FLOAT: (0.1, 0.07), QAT: (0.23, 0.06), PTQ: (4.1, 0.03)}
_DOWNLOAD_SECONDS = 300
# What each script needs to start.
_START_SECONDS = 5
# Bytes of the zip file, of what is in it, and of the records of that.
_ADE20K_BYTES = 2.9e9
_PUBLISHED_BYTES = 60e6
_PAIR_BYTES = 0.5e6
_RECORD_BYTES = 0.1e6
_MADE_BYTES = 10e6
_REPORT_BYTES = 1e5
_TRAIN, _VAL = 20210, 2000
_SIDE = 512
_SIZE = ('--eval_crop_size={0},{0}'.format(_SIDE),
         '--min_resize_value={}'.format(_SIDE),
         '--max_resize_value={}'.format(_SIDE))
# Which environment runs what.
_NETWORK, _TFLITE_ROLE, _SHELL = 'network', 'tflite', 'shell'
_ENVIRONMENTS = {
    options_lib.TENSORFLOW_1_2: {_NETWORK: 'tf1', _TFLITE_ROLE: 'tf2'},
    options_lib.MODERN: {_NETWORK: 'modern', _TFLITE_ROLE: 'modern'}}


_TELL_VERSIONS = (
    'import platform; from deeplab import environment; print("Python {}, '
    'TensorFlow {}".format(platform.python_version(), '
    'environment.tensorflow_version()))')


class Step(NamedTuple):
  """A command, and what there is once it is done."""
  name: str
  # Which environment runs it; _SHELL: none.
  role: str
  # Path of a script from the repository's root, then its arguments.
  command: Tuple[str, ...]
  # Files that are there once it is done.
  results: Tuple[str, ...]
  # What it takes, about.
  seconds: float
  bytes: float
  # Files that say that a result is not whole.
  unless: Tuple[str, ...] = ()
  # Whether it is run even so: it verifies what is there, and does the rest.
  verifies: bool = False

  @property
  def is_done(self) -> bool:
    """Whether its results are there."""
    return all(map(os.path.exists, self.results)) and not any(
        map(os.path.exists, self.unless))


class _Plan(NamedTuple):
  """All that steps are made of."""
  options: options_lib.ReproduceOptions
  # Absolute.
  output_dir: str
  records: str
  published: str
  # Number of validation and of calibration images.
  images: int
  calibration: int


def _index(plan):
  return list(_ENVIRONMENTS).index(plan.options.environment)


def _seconds(plan, work, images):
  return _START_SECONDS + images * _SECONDS[work][_index(plan)]


def _in(plan, *path):
  return os.path.join(plan.output_dir, *path)


# --- Steps -----------------------------------------------------------------


def _data_steps(plan):
  sample = plan.options.sample
  described = tuple(
      os.path.join(plan.records, contract.description_name(split))
      for split in contract.SPLITS)
  markers = tuple(os.path.join(plan.records, contract.incomplete_name(split))
                  for split in contract.SPLITS)
  if not sample:
    zip_file = plan.options.zip
    yield Step(
        'ADE20K: download, verify, convert', _SHELL,
        ('download_and_convert_ade20k.sh',) + (
            ('--zip=' + os.path.abspath(zip_file),) if zip_file else ()),
        described, _DOWNLOAD_SECONDS + _seconds(plan, 'build', _TRAIN + _VAL),
        _ADE20K_BYTES, markers, verifies=True)
  else:
    folders = {
        '--{}_image{}_folder'.format(split, what): os.path.join(
            os.path.abspath(sample), kind, long)
        for split, long in (('train', 'training'), ('val', 'validation'))
        for kind, what in (('images', ''), ('annotations', '_label'))}
    yield Step(
        'sample: convert', _NETWORK, ('build_ade20k_data.py',) + tuple(
            '{}={}'.format(*item) for item in sorted(folders.items())) + (
                '--output_dir=' + plan.records,),
        described, _START_SECONDS,
        _RECORD_BYTES * (plan.images + plan.calibration), markers)
  yield from _preprocessing(plan, 'val', plan.images)
  yield from _preprocessing(plan, 'train', plan.calibration)


def _preprocessing(plan, split, images):
  folder = _in(plan, 'preprocessed', split)
  more: Tuple[str, ...] = ()
  if split == 'train' and not plan.options.sample:
    more = ('--image_list=' + _IMAGE_LIST,)
  yield Step(
      'preprocess {} for TFLite'.format(split), _NETWORK,
      ('gen_preprocessed_data.py', '--dataset_dir=' + plan.records,
       '--eval_split=' + split, '--preprocessed_dataset_dir=' + folder,
       '--overwrite') + _SIZE + more,
      (os.path.join(folder, contract.PREPROCESSED_MANIFEST),),
      _seconds(plan, 'preprocess', images), images * _PAIR_BYTES,
      (os.path.join(folder, contract.PREPROCESSED_INCOMPLETE),))


def _fetching(plan):
  if plan.options.sample and plan.options.published:
    return
  yield Step(
      'published files: download, verify', _SHELL,
      ('scripts/fetch_checkpoints.sh', '--output_dir=' + plan.published),
      tuple(os.path.join(plan.published, path) for path in _published_sums()),
      _DOWNLOAD_SECONDS, _PUBLISHED_BYTES, verifies=True)


def _making(plan):
  """The steps that make graphs and TFLite files of the checkpoints."""
  for model in (FLOAT, QAT):
    graph = _file(plan, MADE, model, GRAPH)
    yield Step(
        'export: {}'.format(_MODELS[model]), _NETWORK,
        ('export_model.py',
         '--checkpoint_path=' + _file(plan, PUBLISHED, model, CHECKPOINT),
         '--export_path=' + graph, '--num_classes=32', '--output_stride=16',
         '--decoder_output_stride=4', '--train_crop_size={0},{0}'.format(_SIDE),
         *_QUANTIZED[model]), (graph,), _START_SECONDS, _MADE_BYTES)
    lite = _file(plan, MADE, model, LITE)
    yield Step(
        'convert to TFLite: {}'.format(_MODELS[model]), _NETWORK,
        ('scripts/convert_tflite.py', '--graph_def=' + graph,
         '--out_tflite=' + lite, '--mode=' + _CONVERTED_AS[model]), (lite,),
        _START_SECONDS, _MADE_BYTES)
  lite = _file(plan, MADE, PTQ, LITE)
  yield Step(
      'quantize after training', _TFLITE_ROLE,
      ('post_training_quant.py', '--dataset_dir=' + _in(
          plan, 'preprocessed', 'train'),
       '--graph_def=' + _file(plan, MADE, FLOAT, GRAPH),
       '--out_tflite=' + lite, '--input_type=uint8',
       '--sample_num={}'.format(plan.calibration)), (lite,),
      _seconds(plan, 'calibrate', plan.calibration), _MADE_BYTES)


def _evaluation(plan, figure, whose):
  """The step that evaluates a model."""
  path = _file(plan, whose, figure.model, figure.form)
  report = _report(plan, figure, whose)
  records = ('--dataset_dir=' + plan.records,) + _SIZE + (
      '--resize_factor=16',)
  if figure.form == CHECKPOINT:
    command: Tuple[str, ...] = (
        'eval.py', '--checkpoint_dir=' + path, '--output_stride=16',
        '--decoder_output_stride=4') + _QUANTIZED[figure.model] + records
  elif figure.form == GRAPH:
    command = ('eval_pb.py', '--pb=' + path) + records
  else:
    command = ('segmentation_inference_eval_seg_tflite.py',
               '--net_file=' + path,
               '--test_dir=' + _in(plan, 'preprocessed', 'val'))
  lite = figure.form == LITE
  return Step(
      'evaluate, {}: {} {}'.format(whose, _MODELS[figure.model], figure.form),
      _TFLITE_ROLE if lite else _NETWORK,
      command + ('--report_json=' + report,), (report,),
      _seconds(plan, figure.model if lite else figure.form, plan.images),
      _REPORT_BYTES)


def _file(plan, whose, model, form):
  """Returns the path of a model; of a checkpoint, the prefix."""
  name = {CHECKPOINT: _CHECKPOINT.get(model, ''),
          GRAPH: contract.FROZEN_GRAPH, LITE: _TFLITE[model]}[form]
  if whose == PUBLISHED:
    return os.path.join(plan.published, model, name)
  return _in(plan, 'made', model, name)


def _report(plan, figure, whose):
  return _in(plan, 'reports', '{} {} {}.json'.format(
      whose, figure.model, figure.form).replace(' ', '_'))


def _is_given(plan, figure):
  """Whether a published file is there, or will be."""
  if not (plan.options.sample and plan.options.published):
    return True
  path = _file(plan, PUBLISHED, figure.model, figure.form)
  return os.path.exists(
      path + ('.index' if figure.form == CHECKPOINT else ''))


def _evaluated(plan):
  """Returns (figure, whose) of all that is evaluated."""
  return ([(figure, PUBLISHED) for figure in FIGURES
           if _is_given(plan, figure)] +
          [(figure, MADE) for figure in FIGURES if figure.form != CHECKPOINT])


def steps(plan: _Plan) -> List[Step]:
  """Returns all steps, in order.

  Args:
    plan: of `make_plan`.
  """
  evaluated = [_evaluation(plan, *which) for which in _evaluated(plan)]
  return [*_fetching(plan), *_data_steps(plan), *_making(plan), *evaluated]


def make_plan(options: options_lib.ReproduceOptions) -> _Plan:
  """Finds out what there is to work with.

  Raises:
    InputError: the sample, the published files or the zip file is not there.
  """
  output_dir = os.path.abspath(options.output_dir)
  images, calibration = _VAL, contract.CALIBRATION_IMAGES
  records = os.path.join(output_dir, 'ADE20K', 'tfrecord')
  if options.zip:
    inputs.check(options.zip, option('zip', options.zip),
                 'a copy of ADEChallengeData2016.zip')
  if options.sample:
    calibration, images = (
        _count_images(options.sample, split)
        for split in ('training', 'validation'))
    calibration = min(calibration, contract.CALIBRATION_IMAGES)
    records = os.path.join(output_dir, 'tfrecord')
  plan = _Plan(
      options, output_dir, records,
      os.path.abspath(options.published) if options.published
      else os.path.join(output_dir, 'checkpoints'), images, calibration)
  missing = [
      _file(plan, PUBLISHED, figure.model, figure.form) for figure in FIGURES
      if figure.form == CHECKPOINT and not _is_given(plan, figure)]
  if missing:
    raise InputError('{}: has no {}', option('published', options.published),
                     some_of([os.path.relpath(path, plan.published)
                              for path in missing]))
  return plan


def _count_images(sample, split):
  folder = os.path.join(sample, 'images', split)
  try:
    count = sum(map(pairs_lib.has_image_name, os.listdir(folder)))
  except OSError:
    count = 0
  if not count:
    raise InputError(
        '{}: no image in {}; expected images/ and annotations/, with training/ '
        'and validation/ in each', option('sample', sample),
        os.path.join('images', split))
  return count


# --- Running ---------------------------------------------------------------


def run(options: options_lib.ReproduceOptions,
        execute: Optional[Callable[[Step, List[str], str], int]] = None
        ) -> Dict[str, Any]:
  """Does all steps that are not done, and writes the results.

  Args:
    options: what is reproduced, and where.
    execute: runs a step's command in a folder and returns its exit status;
      None: as a process.

  Returns:
    The content of results.json.

  Raises:
    InputError: there is not what is needed, or a step failed.
  """
  plan = make_plan(options)
  files.check_folder(option('output_dir', options.output_dir), plan.output_dir)
  _check_begun(plan)
  versions = {name: _versions(name) for name in sorted(set(
      _ENVIRONMENTS[options.environment].values()))}
  all_steps = steps(plan)
  print('\n'.join(_announcement(plan, all_steps)), flush=True)
  for number, step in enumerate(all_steps, 1):
    title = '== {} of {}: {}'.format(number, len(all_steps), step.name)
    if step.is_done and not step.verifies:
      print(title + ' (done before)', flush=True)
      continue
    command = _command(plan, step)
    print('\n{}\n{}\n'.format(title, _shown(command)), flush=True)
    status = (execute or _execute)(step, command, plan.output_dir)
    if status:
      raise InputError(
          'step {} of {} ({}) ended with status {}; what it says is above; the '
          'same command goes on from there', number, len(all_steps), step.name,
          status)
    missing = [path for path in step.results if not os.path.exists(path)]
    if missing:
      raise InputError('step {} of {} ({}) left no {}', number, len(all_steps),
                       step.name, some_of(missing))
  content = _results(plan, versions)
  files.write_all({
      _in(plan, RESULTS_JSON): files.json_bytes(content),
      _in(plan, RESULTS): markdown(content).encode('utf-8')})
  return content


def _check_begun(plan):
  """Raises InputError where the folder was begun with something else."""
  path = _in(plan, _BEGUN)
  begun = {
      'environment': plan.options.environment, 'published': plan.published,
      'sample': plan.options.sample and os.path.abspath(plan.options.sample)}
  if not os.path.exists(path):
    files.write_json(path, begun)
  elif inputs.read_json(path, path, 'what this folder was begun with') != begun:
    raise InputError(
        '{}: was begun with another environment, sample or published files; '
        'give a new folder', option('output_dir', plan.options.output_dir))


def _announcement(plan, all_steps):
  """Says how much there is to do; raises InputError where room is lacking."""
  left = [step for step in all_steps if not step.is_done]
  seconds = sum(step.seconds for step in left)
  needed = sum(step.bytes for step in left)
  free = shutil.disk_usage(plan.output_dir).free
  lines = ['{} of {} steps are left, in {}'.format(
      len(left), len(all_steps), plan.output_dir)]
  if left:
    lines += ['time: about {} on 2 processors'.format(_duration(seconds)),
              'disk: about {}, of {} that are free'.format(
                  _size(needed), _size(free))]
  if plan.options.sample:
    lines.append(sample_notice(plan.images))
  if needed > free:
    raise InputError('{}: needs about {}, has {}', option(
        'output_dir', plan.options.output_dir), _size(needed), _size(free))
  return lines


def _duration(seconds):
  if seconds < 5400:
    return '{:.0f} minutes'.format(max(1, seconds / 60))
  return '{:.1f} hours'.format(seconds / 3600)


def _size(number):
  return '{:.1f} GB'.format(number / 1e9) if number > 1e9 else (
      '{:.0f} MB'.format(number / 1e6))


def _command(plan, step):
  """Returns the command line of a step, as a list."""
  script = os.path.join(ROOT, step.command[0])
  if step.role == _SHELL:
    return [script] + list(step.command[1:])
  name = _ENVIRONMENTS[plan.options.environment][step.role]
  return [_python(name), script] + list(step.command[1:])


def _python(name):
  return os.path.join(ROOT, '.venvs', name, 'bin', 'python')


def _versions(name):
  """Names Python and TensorFlow of an environment; it must be there."""
  try:
    return subprocess.check_output(
        [_python(name), '-c', _TELL_VERSIONS], cwd=ROOT,
        universal_newlines=True).strip()
  except (OSError, subprocess.CalledProcessError):
    raise InputError('{}: does not run; ./scripts/setup.sh {} makes it',
                     _python(name), name)


def _shown(command):
  """Returns a command as one types it, a line for each argument."""
  return ' \\\n    '.join(shlex.quote(word) for word in command)


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
  """Says what the results of a sample are."""
  return ('SAMPLE of {} images: the scores say nothing of the published ones, '
          'which are of {}; they only show that every step runs'.format(
              images, _VAL))


def _results(plan, versions):
  """Returns the content of results.json."""
  rows = []
  for figure, whose in _evaluated(plan):
    path = _report(plan, figure, whose)
    report = report_lib.from_json(inputs.read_json(path, path, 'a report'))
    ours = getattr(report.scores, figure.score)
    nearest = min(figure.published, key=lambda value: abs(value - ours))
    rows.append({
        'model': _MODELS[figure.model], 'form': figure.form, 'file': whose,
        'score': figure.score, 'measured': figure.measured,
        'published': list(figure.published), 'ours': ours,
        'difference': ours - nearest,
        'within_tolerance': abs(ours - nearest) <= TOLERANCE,
        'images': report.images, 'seconds': report.seconds,
        'geometry': report.geometry, 'runtime': report.runtime})
  return {
      'rows': rows, 'is_sample': bool(plan.options.sample),
      'images': plan.images, 'calibration_images': plan.calibration,
      'tolerance': TOLERANCE, 'environment': plan.options.environment,
      'environments': versions,
      'machine': benchmark_results.machine(),
      'published_files': check_published(plan.published)}


def check_published(folder: str) -> Dict[str, str]:
  """Holds a folder of published files against their checksums.

  Args:
    folder: as scripts/fetch_checkpoints.sh makes it.

  Returns:
    Dict from path to 'verified', 'another file' or 'missing'.
  """
  found = {}
  for path, expected in _published_sums().items():
    try:
      with open(os.path.join(folder, path), 'rb') as content:
        found[path] = ('verified' if blob_sha1(content.read()) == expected
                       else 'another file')
    except OSError:
      found[path] = 'missing'
  return found


def _published_sums():
  """Returns a dict from path of a published file to its checksum."""
  with open(_SUMS, encoding='utf-8') as lines:
    return {path: checksum for checksum, path in (
        line.split() for line in lines if line.strip() and line[0] != '#')}


def blob_sha1(content: bytes) -> str:
  """Returns what `git hash-object` prints for a file with such content."""
  return hashlib.sha1(
      'blob {}\0'.format(len(content)).encode() + content).hexdigest()


def markdown(content: Dict[str, Any]) -> str:
  """Lays results out as RESULTS.md.

  Args:
    content: of results.json.
  """
  sample = content['is_sample']
  lines = ['# Results', '']
  if sample:
    lines += ['**{}.**'.format(sample_notice(content['images'])), '']
  lines += ['Made by `./scripts/reproduce.sh`; not to be edited.', '']
  lines += _table(
      ('model', 'form', 'file', 'published', 'ours', 'difference',
       'within {}'.format(content['tolerance'])),
      [_cells(row, sample) for row in content['rows']])
  lines += [
      '', 'Published are scores of {} validation images: of checkpoints and '
      'frozen graphs mIoU, of TFLite files mIoU of the kept classes; of the '
      'float TFLite file there is only that of a device, by the rule of the '
      'app.'.format(_VAL), '', '## Environment', '']
  lines += ['- {}: {}'.format(*item) for item in content['machine'].items()]
  lines += ['- {}: {}'.format(*item)
            for item in sorted(content['environments'].items())]
  lines += ['- calibration images: {}'.format(content['calibration_images'])]
  lines += ['', '## Runs', '']
  lines += _table(
      ('model', 'form', 'file', 'images', 'seconds', 'runtime', 'geometry'),
      [(row['model'], row['form'], row['file'], row['images'],
        '{:.0f}'.format(row['seconds']), row['runtime'], row['geometry'])
       for row in content['rows']])
  lines += ['', '## Published files', '']
  lines += _table(('file', 'SHA-1'),
                  sorted(content['published_files'].items()))
  return '\n'.join(lines) + '\n'


def _cells(row, sample):
  verdict = 'yes' if row['within_tolerance'] else 'NO'
  return (row['model'], row['form'], row['file'],
          ' / '.join('{:.4f}'.format(value) for value in row['published']),
          '{:.4f}'.format(row['ours']), '{:+.4f}'.format(row['difference']),
          'sample' if sample else verdict)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> List[str]:
  return ['| {} |'.format(' | '.join(map(str, cells)))
          for cells in [head, ['---'] * len(head), *rows]]


def summary_line(content: Dict[str, Any], output_dir: str) -> str:
  """Says in one line how many scores are the published ones."""
  where = os.path.join(output_dir, RESULTS)
  if content['is_sample']:
    return 'a sample of {} images, no verdict: {}'.format(
        content['images'], where)
  met = sum(row['within_tolerance'] for row in content['rows'])
  return '{} of {} scores are within {} of the published ones: {}'.format(
      met, len(content['rows']), content['tolerance'], where)
