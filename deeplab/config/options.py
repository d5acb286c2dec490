"""Immutable options, one class per concern, to and from JSON.

Every object is a NamedTuple: build it with keywords, copy it with `_replace`.
Both check the values; see deeplab.config.fields. Flags get their help, defaults
and bounds from these classes.
"""
import re
from typing import Any, Dict, NamedTuple, Optional, Tuple, Type, TypeVar

from deeplab import constants
from deeplab import errors
from deeplab.config import label_map as label_maps
from deeplab.config.fields import check_local
from deeplab.config.fields import definitions
from deeplab.config.fields import field
from deeplab.config.fields import options
from deeplab.config.fields import required
from deeplab.errors import InputError

OUTPUT_STRIDES = (8, 16, 32)
DECODER_OUTPUT_STRIDES = (4, 8, 16)
# Implementations of fake quantization; see deeplab.nets.quantize.
CONTRIB = 'contrib'
LAYERS = 'layers'
# Kinds of TFLite files made without calibration, and input types with it.
FLOAT = 'float'
QUANTIZATION_AWARE = 'qat'
INPUT_TYPES = ('float', 'uint8')
# Formats of an exported checkpoint.
FROZEN_GRAPH = 'frozen_graph'
SAVED_MODEL = 'saved_model'
ONNX = 'onnx'
# LoadGen's scenarios, numbers of queries, and runs.
SINGLE_STREAM = 'SingleStream'
OFFLINE = 'Offline'
QUICK = 'quick'
FULL = 'full'
BOTH = 'both'
PERFORMANCE = 'performance'
ACCURACY = 'accuracy'
# Environments to reproduce the published numbers in.
TENSORFLOW_1_2 = 'tf'
MODERN = 'modern'
# Naming schemes of preprocessed images.
NUMBERED = 'numbered'
MLPERF_APP = 'mlperf_app'
# Treatment of a record that cannot be used.
FAIL = 'fail'
SKIP = 'skip'

# --- Bounds ----------------------------------------------------------------

# Side of an image in pixels: constants.MAX_PIXELS is the area of such a square.
_LARGEST_SIDE = 8192
# A larger limit on the longer side, which then never applies, is allowed.
_LARGEST_RESIZE = 2 * _LARGEST_SIDE
# Sides of the network's feature maps at the smallest stride.
_LARGEST_MAP = _LARGEST_SIDE // min(OUTPUT_STRIDES)
# Labels have 8 bits.
_MOST_CLASSES = 256
# At this width, one separable layer has 64 million weights.
_MOST_CHANNELS = 8192
# A scaled image has this factor squared times as many pixels.
_LARGEST_SCALE = 16.0
_MOST_SCALES = 1000
# Threads, processes and hosts.
_MOST_WORKERS = 1024
# NumPy's and LoadGen's seeds.
_LARGEST_SEED = 2 ** 32 - 1
_LARGEST_LOADGEN_SEED = 2 ** 64 - 1

# A host by name or number ([::1] for IPv6), and a port.
_ADDRESS = re.compile(r'([\w.-]+|\[[0-9a-fA-F:.]+\]):[1-9]\d{0,4}$')
_SIZE = 'HEIGHT,WIDTH, for example 512,512'
_Options = TypeVar('_Options')

# --- Fields of several classes ---------------------------------------------


def _seed(default, text):
  return field(default, text, most=_LARGEST_SEED)


def _workers(what):
  return field(0, what + '; 0: one for each processor.', most=_MOST_WORKERS)


def _loadgen_seed(default, text):
  return field(default, text + '; the default is that of MLPerf Inference '
               'v6.0, as LoadGen 6.0.17 has it.', most=_LARGEST_LOADGEN_SEED)


def _label_map(text):
  return field(None, 'Label map: file that assigns ids of labels to classes '
               'and names them; other ids are class 0, which is ignored. Not '
               'given: ' + text)


# Deviates: the reference has 513, with which its own evaluation fails.
_CROP_SIZE = field(
    (512, 512), 'HEIGHT,WIDTH of the input of the network, in pixels.', least=1,
    most=_LARGEST_SIDE, form=_SIZE)
_INPUT_SIZE = field(
    None, "HEIGHT,WIDTH of the input of a checkpoint's network, in pixels; not "
    'given: as trained. Files have a size of their own.', least=1,
    most=_LARGEST_SIDE, form=_SIZE)
_TRAINING_SEED = _seed(
    None, 'Seed of the initial values, the order of images, augmentation and '
    'dropout, also over interruptions; on more than one core sums differ in '
    'their last bits. None: different in every run.')
_STRICT_CHECKPOINT = field(
    False, 'Refuse a folder whose newest checkpoint cannot be read; not set: '
    'use the newest readable one and log a warning.')
_NAMES_OF_CLASSES = field(
    None, 'Label map with the names of the classes; none: the one stored with '
    'the model.')
