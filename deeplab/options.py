"""Immutable, validated options, one object a concern, to and from JSON.

Every object is a NamedTuple: build it with keywords, copy it with `_replace`.
`validate` raises InputError with the flag's name, the value received and
what was expected.
"""
from typing import NamedTuple, Optional, Tuple

from deeplab import contract
from deeplab.errors import InputError

OUTPUT_STRIDES = (8, 16, 32)
DECODER_OUTPUT_STRIDES = (4, 8, 16)
# Who puts fake quantization into the network; see deeplab.nets.quantize.
CONTRIB = 'contrib'
LAYERS = 'layers'


class ModelOptions(NamedTuple):
  """The network's structure.

  Defaults are the published model's, but for the decoder, which the documented
  commands ask for with a flag.
  """
  # Number of classes, the ignored class 0 among them.
  num_classes: int = contract.NUM_CLASSES
  # (height, width) of the network's input, in pixels.
  crop_size: Tuple[int, int] = (512, 512)
  # Input size divided by the size of the backbone's last map: 8, 16 or 32.
  output_stride: int = 16
  # Strides at which the decoder refines, such as (4,); () for no decoder.
  decoder_output_stride: Tuple[int, ...] = ()
  # Rates of the atrous branches of ASPP; () for none, as published.
  atrous_rates: Tuple[int, ...] = ()
  # Width of the backbone, relative to the paper's.
  depth_multiplier: float = 1.0
  # Channel counts of the backbone are multiples of this; None: 8 at
  # depth_multiplier 1, else 1.
  divisible_by: Optional[int] = None
  # Channels of each ASPP branch and of their projection.
  aspp_convs_filters: int = 256
  # Project the concatenated branches with a 1x1 convolution (and dropout).
  aspp_with_concat_projection: bool = True
  # Atrous branches are depthwise separable.
  aspp_with_separable_conv: bool = True
  # (height, width) the image-level pooling covers, in input pixels; None:
  # the crop size.
  image_pooling_crop_size: Optional[Tuple[int, int]] = None
  # Stride of the image-level pooling, in feature cells.
  image_pooling_stride: Tuple[int, int] = (1, 1)
  # Channels of the decoder's convolutions.
  decoder_filters: int = 256
  # The decoder's convolutions are depthwise separable.
  decoder_use_separable_conv: bool = True
  # Merge features by sum (one convolution) instead of concatenation (two).
  decoder_use_sum_merge: bool = False
  # The decoder's output has num_classes channels and is taken as logits.
  decoder_output_is_logits: bool = False
  # Decay of the moving averages of batch norm after the backbone.
  batch_norm_decay: float = 0.9997
  # ReLU6 instead of ReLU after the backbone.
  use_bounded_activation: bool = False
  # Resize logits, then take the arg max; False: the other way round.
  prediction_with_upsampled_logits: bool = True
  # Training rounds weights and activations to 8 bits from this step on, and
  # freezes batch norm then; evaluation and export round. Below 0: float.
  quantize_delay_step: int = -1
  # CONTRIB or LAYERS, which make the same variables; None: CONTRIB where this
  # TensorFlow has it, as the reference does.
  fake_quant: Optional[str] = None

  @property
  def is_quantized(self):
    """Whether the network has fake quantization."""
    return self.quantize_delay_step >= 0

  def validate(self):
    """Returns self, or raises InputError naming the flag at fault."""
    if self.output_stride not in OUTPUT_STRIDES:
      raise InputError('--output_stride={}: expected 8, 16 or 32'.format(
          self.output_stride))
    for stride in self.decoder_output_stride:
      if stride not in DECODER_OUTPUT_STRIDES or stride >= self.output_stride:
        raise InputError(
            '--decoder_output_stride={}: expected 4, 8 or 16, less than '
            '--output_stride={}'.format(stride, self.output_stride))
    if self.num_classes < 2:
      raise InputError('--num_classes={}: expected at least 2'.format(
          self.num_classes))
    if self.depth_multiplier <= 0:
      raise InputError('--depth_multiplier={}: expected more than 0'.format(
          self.depth_multiplier))
    if min(self.crop_size) < self.output_stride:
      raise InputError(
          'crop size {}x{}: expected at least --output_stride={} a side'.format(
              self.crop_size[0], self.crop_size[1], self.output_stride))
    pooled = self.image_pooling_crop_size
    if pooled and (pooled[0] > self.crop_size[0] or
                   pooled[1] > self.crop_size[1]):
      raise InputError(
          '--image_pooling_crop_size={},{}: expected at most the crop size, '
          '{},{}'.format(*(tuple(pooled) + tuple(self.crop_size))))
    if self.decoder_output_is_logits and not self.decoder_output_stride:
      raise InputError(
          '--decoder_output_is_logits=true: expected a decoder; add '
          '--decoder_output_stride=4')
    if self.fake_quant not in (None, CONTRIB, LAYERS):
      raise InputError('--fake_quant={}: expected {} or {}'.format(
          self.fake_quant, CONTRIB, LAYERS))
    return self


