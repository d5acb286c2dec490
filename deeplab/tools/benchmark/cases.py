"""Benchmark cases, the files they need, and the goals."""
import statistics
import time
from typing import (
  Any,
  Callable,
  Container,
  Dict,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
)

from deeplab.system import environment

ENVIRONMENTS = tuple(environment.ENVIRONMENTS)

# A work is a function in this package: 'module.function'. Its arguments are
# Sizes, a function from words of a file's name to a path, and settings as
# keyword arguments. It returns (seconds for each item, details for the table),
# or None if it writes a file.
Paths = Callable[..., str]
Measured = Tuple[float, str]


class Sizes(NamedTuple):
  """Sizes of the measured work."""
  # Side of the network's input and longer side of the pictures, in pixels.
  side: int = 512
  picture_side: int = 683
  # Images in a training step.
  batch: int = 4
  # Pictures to build and preprocess: as many as calibration images, so that a
  # script's start counts as it does in use.
  pictures: int = 500
  # Pictures to evaluate, and to calibrate on.
  evaluated: int = 32
  calibration: int = 12
  # Images of two runs that compare memory.
  few: int = 40
  many: int = 400
  # A measurement repeats its work for this time.
  seconds: float = 6.0


QUICK = Sizes(side=65, picture_side=96, batch=4, pictures=6, evaluated=4,
              calibration=2, few=4, many=8, seconds=0.0)


class Case(NamedTuple):
  """A measurement in one environment, and its results."""
  group: str
  name: str
  environment: str
  work: str
  settings: Dict[str, Any]
  # For each item, by round; empty if the case failed.
  seconds: Tuple[float, ...] = ()
  # Maximum of all rounds.
  peak_bytes: int = 0
  detail: str = ''
  # Why there is no result, or None.
  error: Optional[str] = None

  @property
  def key(self) -> str:
    """Returns the name of the case."""
    return '{}/{}/{}'.format(self.group, self.environment, self.name)

  @property
  def median(self) -> Optional[float]:
    """Median of the rounds in seconds for each item; None: failed."""
    return statistics.median(self.seconds) if self.seconds else None


class Group(NamedTuple):
  """Cases that are compared."""
  name: str
  title: str
  # The unit: results are in seconds for each item.
  item: str
  # Keys of FILES, in the order to make them.
  files: Tuple[str, ...]
  # (name, environments, work, settings).
  rows: Sequence[Tuple[str, Tuple[str, ...], str, Dict[str, Any]]]


class Goal(NamedTuple):
  """A target ratio of two cases, named by their keys."""
  case: str
  # UNDER: share of the other case; AT_LEAST: speed-up.
  sense: str
  bound: float
  against: str
  # Compares peak memory, not time.
  of_memory: bool = False
  # Why it is missed, as measured.
  reason: str = ''


UNDER, AT_LEAST = 'under', 'at least'
# The group that needs a GPU.
GPU = 'gpu'
_BOTH = ('tf1', 'modern')
_PTQ = ('tf2', 'modern')
_ANY = ('tf1', 'modern', 'tf2')
_TRAIN = 'network.train_step'
_LITE = 'lite.predict'
# The reference's loss, and TensorFlow's default memory allocation.
_AS_REFERENCE = {'one_hot': True, 'pooled': False}

# Files that cases need, made once: work, settings, and the environments that
# can make it, preferred first.
FILES: Dict[str, Tuple[str, Dict[str, Any], Tuple[str, ...]]] = {
    'pictures': ('images.paint', {}, _ANY),
    'records': ('images.build', {}, _ANY),
    'few records': ('images.build_few', {}, _ANY),
    'preprocessed': ('images.write', {}, _ANY),
    'float graph': ('graphs.export', {'quantized': False}, _ANY),
    'qat graph': ('graphs.export', {'quantized': True}, _BOTH),
    'float model': ('graphs.convert', {'quantized': False}, _ANY),
    'qat model': ('graphs.convert', {'quantized': True}, _BOTH),
    'ptq model': ('graphs.quantize', {}, _PTQ),
}
# Each file follows its inputs.
_RECORDS = ('pictures', 'records')
_PREPROCESSED = _RECORDS + ('preprocessed',)
_FLOAT_MODEL = ('float graph', 'float model')
_QAT_MODEL = ('qat graph', 'qat model')
_PTQ_MODEL = _PREPROCESSED + ('float graph', 'ptq model')