_EXIF_ROTATION = field(
    True, 'Rotate pictures by their EXIF data, as viewers do. Data sets are '
    'read as they are stored.')
_MODEL = required(
    'Model, such as a checkpoint, a frozen graph or a TFLite file; its kind is '
    'detected.')
_TEST_DIR = required('Folder with the images, or the folder above it.')
_VAL_LABEL_DIR = field(
    None, 'Folder with the annotations; none: annotations/ beside the images.')
_INPUT_NODE = field(constants.INPUT_NODE, 'Input node, for images in [-1, 1].')
_OUTPUT_NODE = field(constants.OUTPUT_NODE, 'Output node, with the labels.')
_GRAPH_DEF = required('Frozen graph to convert, as export_model.py writes it.')
_OUT_TFLITE = required('TFLite file to write.')
_NUM_THREADS = field(
    1, 'Threads of one interpreter, if it supports several.', least=1,
    most=_MOST_WORKERS)
_ALL_THREADS = field(
    0, 'Threads of a TFLite interpreter, if it supports several; 0: one for '
    'each processor.', most=_MOST_WORKERS)


def _given(options, *names):
  """Returns several fields as options for messages."""
  return [errors.option(name, getattr(options, name)) for name in names]


def _expect(holds, template, *values):
  if not holds:
    raise InputError(template, *values)


# --- The network -----------------------------------------------------------


@options
class ModelOptions(NamedTuple):
  """The network's structure.

  Defaults are the published model's, except that there is no decoder: the
  documented commands request it with a flag.
  """
  num_classes: int = field(
      constants.NUM_CLASSES, 'Number of classes, including the ignored class.',
      least=2, most=_MOST_CLASSES)
  crop_size: Tuple[int, int] = _CROP_SIZE
  output_stride: int = field(
      16, 'Input size over the size of the last map: 8, 16 or 32.',
      choices=OUTPUT_STRIDES)
  decoder_output_stride: Tuple[int, ...] = field(
      (), 'Strides at which the decoder refines, such as 4; none: no decoder.',
      choices=DECODER_OUTPUT_STRIDES)
  atrous_rates: Tuple[int, ...] = field(
      (), 'Rates of the atrous branches of ASPP; none, as published.', least=1,
      most=_LARGEST_MAP)
  depth_multiplier: float = field(
      1.0, "Width of the backbone, relative to the paper's.", above=0, most=16)
  divisible_by: Optional[int] = field(
      None, 'Channel counts of the backbone are multiples of this; not given: '
      '8 at a depth multiplier of 1, else 1.', least=1, most=_MOST_CHANNELS)
  aspp_convs_filters: int = field(
      256, 'Channels of the branches of ASPP, and of their projection.',
      least=1, most=_MOST_CHANNELS)
  aspp_with_concat_projection: bool = field(
      True, 'Project the joined branches of ASPP by a 1x1 convolution (and '
      'dropout).')
  aspp_with_separable_conv: bool = field(
      True, 'Use separable convolutions in the atrous branches of ASPP.')
  image_pooling_crop_size: Optional[Tuple[int, int]] = field(
      None, 'HEIGHT,WIDTH that the pooling of ASPP covers, in input pixels; '
      'not given: the crop size.', least=1, most=_LARGEST_SIDE, form=_SIZE)
  image_pooling_stride: Tuple[int, int] = field(
      (1, 1), 'Strides of the pooling of ASPP, in cells of the map.', least=1,
      most=_LARGEST_MAP, form='VERTICAL,HORIZONTAL, for example 1,1')
  decoder_filters: int = field(
      256, 'Channels of the decoder.', least=1, most=_MOST_CHANNELS)
  decoder_use_separable_conv: bool = field(
      True, 'Use separable convolutions in the decoder.')
  decoder_use_sum_merge: bool = field(
      False, 'Merge maps in the decoder by sum (one convolution), not by '
      'concatenation (two).')
  decoder_output_is_logits: bool = field(
      False, "Take the decoder's output, with a channel a class, as the "
      'logits.')
  batch_norm_decay: float = field(
      0.9997, 'Decay of the moving averages of batch norm after the backbone.',
      below=1)
  use_bounded_activation: bool = field(
      False, 'Use ReLU6, not ReLU, after the backbone.')
  prediction_with_upsampled_logits: bool = field(
      True, 'Resize the logits before the arg max, not the labels after it.')
  quantize_delay_step: int = field(
      -1, 'Step from which training rounds weights and activations to 8 bits '
      'and freezes batch norm. In evaluation and export, any value from 0 on '
      'means that the checkpoint was trained like this. Below 0: float.',
      least=-2 ** 31)
  fake_quant: Optional[str] = field(
      None, "Implementation of fake quantization: TensorFlow 1.15's rewrite, "
      "as in the reference, or the suite's own layers, which are faster; both "
      'make the same variables. Not given: the rewrite if available.',
      choices=(CONTRIB, LAYERS))
  label_map: Optional[label_maps.LabelMap] = field(
      None, 'Label map of the classes; not given: ADE20K, if the number fits.')

  @property
  def is_quantized(self) -> bool:
    """Whether the network has fake quantization."""
    return self.quantize_delay_step >= 0

  @property
  def classes(self) -> label_maps.LabelMap:
    """Names and colours of the classes; see label_map.of_model."""
    return label_maps.of_model(self.num_classes, self.label_map)

  def with_classes(self, classes: label_maps.LabelMap) -> 'ModelOptions':
    """Returns options of the same network with these classes.

    ADE20K leaves the options unchanged.
    """
    if classes == label_maps.ADE20K:
      return self
    return self._replace(num_classes=classes.num_classes, label_map=classes)

  def _check(self):
    classes, crop_size, stride, pooled, is_logits = _given(
        self, 'num_classes', 'crop_size', 'output_stride',
        'image_pooling_crop_size', 'decoder_output_is_logits')
    if self.label_map:
      _expect(self.label_map.num_classes == self.num_classes,
              '{}: expected {}, as many as the label map has', classes,
              self.label_map.num_classes)
    for refined in self.decoder_output_stride:
      _expect(refined < self.output_stride, '{}: expected less than {}',
              errors.option('decoder_output_stride', refined), stride)
    _expect(min(self.crop_size) >= self.output_stride,
            '{}: expected at least {} a side', crop_size, stride)
    if self.image_pooling_crop_size:
      _expect(self.image_pooling_crop_size[0] <= self.crop_size[0] and
              self.image_pooling_crop_size[1] <= self.crop_size[1],
              '{}: expected at most {}', pooled, crop_size)
    _expect(not self.decoder_output_is_logits or self.decoder_output_stride,
            '{}: expected a decoder; add {}', is_logits,
            errors.option('decoder_output_stride', 4))