class PreprocessOptions(NamedTuple):
  """From a decoded image to the network's input size."""
  # (height, width) images are padded or cropped to, in pixels.
  crop_size: Tuple[int, int] = (512, 512)
  # Wanted length of the shorter side, in pixels; None: no resizing.
  min_resize_value: Optional[int] = None
  # Largest length of the longer side, in pixels; None: no limit.
  max_resize_value: Optional[int] = None
  # Resized sides are multiples of this, plus one; None: any size.
  resize_factor: Optional[int] = None
  # Random scaling in training: range and step of the factor; step 0 draws
  # uniformly from the range.
  min_scale_factor: float = 1.0
  max_scale_factor: float = 1.0
  scale_factor_step_size: float = 0.0

  def validate(self):
    """Returns self, or raises InputError naming the flag at fault."""
    for name in ('min_resize_value', 'max_resize_value', 'resize_factor'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise InputError('--{}={}: expected at least 1'.format(name, value))
    if self.max_resize_value is not None and self.min_resize_value is None:
      raise InputError('--max_resize_value={} without --min_resize_value: '
                       'give both or neither'.format(self.max_resize_value))
    if not 0 < self.min_scale_factor <= self.max_scale_factor:
      raise InputError(
          '--min_scale_factor={}, --max_scale_factor={}: expected '
          '0 < min <= max'.format(self.min_scale_factor, self.max_scale_factor))
    if self.scale_factor_step_size < 0:
      raise InputError('--scale_factor_step_size={}: expected 0 or more'.format(
          self.scale_factor_step_size))
    return self

  def geometry(self):
    """Describes resizing and padding in a few words, for reports."""
    if self.min_resize_value is None:
      resize = 'not resized'
    else:
      resize = 'resized to {}..{}, factor {}'.format(
          self.min_resize_value, self.max_resize_value or 'any',
          self.resize_factor or 'none')
    return '{}, padded to {}x{}'.format(
        resize, self.crop_size[0], self.crop_size[1])


class DatasetOptions(NamedTuple):
  """Which records are read, and how they are batched."""
  # Folder with the shards.
  dataset_dir: str
  # 'train' or 'val'.
  split: str
  # Images in a batch.
  batch_size: int = 1
  # Seed of shuffling and augmentation; None: another order every time.
  seed: Optional[int] = None

  def validate(self):
    """Returns self, or raises InputError naming what is at fault."""
    if self.split not in contract.SPLITS:
      raise InputError('split {}: expected one of {}'.format(
          self.split, ', '.join(contract.SPLITS)))
    if self.batch_size < 1:
      raise InputError('batch size {}: expected at least 1'.format(
          self.batch_size))
    return self


class BuildOptions(NamedTuple):
  """From folders of images and labels to the shards of one split."""
  # 'train' or 'val'.
  split: str
  # Folders with the images and with their labels.
  image_folder: str
  label_folder: str
  # Folder for the shards; made where missing.
  output_dir: str
  # 'jpg', 'jpeg' or 'png': refuse images of another format; None: accept all.
  image_format: Optional[str] = None
  # Take the indices of palette labels as class ids.
  palette_labels: bool = False
  # Leave out pairs that cannot be used, instead of refusing them all.
  skip_bad: bool = False
  # Seed of the order of pairs.
  shuffle_seed: int = 0
  # Threads that check pairs; 0: one for each processor.
  num_workers: int = 0

  def validate(self):
    """Returns self, or raises InputError naming what is at fault."""
    if self.split not in contract.SPLITS:
      raise InputError('split {}: expected one of {}'.format(
          self.split, ', '.join(contract.SPLITS)))
    return _with_workers(self)


class PreprocessedOptions(NamedTuple):
  """From records to a folder of preprocessed images and annotations."""
  # The folder; made where missing.
  output_dir: str
  # File with the names of the only images to take, one a line; None: all.
  image_list: Optional[str] = None
  # File for one more copy of the manifest; None: none.
  manifest: Optional[str] = None
  # Replace what an earlier run wrote there.
  overwrite: bool = False
  # Threads that write images; 0: one for each processor.
  num_workers: int = 0

  def validate(self):
    """Returns self, or raises InputError naming the flag at fault."""
    return _with_workers(self)


class TrainOptions(NamedTuple):
  """Optimization, initialization, and what a training run writes."""
  # Folder for checkpoints and summaries.
  train_logdir: str
  # The run ends at this global step.
  training_number_of_steps: int = 30000
  # Checkpoint the first step starts from; None: from scratch.
  tf_initial_checkpoint: Optional[str] = None
  # False: the last layers start from scratch all the same.
  initialize_last_layer: bool = True
  # True: "last layers" means the logits layer alone.
  last_layers_contain_logits_only: bool = False
  # Gradients of the last layers are multiplied by this.
  last_layer_gradient_multiplier: float = 1.0
  # 'momentum' or 'adam'.
  optimizer: str = 'momentum'
  momentum: float = 0.9
  # Constant learning rate of Adam; the policy below is for momentum.
  adam_learning_rate: float = 0.001
  adam_epsilon: float = 1e-8
  # 'poly' or 'step'.
  learning_policy: str = 'poly'
  base_learning_rate: float = 1e-4
  # 'poly': end value, power and length in steps (0: the whole run).
  end_learning_rate: float = 0.0
  learning_power: float = 0.9
  decay_steps: float = 0.0
  # 'step': every this many steps the rate is multiplied by this factor.
  learning_rate_decay_step: int = 2000
  learning_rate_decay_factor: float = 0.1
  # Constant rate for the first slow_start_step steps.
  slow_start_step: int = 0
  slow_start_learning_rate: float = 1e-4
  # L2 regularization of convolution weights that are not depthwise.
  weight_decay: float = 4e-5
  # Batch norm in training mode.
  fine_tune_batch_norm: bool = True
  # Loss weight of each class, or one for all; (): 1.
  label_weights: Tuple[float, ...] = ()
  # Steps between two lines of the log.
  log_steps: int = 50
  # Seconds between checkpoints, and between summaries.
  save_interval_secs: int = 1200
  save_summaries_secs: int = 600
  # Summaries with input, label and prediction as images.
  save_summaries_images: bool = False
  # Folder for a timeline of a few steps; None: no profile.
  profile_logdir: Optional[str] = None
  # Seed of initial values and dropout; None: different every time.
  seed: Optional[int] = None

  def validate(self, *, batch_size, num_classes):
    """Returns self, or raises InputError naming the flag at fault."""
    if self.training_number_of_steps < 1:
      raise InputError('--training_number_of_steps={}: expected at least '
                       '1'.format(self.training_number_of_steps))
    if self.log_steps < 1:
      raise InputError('--log_steps={}: expected at least 1'.format(
          self.log_steps))
    if self.fine_tune_batch_norm and batch_size < 2:
      raise InputError(
          '--fine_tune_batch_norm=true: expected --train_batch_size of at '
          'least 2 (12 or more is advised), got {}: at one image the pooled '
          'branch has a variance of 0 and the loss becomes NaN'.format(
              batch_size))
    if len(self.label_weights) not in (0, 1, num_classes):
      raise InputError(
          '--label_weights given {} times: expected once, or once for each of '
          'the {} classes'.format(len(self.label_weights), num_classes))
    return self


class EvalOptions(NamedTuple):
  """What becomes of the scores."""
  # Folder for TensorBoard events; None: none.
  eval_logdir: Optional[str] = None
  # File for the report; None: none.
  report_json: Optional[str] = None
  # Folder for a sheet of images, labels and predictions; None: none.
  vis_dir: Optional[str] = None
  # Number of images on that sheet.
  vis_images: int = 8


class TfliteEvalOptions(NamedTuple):
  """Which TFLite file is evaluated, on what, and how it is run."""
  # The .tflite file.
  net_file: str
  # Folder with the images, or the folder that holds it as `images`.
  test_dir: str
  # Folder with the annotations; None: `annotations` beside the images.
  val_label_dir: Optional[str] = None
  # The caller's idea of the input, held against the file's; None: none.
  is_float_input: Optional[bool] = None
  # Range of a float input, [0, 255] or [-1, 1]; None: the latter.
  is_input_0_255: Optional[bool] = None
  # Threads of one interpreter.
  num_threads: int = 1
  # Processes with an interpreter each; 0: one for each processor.
  num_workers: int = 0

  def validate(self):
    """Returns self, or raises InputError naming the flag at fault."""
    if self.num_threads < 1:
      raise InputError('--num_threads={}: expected at least 1'.format(
          self.num_threads))
    return _with_workers(self)


class ExportOptions(NamedTuple):
  """What the frozen graph computes, and where it goes."""
  # Folder for freeze.pb, or a path that ends in .pb.
  export_path: str
  # Scales of the input whose class probabilities are averaged.
  inference_scales: Tuple[float, ...] = (1.0,)
  # Average the probabilities of mirrored images too.
  add_flipped_images: bool = False
  # Write the graph without its weights as text, too.
  save_inference_graph: bool = False
  # How the graph's input is meant to be prepared; written beside the graph.
  preprocessing: Optional[PreprocessOptions] = None

  def validate(self):
    """Returns self, or raises InputError naming the flag at fault."""
    if not self.inference_scales or min(self.inference_scales) <= 0:
      raise InputError('--inference_scales={}: expected numbers above 0'.format(
          ','.join(map(str, self.inference_scales))))
    return self


def _with_workers(options):
  """Returns options, or raises InputError for a bad number of workers."""
  if options.num_workers < 0:
    raise InputError('--num_workers={}: expected 0 (one for each processor) '
                     'or more'.format(options.num_workers))
  return options


def to_json(options):
  """Returns options as a dict that json can write."""
  return dict(options._asdict())


def from_json(cls, fields):
  """Builds options of class cls from a dict read from JSON.

  Raises:
    InputError: where the dict has a field that cls does not know.
  """
  unknown = sorted(set(fields) - set(cls._fields))
  if unknown:
    raise InputError('unknown {} {}: written by another version?'.format(
        cls.__name__, ', '.join(unknown)))
  return cls(**{name: tuple(value) if isinstance(value, list) else value
                for name, value in fields.items()})
