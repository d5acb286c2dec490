"""Options of export, conversion and rebuilding."""
from typing import NamedTuple, Optional, Tuple

from deeplab import constants
from deeplab.config.fields import field
from deeplab.config.fields import options
from deeplab.config.fields import required
from deeplab.config.options.common import GRAPH_DEF
from deeplab.config.options.common import INPUT_NODE
from deeplab.config.options.common import LARGEST_SCALE
from deeplab.config.options.common import MOST_CLASSES
from deeplab.config.options.common import OUT_TFLITE
from deeplab.config.options.common import OUTPUT_NODE
from deeplab.config.options.common import STRICT_CHECKPOINT
from deeplab.config.options.common import expect
from deeplab.config.options.common import given
from deeplab.config.options.common import seed_field
from deeplab.config.options.model import PreprocessOptions

# Kinds of TFLite files made without calibration, and input types with it.
FLOAT = 'float'
FLOAT16 = 'float16'
DYNAMIC = 'dynamic'
QUANTIZATION_AWARE = 'qat'
INPUT_TYPES = ('float', 'uint8')
# Calibrators, which measure the ranges of activations.
FAST = 'fast'
TENSORFLOW = 'tensorflow'
# Formats of an exported checkpoint.
FROZEN_GRAPH = 'frozen_graph'
SAVED_MODEL = 'saved_model'
ONNX = 'onnx'


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
  strict_checkpoint: bool = STRICT_CHECKPOINT
  num_classes: Optional[int] = field(
      None, 'Expected number of classes, checked against the checkpoint; none: '
      'no check.', least=2, most=MOST_CLASSES)
  inference_scales: Tuple[float, ...] = field(
      (1.0,), 'Scales of the input whose class probabilities are averaged.',
      above=0, most=LARGEST_SCALE, fewest=1)
  add_flipped_images: bool = field(
      False, 'Average the probabilities of mirrored images too.')
  save_inference_graph: bool = field(
      False, 'Write the graph without weights too, as text.')
  preprocessing: Optional[PreprocessOptions] = field(
      None, "Preprocessing for the graph's input; written beside the graph.")


@options
class ConversionOptions(NamedTuple):
  """Converts a frozen graph to a TFLite file without calibration."""
  graph_def: str = GRAPH_DEF
  out_tflite: str = OUT_TFLITE
  mode: str = required(
      'float: no quantization; float16: weights in 16 bits; dynamic: weights '
      'in 8 bits, the rest in float; qat: of a graph exported with '
      'quantization.',
      choices=(FLOAT, FLOAT16, DYNAMIC, QUANTIZATION_AWARE))
  quantized_input_stats: Tuple[float, float] = field(
      constants.QUANTIZED_INPUT_STATS, 'MEAN,DEVIATION of the uint8 input of '
      'mode qat, whose real value is (pixel - MEAN) / DEVIATION.', most=255,
      form='MEAN,DEVIATION, for example 128,128')
  input_node: str = INPUT_NODE
  output_node: str = OUTPUT_NODE

  def _check(self):
    # With less, the input's range is wider than the range of pixels; the
    # converter aborts if the scale is near 0.
    expect(self.quantized_input_stats[1] >= 1,
            '{}: expected MEAN,DEVIATION with a deviation above 0 (1 or more)',
            *given(self, 'quantized_input_stats'))


@options
class CalibrationOptions(NamedTuple):
  """Converts a frozen graph to a TFLite file, with calibration images."""
  dataset_dir: str = required(
      'Folder with the calibration images img_N.png, as '
      'gen_preprocessed_data.py writes it.')
  graph_def: str = GRAPH_DEF
  out_tflite: str = OUT_TFLITE
  input_type: str = required(
      'float for an input in [-1, 1], uint8 for pixels, as published.',
      choices=INPUT_TYPES)
  sample_num: int = field(
      constants.CALIBRATION_IMAGES, 'Number of calibration images; the first '
      'ones are taken.', least=1)
  calibrator: Optional[str] = field(
      None, 'What measures the ranges of activations: fast, which needs '
      'TensorFlow 2.21; or tensorflow, its own calibrator, which takes several '
      'times as long. Not given: fast, but tensorflow in TensorFlow 2.2, which '
      'made the published file.', choices=(FAST, TENSORFLOW))
  input_node: str = INPUT_NODE
  output_node: str = OUTPUT_NODE


@options
class RebuildOptions(NamedTuple):
  """Rebuilds a checkpoint from a TFLite file."""
  tflite: str = required('TFLite file to rebuild from.')
  output_dir: str = required(
      'Folder for the checkpoint; must not hold one already.', in_utf8=True)
  batch_norm_seed: Optional[int] = seed_field(
      None, 'Seed of random batch norm, compensated by the weights, to test '
      'folding; not given: batch norm is the identity.')