@options
class PreprocessOptions(NamedTuple):
  """Resizing, cropping and padding to the network's input size."""
  crop_size: Tuple[int, int] = _CROP_SIZE
  min_resize_value: Optional[int] = field(
      None, 'Wanted length of the shorter side, in pixels; none: no resizing.',
      least=1, most=_LARGEST_RESIZE)
  max_resize_value: Optional[int] = field(
      None, 'Largest length of the longer side, in pixels; none: no limit.',
      least=1, most=_LARGEST_RESIZE)
  resize_factor: Optional[int] = field(
      None, 'Resized sides are multiples of this, plus one; none: any size.',
      least=1, most=_LARGEST_RESIZE)
  # Only training scales at random.
  min_scale_factor: float = field(
      0.5, 'Least factor of the random scaling.', above=0, most=_LARGEST_SCALE)
  max_scale_factor: float = field(
      2.0, 'Largest factor of the random scaling.', above=0,
      most=_LARGEST_SCALE)
  scale_factor_step_size: float = field(
      0.25, 'Step between factors; 0: any factor in the range.',
      most=_LARGEST_SCALE)

  def _check(self):
    low, high, step, least, limit, factor = _given(
        self, 'min_scale_factor', 'max_scale_factor', 'scale_factor_step_size',
        'min_resize_value', 'max_resize_value', 'resize_factor')
    span = self.max_scale_factor - self.min_scale_factor
    _expect(span >= 0, '{}: expected at most {}', low, high)
    _expect(span <= self.scale_factor_step_size * _MOST_SCALES or
            not self.scale_factor_step_size,
            '{}: expected 0, or a step that fits {} times between {} and {}',
            step, _MOST_SCALES, low, high)
    if self.min_resize_value is None:
      _expect(self.max_resize_value is None,
              '{} without {}: give both or neither', limit, least)
      return
    if self.max_resize_value is not None:
      _expect(self.max_resize_value >= self.min_resize_value,
              '{}: expected at least {}', limit, least)
    if self.resize_factor is not None:
      _expect(self.resize_factor <= self.min_resize_value,
              '{}: expected at most {}', factor, least)
      # Sides are rounded up, but clipped to the limit, which leaves 1 pixel.
      _expect(not self.max_resize_value == self.resize_factor > 1,
              '{}: expected less than {}', factor, limit)

  def geometry(self) -> str:
    """Returns a short description of resizing and padding, for reports."""
    if self.min_resize_value is None:
      resize = 'not resized'
    else:
      resize = 'resized to {}..{}, factor {}'.format(
          self.min_resize_value, self.max_resize_value or 'any',
          self.resize_factor or 'none')
    return '{}, padded to {}x{}'.format(
        resize, self.crop_size[0], self.crop_size[1])

  def to_json(self) -> Dict[str, Any]:
    """Returns the options of `geometry` as a dict that json can write."""
    return {name: value for name, value in self._asdict().items()
            if 'scale_factor' not in name}


# --- Data ------------------------------------------------------------------