def _lite_group(kind, title, files):
  """Returns the group of one TFLite file in every interpreter."""
  rows = [('1 thread', ('tf2', 'modern'), _LITE, {'model': kind, 'threads': 1}),
          # TensorFlow 2.2's interpreter has one thread.
          ('2 threads', ('modern',), _LITE, {'model': kind, 'threads': 2})]
  return Group('tflite_' + kind, 'TFLite interpreter, ' + title, 'image',
               files, rows)


GROUPS = (
    Group('float_step', 'Training step, float (documented flags)', 'step',
          (), [
              ('one-hot loss', ('tf1',), _TRAIN, _AS_REFERENCE),
              ('not fused', ('modern',), _TRAIN, {'fused': False}),
              ('suite', _BOTH, _TRAIN, {})]),
    Group('qat_step', 'Training step, quantization-aware (documented flags)',
          'step', (), [
              ('contrib, one-hot loss', ('tf1',), _TRAIN,
               dict(_AS_REFERENCE, quantization='contrib')),
              ('contrib', ('tf1',), _TRAIN, {'quantization': 'contrib'}),
              ('layers', _BOTH, _TRAIN, {'quantization': 'layers'}),
              ('layers, fused', ('tf1',), _TRAIN,
               {'quantization': 'layers', 'fused': True}),
              ('float, fused', _BOTH, _TRAIN, {'fused': True})]),
    Group('evaluation', 'Evaluation of a checkpoint', 'image',
          _RECORDS + ('float graph',), [
              ('forward pass', _BOTH, 'network.forward', {}),
              ('frozen graph', _BOTH, 'network.forward', {'frozen': True}),
              ('evaluation', _BOTH, 'network.evaluate', {})]),
    Group('ptq', 'Post-training quantization: calibration and conversion',
          'image', _PREPROCESSED + _FLOAT_MODEL, [
              ('calibration', _PTQ, 'graphs.calibrate', {}),
              ('calibration, an image more', _PTQ, 'graphs.calibrate_more',
               {}),
              ("TensorFlow's calibrator, an image more", ('modern',),
               'graphs.calibrate_more', {'calibrator': 'tensorflow'}),
              ('a pass of the kernels that it runs', _PTQ,
               'graphs.predict_as_calibrated', {})]),
    _lite_group('float', 'float file', _FLOAT_MODEL),
    _lite_group('ptq', 'file quantized after training', _PTQ_MODEL),
    _lite_group('qat', 'quantization-aware file', _QAT_MODEL),
    Group('tflite_memory', 'TFLite evaluation script, float file', 'image',
          _PREPROCESSED + _FLOAT_MODEL, [
              ('few images', ('modern',), 'scripts.evaluate_tflite',
               {'images': 'few'}),
              ('many images', ('modern',), 'scripts.evaluate_tflite',
               {'images': 'many'})]),
    Group('preprocessing', 'gen_preprocessed_data.py', 'image', _RECORDS, [
              ('one at a time', _BOTH, 'images.preprocess_one_by_one', {}),
              ('suite', _BOTH, 'images.preprocess', {})]),
    Group('records', 'build_ade20k_data.py', 'image', ('pictures',),
          [('suite', _BOTH, 'images.build_again', {})]),
    Group('start', 'Whole scripts that do little', 'run',
          ('few records', 'float graph'), [
              ('eval.py, 2 images', _BOTH, 'scripts.start_evaluation', {}),
              ('train.py, 1 step', _BOTH, 'scripts.start_training', {})]),
    Group('cores', 'Training step, float, on one core and on two', 'step',
          (), [
              ('1 core', ('modern',), _TRAIN, {'cores': 1}),
              ('2 cores', ('modern',), _TRAIN, {'cores': 2})]),
    Group('hosts', 'Training by several processes that share this machine',
          'image', _RECORDS, [
              ('processes: {}'.format(hosts), ('modern',),
               'scripts.train_on_hosts', {'hosts': hosts})
              for hosts in (1, 2)]),
    Group(GPU, 'Training step on a GPU', 'step', (), [
              ('{}, batch {}'.format(name, batch), ('modern',),
               'network.gpu_train_step', dict(settings, batch=batch))
              for name, settings in (
                  ('float', {}), ('float, 16 bits', {'mixed': True}),
                  ('quantization-aware', {'quantization': 'layers'}))
              for batch in (4, 16, 64)]),
)

