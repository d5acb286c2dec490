"""Options of the network, and of the images that it gets."""
from typing import Any, Dict, NamedTuple, Optional, Tuple

from deeplab import constants
from deeplab import errors
from deeplab.config import label_map as label_maps
from deeplab.config.fields import field
from deeplab.config.fields import options
from deeplab.config.options.common import CROP_SIZE
from deeplab.config.options.common import LARGEST_RESIZE
from deeplab.config.options.common import LARGEST_SCALE
from deeplab.config.options.common import LARGEST_SIDE
from deeplab.config.options.common import MOST_CHANNELS
from deeplab.config.options.common import MOST_CLASSES
from deeplab.config.options.common import MOST_SCALES
from deeplab.config.options.common import SIZE
from deeplab.config.options.common import expect
from deeplab.config.options.common import given

OUTPUT_STRIDES = (8, 16, 32)
DECODER_OUTPUT_STRIDES = (4, 8, 16)
# Implementations of fake quantization; see deeplab.nets.quantize.
CONTRIB = 'contrib'
LAYERS = 'layers'
# Sides of the network's feature maps at the smallest stride.
_LARGEST_MAP = LARGEST_SIDE // min(OUTPUT_STRIDES)


@options
class ModelOptions(NamedTuple):
  """The network's structure.

  Defaults are the published model's, except that there is no decoder: the
  documented commands request it with a flag.
  """
  num_classes: int = field(
      constants.NUM_CLASSES, 'Number of classes, including the ignored class.',
      least=2, most=MOST_CLASSES)
  crop_size: Tuple[int, int] = CROP_SIZE
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
      '8 at a depth multiplier of 1, else 1.', least=1, most=MOST_CHANNELS)
  aspp_convs_filters: int = field(
      256, 'Channels of the branches of ASPP, and of their projection.',
      least=1, most=MOST_CHANNELS)
  aspp_with_concat_projection: bool = field(
      True, 'Project the joined branches of ASPP by a 1x1 convolution (and '
      'dropout).')
  aspp_with_separable_conv: bool = field(
      True, 'Use separable convolutions in the atrous branches of ASPP.')
  image_pooling_crop_size: Optional[Tuple[int, int]] = field(
      None, 'HEIGHT,WIDTH that the pooling of ASPP covers, in input pixels; '
      'not given: the crop size.', least=1, most=LARGEST_SIDE, form=SIZE)
  image_pooling_stride: Tuple[int, int] = field(
      (1, 1), 'Strides of the pooling of ASPP, in cells of the map.', least=1,
      most=_LARGEST_MAP, form='VERTICAL,HORIZONTAL, for example 1,1')
  decoder_filters: int = field(
      256, 'Channels of the decoder.', least=1, most=MOST_CHANNELS)
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
    classes, crop_size, stride, pooled, is_logits = given(
        self, 'num_classes', 'crop_size', 'output_stride',
        'image_pooling_crop_size', 'decoder_output_is_logits')
    if self.label_map:
      expect(self.label_map.num_classes == self.num_classes,
              '{}: expected {}, as many as the label map has', classes,
              self.label_map.num_classes)
    for refined in self.decoder_output_stride:
      expect(refined < self.output_stride, '{}: expected less than {}',
              errors.option('decoder_output_stride', refined), stride)
    expect(min(self.crop_size) >= self.output_stride,
            '{}: expected at least {} a side', crop_size, stride)
    if self.image_pooling_crop_size:
      expect(self.image_pooling_crop_size[0] <= self.crop_size[0] and
              self.image_pooling_crop_size[1] <= self.crop_size[1],
              '{}: expected at most {}', pooled, crop_size)
    expect(not self.decoder_output_is_logits or self.decoder_output_stride,
            '{}: expected a decoder; add {}', is_logits,
            errors.option('decoder_output_stride', 4))


@options
class PreprocessOptions(NamedTuple):
  """Resizing, cropping and padding to the network's input size."""
  crop_size: Tuple[int, int] = CROP_SIZE
  min_resize_value: Optional[int] = field(
      None, 'Wanted length of the shorter side, in pixels; none: no resizing.',
      least=1, most=LARGEST_RESIZE)
  max_resize_value: Optional[int] = field(
      None, 'Largest length of the longer side, in pixels; none: no limit.',
      least=1, most=LARGEST_RESIZE)
  resize_factor: Optional[int] = field(
      None, 'Resized sides are multiples of this, plus one; none: any size.',
      least=1, most=LARGEST_RESIZE)
  # Only training scales at random.
  min_scale_factor: float = field(
      0.5, 'Least factor of the random scaling.', above=0, most=LARGEST_SCALE)
  max_scale_factor: float = field(
      2.0, 'Largest factor of the random scaling.', above=0,
      most=LARGEST_SCALE)
  scale_factor_step_size: float = field(
      0.25, 'Step between factors; 0: any factor in the range.',
      most=LARGEST_SCALE)

  def _check(self):
    low, high, step, least, limit, factor = given(
        self, 'min_scale_factor', 'max_scale_factor', 'scale_factor_step_size',
        'min_resize_value', 'max_resize_value', 'resize_factor')
    span = self.max_scale_factor - self.min_scale_factor
    expect(span >= 0, '{}: expected at most {}', low, high)
    expect(span <= self.scale_factor_step_size * MOST_SCALES or
            not self.scale_factor_step_size,
            '{}: expected 0, or a step that fits {} times between {} and {}',
            step, MOST_SCALES, low, high)
    if self.min_resize_value is None:
      expect(self.max_resize_value is None,
              '{} without {}: give both or neither', limit, least)
      return
    if self.max_resize_value is not None:
      expect(self.max_resize_value >= self.min_resize_value,
              '{}: expected at least {}', limit, least)
    if self.resize_factor is not None:
      expect(self.resize_factor <= self.min_resize_value,
              '{}: expected at most {}', factor, least)
      # Sides are rounded up, but clipped to the limit, which leaves 1 pixel.
      expect(not self.max_resize_value == self.resize_factor > 1,
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