@options
class DatasetOptions(NamedTuple):
  """Records to read, and their batches."""
  dataset_dir: str = required('Folder with the TFRecord shards.', remote=True)
  split: str = required('Split to read.', choices=constants.SPLITS)
  batch_size: int = field(1, 'Images in a batch.', least=1, most=4096)
  seed: Optional[int] = _TRAINING_SEED
  verify_records: bool = field(
      False, 'Verify the checksums of the shards, and decode every record, '
      'before any is used.')
  on_bad_record: str = field(
      FAIL, 'Treatment of records that cannot be used: fail names the record; '
      'skip leaves them out and logs their number. With skip, all records are '
      'decoded once before any is used.', choices=(FAIL, SKIP))
  label_map: Optional[str] = _label_map(
      'the map of the records, or else of the trained network, or else '
      "ADE20K's first 31 ids.")


@options
class BuildOptions(NamedTuple):
  """Builds the shards of one split from folders of images and labels."""
  split: str = required('Split to write.', choices=constants.SPLITS)
  # Checked below, under the names that include the split.
  image_folder: str = required('Folder with the images.', remote=True)
  label_folder: str = required('Folder with their labels.', remote=True)
  output_dir: str = required(
      'Folder for the TFRecord shards; made if missing.', remote=True)
  image_format: Optional[str] = field(
      None, 'Refuse images of another format. Not given: accept all.',
      choices=('jpg', 'jpeg', 'png'))
  palette_labels: bool = field(
      False, 'Take the indices of palette labels as class ids.')
  label_map: Optional[str] = _label_map("ADE20K's first 31 ids.")
  skip_bad: bool = field(
      False, 'Leave out pairs that cannot be used, instead of refusing them '
      'all.')
  shuffle_seed: int = _seed(0, 'Seed of the order in which pairs are stored.')
  num_workers: int = _workers('Threads that check pairs')

  def _check(self):
    for name in ('image_folder', 'label_folder'):
      path = getattr(self, name)
      check_local(errors.option('{}_{}'.format(self.split, name), path), path)


@options
class PreprocessedOptions(NamedTuple):
  """Writes preprocessed images and annotations of records to a folder."""
  output_dir: str = required(
      'Folder in which images/ and annotations/ are made.')
  image_list: Optional[str] = field(
      None, 'File with the names of the only images to take, one a line, such '
      'as checkpoints/post_train_quant/ptq.txt; img_N is the one on line N, '
      'counted from 0.')
  layout: str = field(
      NUMBERED, 'Names of the files: numbered for img_7.png, as in the '
      'reference; mlperf_app for img_00000007.png. The MLPerf Mobile app pairs '
      'images and labels by their sorted paths.',
      choices=(NUMBERED, MLPERF_APP))
  manifest: Optional[str] = field(
      None, 'File for another copy of manifest.json, which maps each img_N to '
      'an image of the data set.')
  overwrite: bool = field(
      False, 'Replace the images that an earlier run wrote there.')
  num_workers: int = _workers('Threads that write images')


@options
class SyntheticOptions(NamedTuple):
  """A painted data set."""
  output_dir: str = field(
      './synthetic', 'Folder in which ADEChallengeData2016 is made.')
  train_images: int = field(40, 'Number of training pairs.', least=1)
  val_images: int = field(8, 'Number of validation pairs.', least=1)
  long_side: int = field(
      320, 'Longer side of the images, in pixels.', least=64,
      most=_LARGEST_SIDE)
  seed: int = _seed(0, 'Seed; the same seed makes the same pictures.')


# --- Training --------------------------------------------------------------