GOALS = (
    Goal('evaluation/tf1/evaluation', UNDER, 1.15,
         'evaluation/tf1/forward pass'),
    Goal('evaluation/modern/evaluation', UNDER, 1.05,
         'evaluation/modern/frozen graph'),
    Goal('float_step/tf1/suite', AT_LEAST, 1.15, 'float_step/tf1/one-hot loss'),
    Goal('float_step/modern/suite', AT_LEAST, 2.8,
         'float_step/tf1/one-hot loss'),
    Goal('float_step/modern/suite', AT_LEAST, 1.3,
         'float_step/modern/not fused',
         reason='in traces, convolutions take 70 % of the time of the fused '
         'step and 60 % of that of the other, and fusing does not change them'),
    Goal('qat_step/modern/layers', UNDER, 1.15, 'qat_step/modern/float, fused',
         reason='in traces, rounding takes 5 % of the time, ranges 4 %, and '
         'the gradient of rounding 2 % more than that of ReLU6, in passes over '
         'memory that no kernel of TensorFlow joins (docs/scaling.md)'),
    Goal('qat_step/tf1/layers, fused', UNDER, 1.15,
         'qat_step/tf1/float, fused',
         reason='in a trace, the gradient of rounding takes 9 % of the time, '
         'in four passes over memory because TensorFlow 1.15 has no operation '
         'for it, that of ReLU6 2 %, and rounding 3 %'),
    Goal('qat_step/modern/layers', AT_LEAST, 2.5,
         'qat_step/tf1/contrib, one-hot loss'),
    Goal('ptq/modern/calibration, an image more', UNDER, 1.5,
         'ptq/modern/a pass of the kernels that it runs'),
    Goal('tflite_ptq/modern/2 threads', AT_LEAST, 300,
         'tflite_ptq/tf2/1 thread'),
    Goal('tflite_memory/modern/many images', UNDER, 1.05,
         'tflite_memory/modern/few images', of_memory=True),
    Goal('preprocessing/tf1/suite', AT_LEAST, 3,
         'preprocessing/tf1/one at a time'),
    Goal('preprocessing/modern/suite', AT_LEAST, 3,
         'preprocessing/modern/one at a time'),
)


def cases_of(group: Group, environments: Container[str]) -> List[Case]:
  """Lists the cases of a Group in the environments that exist."""
  return [Case(group.name, name, environment, work, settings)
          for name, wanted, work, settings in group.rows
          for environment in wanted if environment in environments]


def seconds_each(function: Callable[[], object], seconds: float,
                 items: float = 1,
                 before: Callable[[], object] = lambda: None) -> float:
  """Calls a function repeatedly, at least once.

  Args:
    function: takes no arguments.
    seconds: duration of the repetition.
    items: number of items in one call.
    before: called before each call; not timed.

  Returns:
    Wall-clock seconds for each item.
  """
  calls = 0
  passed = 0.0
  while not calls or passed < seconds:
    before()
    started = time.perf_counter()
    function()
    passed += time.perf_counter() - started
    calls += 1
  return passed / (calls * items)