@options
class TrainOptions(NamedTuple):
  """Options for optimization, initialization and outputs of a training run."""
  train_logdir: str = required(
      'Folder for checkpoints and summaries.', in_utf8=True, remote=True)
  training_number_of_steps: int = field(
      30000, 'Global step to stop at.', least=1)
  tf_initial_checkpoint: Optional[str] = field(
      None, 'Checkpoint to start from: a prefix, any of its files, or a '
      'folder; none: from scratch.', in_utf8=True, remote=True)
  strict_checkpoint: bool = _STRICT_CHECKPOINT
  initialize_last_layer: bool = field(
      True, 'Restore the last layers from that checkpoint too.')
  last_layers_contain_logits_only: bool = field(
      False, 'Treat only the logits as last layers.')
  last_layer_gradient_multiplier: float = field(
      1.0, 'Factor of the gradients of the last layers.')
  optimizer: str = field(
      'momentum', 'Which optimizer.', choices=('momentum', 'adam'))
  momentum: float = field(0.9, 'Momentum.', below=1)
  adam_learning_rate: float = field(
      0.001, 'Constant learning rate of Adam; the policy is for momentum.')
  adam_epsilon: float = field(1e-8, 'Epsilon of Adam.', above=0)
  learning_policy: str = field(
      'poly', 'Schedule of the learning rate of momentum.',
      choices=('poly', 'step'))
  base_learning_rate: float = field(1e-4, 'First learning rate of momentum.')
  end_learning_rate: float = field(
      0.0, 'Last learning rate of the poly policy.')
  learning_power: float = field(0.9, 'Power of the poly policy.')
  decay_steps: float = field(0.0, 'Steps of the poly policy; 0: the whole run.')
  learning_rate_decay_step: int = field(
      2000, 'Steps of the step policy between two multiplications by its '
      'factor.', least=1)
  learning_rate_decay_factor: float = field(0.1, 'Factor of the step policy.')
  slow_start_step: int = field(
      0, 'Steps with the learning rate of the slow start.')
  slow_start_learning_rate: float = field(
      1e-4, 'Learning rate of the slow start.')
  weight_decay: float = field(
      4e-5, 'Factor of the L2 regularization of convolutions that are not '
      'depthwise.')
  fine_tune_batch_norm: bool = field(True, 'Run batch norm in training mode.')
  label_weights: Tuple[float, ...] = field(
      (), 'Loss weight of all classes; or one weight per class.')
  fused_step: Optional[bool] = field(
      None, 'Compute a step in fewer passes: fold frozen batch norm into the '
      'weights, and compute loss and gradient together. Results differ only by '
      'rounding. Not given: only with TensorFlow 2, and not with '
      'mixed_precision.')
  mixed_precision: bool = field(
      False, 'Compute in 16 bits on a GPU, in operations that permit it.')
  log_steps: int = field(50, 'Steps between two lines of the log.', least=1)
  save_interval_secs: int = field(1200, 'Seconds between checkpoints.')
  max_checkpoints_to_keep: int = field(
      5, 'Checkpoints that a run keeps; it removes older ones of its own.',
      least=1, most=1000)
  save_summaries_secs: int = field(600, 'Seconds between summaries.')
  save_summaries_images: bool = field(
      False, 'Put input, label and prediction into the summaries.')
  save_predictions_steps: int = field(
      0, 'Steps between pictures of images, labels and predictions side by '
      'side, for TensorBoard; 0: none.')
  profile_logdir: Optional[str] = field(
      None, 'Folder for timelines of a few steps; none: no profile.')
  seed: Optional[int] = _TRAINING_SEED

  def check_with(self, model: ModelOptions, *, batch_size: int,
                 replicas: int = 1) -> None:
    """Raises InputError if model or batch do not fit these options.

    Args:
      model: the network to train.
      batch_size: images in a batch, over all replicas.
      replicas: number of replicas of all hosts.
    """
    given = errors.option('batch_size', batch_size)
    _expect(batch_size % replicas == 0,
            '{}: expected a multiple of {}, the number of clones of all hosts',
            given, replicas)
    # Quantization from step 0 freezes batch norm for the whole run.
    trains_batch_norm = (
        self.fine_tune_batch_norm and model.quantize_delay_step != 0)
    _expect(not trains_batch_norm or batch_size >= 2 * replicas,
            '{}: expected at least {} with {} ({} or more is advised): at one '
            'image the pooled branch has a variance of 0 and the loss becomes '
            'NaN', given, 2 * replicas,
            errors.option('fine_tune_batch_norm', True), 12 * replicas)
    weights = self.label_weights
    _expect(len(weights) in (0, 1, model.num_classes),
            '{}: {} weights, expected one, or one for each of the {} classes',
            errors.option('label_weights', weights), len(weights),
            model.num_classes)


@options
class DistributionOptions(NamedTuple):
  """Devices and hosts of a training run."""
  num_clones: int = field(
      1, 'Replicas on this host, each with a shard of the batch and its own '
      'GPU; without a GPU, they share the processor.', least=1, most=64)
  cluster: Tuple[str, ...] = field(
      (), 'HOST:PORT of every host that trains, the same list on all hosts; '
      'none: only this host.')
  task: int = field(
      0, 'Index of this host in the cluster, from 0; task 0 saves.',
      most=_MOST_WORKERS)

  @property
  def replicas(self) -> int:
    """Number of replicas of all hosts."""
    return self.num_clones * max(1, len(self.cluster))

  def _check(self):
    cluster, task = _given(self, 'cluster', 'task')
    for address in self.cluster:
      _expect(_ADDRESS.match(address) and
              int(address.rpartition(':')[2]) <= 65535,
              '{}: expected HOST:PORT of each host, got "{}"', cluster, address)
      _expect(self.cluster.count(address) == 1, '{}: {} is there twice',
              cluster, address)
    if self.cluster:
      _expect(self.task < len(self.cluster),
              '{}: expected 0 to {}, as {} has {} hosts', task,
              len(self.cluster) - 1, errors.option('cluster'),
              len(self.cluster))
    else:
      _expect(self.task == 0, '{}: expected 0 without {}', task,
              errors.option('cluster'))


@options
class LaunchOptions(NamedTuple):
  """Starts several tasks on this machine."""
  hosts: int = field(
      2, 'Number of processes; each acts as one host.', least=1, most=64)


# --- Evaluation ------------------------------------------------------------


@options
class EvalOptions(NamedTuple):
  """Outputs of an evaluation."""
  eval_logdir: Optional[str] = field(
      None, 'Folder for TensorBoard events.', remote=True)
  report_json: Optional[str] = field(
      None, 'File for the report: scores, confusion matrix, circumstances.',
      remote=True)
  vis_dir: Optional[str] = field(
      None, 'Folder for a picture of images, labels and predictions.')
  # The picture is made in memory.
  vis_images: int = field(
      8, 'Number of images on that picture.', least=1, most=1000)


@options
class CheckpointEvalOptions(NamedTuple):
  """Checkpoints to evaluate, and the times between evaluations."""
  checkpoint_dir: str = required(
      'Folder to watch for checkpoints; or one checkpoint.', in_utf8=True,
      remote=True)
  interval_secs: int = field(
      300, 'Least number of seconds between two evaluations.')
  max_evaluations: int = field(0, 'Evaluations to stop after; 0: never.')
  timeout_secs: Optional[int] = field(
      None, 'Seconds without a new checkpoint to stop after; none: never.')
  reevaluate: bool = field(
      False, 'Evaluate a checkpoint again if it was evaluated into the same '
      'folder of events with the same options, instead of reusing its report. '
      'A single checkpoint, not a folder, is always evaluated.')
  strict_checkpoint: bool = _STRICT_CHECKPOINT


@options
class GraphEvalOptions(NamedTuple):
  """Exported graph to evaluate."""
  path: str = required(
      'Frozen graph to evaluate; or a SavedModel, which is a folder; or an '
      'ONNX file.')
  input_node: str = _INPUT_NODE
  output_node: str = _OUTPUT_NODE


@options
class TfliteEvalOptions(NamedTuple):
  """TFLite file to evaluate, its images and its interpreters."""
  net_file: str = required('TFLite file to evaluate.')
  test_dir: str = _TEST_DIR
  val_label_dir: Optional[str] = _VAL_LABEL_DIR
  is_float_input: Optional[bool] = field(
      None, 'Whether the input should be float; a file with another input is '
      'refused. Not given: either.')
  is_input_0_255: Optional[bool] = field(
      None, 'Range of the input. A float input gets [-1, 1] unless this is '
      'true; a quantized one always gets pixels of 0 to 255.')
  num_threads: int = _NUM_THREADS
  num_workers: int = _workers('Processes with an interpreter each')
  num_shards: int = field(
      1, 'Number of shards of the images; each is evaluated by its own run, '
      'on any machine.', least=1)
  shard_index: Optional[int] = field(
      None, 'Index of the shard that this run evaluates, from 0.')

  def _check(self):
    shards, index = _given(self, 'num_shards', 'shard_index')
    if self.shard_index is None:
      _expect(self.num_shards == 1, '{}: which of them is this run? Add {}',
              shards, errors.option('shard_index', 0))
    else:
      _expect(self.shard_index < self.num_shards, '{}: expected less than {}',
              index, shards)


@options
class MergeOptions(NamedTuple):
  """Merges the reports of shards."""
  report_json: str = required(
      'File for the report of all shards together.', remote=True)


# --- MLPerf ----------------------------------------------------------------


@options
class LoadgenOptions(NamedTuple):
  """Model, images and rules of LoadGen's runs."""
  model: str = required(
      'Model to run: a TFLite file, a frozen graph or a checkpoint.')
  output_dir: str = required(
      "Folder for LoadGen's logs and the summary; new, or empty.")
  test_dir: str = _TEST_DIR
  val_label_dir: Optional[str] = _VAL_LABEL_DIR
  scenario: str = field(
      SINGLE_STREAM, 'How queries are issued: SingleStream, one after the '
      'other, as MLPerf Mobile has it for this model; Offline, all at once.',
      choices=(SINGLE_STREAM, OFFLINE))
  mode: str = field(
      FULL, 'full: at least 1024 queries and 60 s, as the rules have it; '
      'quick: 128 queries and 10 s.', choices=(QUICK, FULL))
  run: str = field(
      BOTH, 'The runs to make; a result needs both.',
      choices=(BOTH, PERFORMANCE, ACCURACY))
  test01: bool = field(
      False, 'Make another performance run that logs some responses, and '
      'compare all their bytes with the accuracy run.')
  num_threads: int = _NUM_THREADS
  samples_in_memory: int = field(
      256, 'Images that LoadGen loads at a time; the rules require 256.',
      least=1)
  qsl_rng_seed: int = _loadgen_seed(
      2085463073848966840, 'Seed of the choice of images to load')
  sample_index_rng_seed: int = _loadgen_seed(
      2747215439041700203, 'Seed of the order of queries')
  schedule_rng_seed: int = _loadgen_seed(
      16159082839903944936, 'Seed of the times of queries')
  accuracy_log_rng_seed: int = field(
      1, 'Seed of the choice of responses to log for the comparison.',
      most=_LARGEST_LOADGEN_SEED)
  min_queries: Optional[int] = field(
      None, "Least number of queries; none: the mode's.", least=1)
  min_seconds: Optional[float] = field(
      None, "Least duration in seconds; none: the mode's.", above=0)

  def _check(self):
    _expect(not self.test01 or self.run == BOTH,
            '{}: expected {}, as it compares the two',
            errors.option('run', self.run), errors.option('run', BOTH))


@options
class ReproduceOptions(NamedTuple):
  """Reproduces the published numbers from downloads."""
  output_dir: str = field(
      './reproduced', 'Folder for downloads, records, models, reports and '
      'RESULTS.md. The same command resumes an interrupted run.')
  environment: str = field(
      TENSORFLOW_1_2, 'tf: TensorFlow 1.15 and 2.2, which the published '
      'numbers were made with; modern: 2.21.', choices=(TENSORFLOW_1_2, MODERN))
  zip: Optional[str] = field(
      None, 'Copy of ADEChallengeData2016.zip, instead of a download.')
  sample: Optional[str] = field(
      None, 'Folder with images/ and annotations/, training/ and validation/ '
      'in each: a few pairs, instead of ADE20K.')
  published: Optional[str] = field(
      None, 'Folder of the published files, as scripts/fetch_checkpoints.sh '
      'makes it. With a sample, its files are used unchanged; otherwise it is '
      'completed and verified.')

  def _check(self):
    _expect(not (self.zip and self.sample), '{} and {}: expected one of them',
            *_given(self, 'zip', 'sample'))


@options
class AccuracyLogOptions(NamedTuple):
  """A log of LoadGen or of the MLPerf Mobile app, and its images."""
  accuracy_log: str = required('The mlperf_log_accuracy.json to score.')
  test_dir: str = _TEST_DIR
  val_label_dir: Optional[str] = _VAL_LABEL_DIR


# --- Export and conversion -------------------------------------------------


@options
class ExportOptions(NamedTuple):
  """Exports a checkpoint as a frozen graph or in other formats."""
  checkpoint_path: str = required(
      'Checkpoint, or a folder whose newest checkpoint is used.',
      in_utf8=True, remote=True)
  export_path: str = required(
      'Folder for freeze.pb; or a file name that ends in .pb.')
  formats: Tuple[str, ...] = field(
      (FROZEN_GRAPH,), 'What to write, several with commas: frozen_graph, for '
      'freeze.pb; saved_model, for the folder freeze_saved_model, with that '
      'graph and a signature; onnx, for freeze.onnx.', fewest=1,
      choices=(FROZEN_GRAPH, SAVED_MODEL, ONNX))
  strict_checkpoint: bool = _STRICT_CHECKPOINT
  num_classes: Optional[int] = field(
      None, 'Expected number of classes, checked against the checkpoint; none: '
      'no check.', least=2, most=_MOST_CLASSES)
  inference_scales: Tuple[float, ...] = field(
      (1.0,), 'Scales of the input whose class probabilities are averaged.',
      above=0, most=_LARGEST_SCALE, fewest=1)
  add_flipped_images: bool = field(
      False, 'Average the probabilities of mirrored images too.')
  save_inference_graph: bool = field(
      False, 'Write the graph without weights too, as text.')
  preprocessing: Optional[PreprocessOptions] = field(
      None, "Preprocessing for the graph's input; written beside the graph.")


@options
class ConversionOptions(NamedTuple):
  """Converts a frozen graph to a TFLite file without calibration."""
  graph_def: str = _GRAPH_DEF
  out_tflite: str = _OUT_TFLITE
  mode: str = required(
      'float: no quantization; qat: of a graph exported with quantization.',
      choices=(FLOAT, QUANTIZATION_AWARE))
  quantized_input_stats: Tuple[float, float] = field(
      constants.QUANTIZED_INPUT_STATS, 'MEAN,DEVIATION of the uint8 input of '
      'mode qat, whose real value is (pixel - MEAN) / DEVIATION.', most=255,
      form='MEAN,DEVIATION, for example 128,128')
  input_node: str = _INPUT_NODE
  output_node: str = _OUTPUT_NODE

  def _check(self):
    # With less, the input's range is wider than the range of pixels; the
    # converter aborts if the scale is near 0.
    _expect(self.quantized_input_stats[1] >= 1,
            '{}: expected MEAN,DEVIATION with a deviation above 0 (1 or more)',
            *_given(self, 'quantized_input_stats'))


@options
class CalibrationOptions(NamedTuple):
  """Converts a frozen graph to a TFLite file, with calibration images."""
  dataset_dir: str = required(
      'Folder with the calibration images img_N.png, as '
      'gen_preprocessed_data.py writes it.')
  graph_def: str = _GRAPH_DEF
  out_tflite: str = _OUT_TFLITE
  input_type: str = required(
      'float for an input in [-1, 1], uint8 for pixels, as published.',
      choices=INPUT_TYPES)
  sample_num: int = field(
      constants.CALIBRATION_IMAGES, 'Number of calibration images; the first '
      'ones are taken.', least=1)
  input_node: str = _INPUT_NODE
  output_node: str = _OUTPUT_NODE


@options
class RebuildOptions(NamedTuple):
  """Rebuilds a checkpoint from a TFLite file."""
  tflite: str = required('TFLite file to rebuild from.')
  output_dir: str = required(
      'Folder for the checkpoint; must not hold one already.', in_utf8=True)
  batch_norm_seed: Optional[int] = _seed(
      None, 'Seed of random batch norm, compensated by the weights, to test '
      'folding; not given: batch norm is the identity.')


# --- Inspecting models -----------------------------------------------------


@options
class OverlayOptions(NamedTuple):
  """Lays predicted labels over pictures of any shape."""
  model: str = _MODEL
  pictures: str = required('A picture, or a folder of pictures: JPEG or PNG.')
  output_dir: str = required('Folder for the results; made if missing.')
  opacity: float = field(
      0.6, 'Weight of the colours of classes over the picture.', most=1)
  legend: bool = field(True, 'Put the legend below the picture.')
  save_labels: bool = field(
      False, 'Write class ids too, as a gray PNG of the same size.')
  label_map: Optional[str] = _NAMES_OF_CLASSES
  exif_rotation: bool = _EXIF_ROTATION
  skip_bad: bool = field(
      False, 'Leave out pictures that cannot be used, instead of refusing them '
      'all.')
  crop_size: Optional[Tuple[int, int]] = _INPUT_SIZE
  num_threads: int = _ALL_THREADS


@options
class ComparisonOptions(NamedTuple):
  """Compares models on the same images."""
  output_dir: str = required(
      'Folder for the page index.html, its charts and pictures as PNG, and '
      'comparison.json; that of an earlier comparison is replaced.')
  dataset_dir: Optional[str] = field(
      None, 'Folder with TFRecord shards to compare on.')
  split: str = field('val', 'Split of these.', choices=constants.SPLITS)
  test_dir: Optional[str] = field(
      None, 'Or: folder with images and annotations, as '
      'gen_preprocessed_data.py writes it.')
  pictures: Optional[str] = field(
      None, 'Or: a picture or a folder of pictures, without labels.')
  resize_factor: int = field(
      1, 'Resized sides are multiples of this, plus one: 1 as in the app, 16 '
      'as eval.py is documented. Folders of PNG files are as they are.',
      least=1, most=_LARGEST_RESIZE)
  label_map: Optional[str] = _NAMES_OF_CLASSES
  exif_rotation: bool = _EXIF_ROTATION
  max_images: int = field(
      0, 'Number of images to take, the first ones; 0: all.')
  most_different: int = field(
      12, 'Number of images to show: those on which the models differ most.',
      most=200)
  resamples: int = field(
      1000, 'Number of bootstrap samples of images for intervals.', least=10,
      most=10 ** 5)
  seed: int = _seed(0, 'Seed of the bootstrap.')
  crop_size: Optional[Tuple[int, int]] = _INPUT_SIZE
  num_threads: int = _ALL_THREADS


@options
class InspectionOptions(NamedTuple):
  """Inspects a model."""
  model: str = _MODEL
  other: Optional[str] = field(
      None, 'Another model, to be compared with it tensor by tensor.')
  report_json: Optional[str] = field(None, 'File for all numbers.')
  test_dir: Optional[str] = field(
      None, 'Folder with images, as gen_preprocessed_data.py writes it, on '
      'which the share of clipped values is measured (LiteRT).')
  sample_num: int = field(
      8, 'Number of these images; the first ones are taken.', least=1)
  crop_size: Optional[Tuple[int, int]] = _INPUT_SIZE


# --- JSON ------------------------------------------------------------------


def to_json(options: NamedTuple) -> Dict[str, Any]:
  """Returns options as a dict that json can write.

  It lacks a label map of None, because earlier releases lack the field.
  """
  content = dict(options._asdict())
  label_map = content.pop('label_map', None)
  if isinstance(label_map, label_maps.LabelMap):
    content['label_map'] = label_map.to_json()
  elif label_map is not None:
    content['label_map'] = label_map
  return content


def from_json(cls: Type[_Options], content: Any) -> _Options:
  """Builds options of class cls from a dict that was read from JSON.

  Raises:
    InputError: the content is not a dict of fields of cls, or a value is bad.
  """
  _expect(isinstance(content, dict), 'expected a dict of ' + cls.__name__)
  unknown = sorted(set(content) - set(definitions(cls)))
  _expect(not unknown, 'unknown {} {}: written by another version?',
          cls.__name__, ', '.join(unknown))
  if cls is ModelOptions and content.get('label_map') is not None:
    content = dict(
        content, label_map=label_maps.from_json(content['label_map']))
  return cls(**content)
