"""Converts frozen graphs to TFLite, in float or 8 bits.

Ranges for 8 bits come from quantization-aware training or calibration images.
The result depends on the version of TensorFlow and its converter: 1.15 made the
published float and quantization-aware files, 2.2 the one with post-training
quantization.
"""
import contextlib
import logging
import os
import sys
import tempfile
import time
from typing import Any, Dict, Iterator, List, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab import errors
from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.data import png_folder
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_messages
from deeplab.export import calibration
from deeplab.models import frozen_graph
from deeplab.models import metadata
from deeplab.models import saved_model_file
from deeplab.models import tflite
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.system import parallel
from deeplab.system import progress
from deeplab.system import tf_errors

_LOG = logging.getLogger(__name__)
# Operators whose output has the range of their first input.
_SAME_RANGE = ('BatchToSpaceND', 'Identity', 'Reshape', 'ResizeBilinear',
               'SpaceToBatchND')


class ConversionResult(NamedTuple):
  """The file written."""
  path: str
  # Size in bytes.
  size: int
  # Number of tensors, and of operators by kind.
  tensors: int
  operations: Dict[str, int]
  # Descriptions, such as 'uint8 1x512x512x3, scale 0.0078125, ...'.
  input: str
  output: str
  seconds: float


def convert(options: options_lib.ConversionOptions) -> ConversionResult:
  """Converts a frozen graph that needs no calibration.

  Writes a description beside the TFLite file, with '.json' added to its name.

  Args:
    options: input, output and mode; the mode must match the graph.

  Raises:
    InputError: the graph does not match the mode, lacks a node, or cannot be
      converted.
  """
  started = time.time()
  _check_outputs(options.out_tflite, options.graph_def)
  quantized = options.mode == options_lib.QUANTIZATION_AWARE
  graph = _load(options, quantized=quantized)
  description: Dict[str, Any] = {'mode': options.mode}
  with _converting(options.graph_def), (
      _converter_with_signature(graph, options)) as converter:
    if quantized:
      stats = options.quantized_input_stats
      converter.inference_type = tf.uint8
      converter.quantized_input_stats = {options.input_node: stats}
      description['quantized_input_stats'] = stats
    elif options.mode != options_lib.FLOAT:
      # Without a representative dataset, DEFAULT quantizes only the weights.
      converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if options.mode == options_lib.FLOAT16:
      converter.target_spec.supported_types = [tf.float16]
    content = converter.convert()
  return _publish(content, options, description, started)


def post_training_quantize(
    options: options_lib.CalibrationOptions) -> ConversionResult:
  """Quantizes a float graph to 8 bits, with ranges from calibration images.

  Writes a description beside the TFLite file, with '.json' added to its name.

  Args:
    options: input, output and images.

  Raises:
    InputError: there are too few images, or they do not fit the graph; or the
      graph is quantization-aware, lacks a node, or cannot be converted.
  """
  started = time.time()
  _check_outputs(options.out_tflite, options.graph_def, options.dataset_dir)
  graph = _load(options, quantized=False)
  paths = _calibration_images(options, graph)
  calibrator, kind = calibration.converter_class(options.calibrator)
  converter = _converter(graph, options, kind)
  # With a representative dataset, DEFAULT also quantizes activations.
  converter.optimizations = [tf.lite.Optimize.DEFAULT]
  converter.representative_dataset = lambda: representative_data(paths)
  converter.inference_input_type = {
      'float': tf.float32, 'uint8': tf.uint8}[options.input_type]
  # Parity: mobile_open's post_training_quant.py sets it, although int32 labels
  # are never quantized.
  converter.inference_output_type = tf.uint8
  with _converting(options.graph_def):
    content = converter.convert()
  return _publish(content, options, {
      'mode': 'post-training quantization',
      'calibration': {'calibrator': calibrator,
                      'folder': os.path.dirname(paths[0]),
                      'images': [os.path.basename(path) for path in paths],
                      'sha1': metadata.sha1_of_files(*paths)}}, started)


# --- The graph -------------------------------------------------------------


def _load(options, *, quantized):
  """Loads the checked graph of the options as a tf.Graph."""
  path = options.graph_def
  graph_def = frozen_graph.read_graph_def(path)
  frozen_graph.check_nodes(path, graph_def, input_node=options.input_node,
                         output_node=options.output_node)
  is_quantized = frozen_graph.is_quantized(graph_def)
  if is_quantized and not quantized:
    raise InputError(
        '{}: quantization-aware graph (it has {} nodes): use '
        'scripts/convert_tflite.py {}', path, frozen_graph.FAKE_QUANTIZATION,
        option('mode', options_lib.QUANTIZATION_AWARE))
  if quantized and not is_quantized:
    raise InputError(
        '{}: float graph (it has no {} nodes), but {}: use {}, or export with '
        '{}', path, frozen_graph.FAKE_QUANTIZATION,
        option('mode', options.mode), option('mode', options_lib.FLOAT),
        option('quantize_delay_step', 0))
  graph = frozen_graph.import_graph(path, graph_def)
  shape = graph.get_tensor_by_name(options.input_node + ':0').shape
  if not shape.is_fully_defined() or shape.rank != 4 or (
      shape.as_list()[3] != constants.CHANNELS):
    raise InputError('{}: {} has shape {}, expected [batch, height, width, 3]',
                     path, option('input_node', options.input_node), shape)
  return graph


def _converter(graph, options, kind=tf.lite.TFLiteConverter):
  """Returns TensorFlow's converter for a graph."""
  source, labels = (graph.get_tensor_by_name(node + ':0')
                    for node in (options.input_node, options.output_node))
  # TensorFlow 1.15's converter quantizes concatenations itself.
  graph_def = (graph.as_graph_def() if tf.__version__.startswith('1.')
               else with_quantized_concatenations(graph))
  return kind(graph_def, [source], [labels])


@contextlib.contextmanager
def _converter_with_signature(graph, options):
  """Context with the converter of a graph, by way of a SavedModel if possible.

  TensorFlow 2.21 copies a SavedModel's signature to the TFLite file, which
  LiteRT's tools need. Older versions have no signatures, and only the older
  converter takes the ranges of quantization-aware graphs.
  """
  if options.mode == options_lib.QUANTIZATION_AWARE or (
      tf.__version__.startswith(('1.', '2.2.'))):
    yield _converter(graph, options)
    return
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, constants.SAVED_MODEL_FILE)
    with open(path, 'wb') as servable:
      servable.write(saved_model_file.content_of(
          graph.as_graph_def(), options.input_node, options.output_node))
    yield tf.compat.v2.lite.TFLiteConverter.from_saved_model(folder)


# --- Concatenations --------------------------------------------------------


def with_quantized_concatenations(graph: tf.Graph) -> tf.GraphDef:
  """Returns a graph in which ConcatV2 has the union of its inputs' ranges.

  TensorFlow 1.15's converter gives a concatenation of fake-quantized tensors
  the union of their ranges. 2.21's uses the range of the last one, and clips
  the others. Fake quantization to the union before a ConcatV2 makes 2.21 match
  1.15. The input's own range is repeated before it: otherwise 2.21 also uses
  the union's range for the operators before, such as a ResizeBilinear.

  Args:
    graph: a frozen graph; without fake quantization, nothing changes.
  """
  graph_def = graph.as_graph_def()
  nodes = {node.name: node for node in graph_def.node}
  for operation in graph.get_operations():
    union = _range_of(operation.outputs[0]) if (
        operation.type == 'ConcatV2') else None
    if not union:
      continue
    for position, tensor in enumerate(list(operation.inputs)[:-1]):
      own = _range_of(tensor)
      if own == union:
        continue
      inputs = nodes[operation.name].input
      for kind, limits in (('own', own), ('union', union)):
        fake_quant = graph_def.node.add(
            op='FakeQuantWithMinMaxArgs', input=[inputs[position]],
            name='{}/{}_range_{}'.format(operation.name, kind, position))
        fake_quant.attr['min'].f, fake_quant.attr['max'].f = limits
        inputs[position] = fake_quant.name
  return graph_def


def _range_of(tensor):
  """Returns (lowest, highest) of fake quantization; None: there is none."""
  kind, inputs = tensor.op.type, list(tensor.op.inputs)
  if kind == 'FakeQuantWithMinMaxVars':
    return tuple(float(tf.get_static_value(limit)) for limit in inputs[1:])
  if kind == 'FakeQuantWithMinMaxArgs':
    return tensor.op.get_attr('min'), tensor.op.get_attr('max')
  if kind in _SAME_RANGE:
    return _range_of(inputs[0])
  if kind == 'ConcatV2':
    ranges = [_range_of(each) for each in inputs[:-1]]
    if None not in ranges:
      return tuple(limit(ends) for limit, ends in zip((min, max), zip(*ranges)))
  return None


@contextlib.contextmanager
def _converting(path):
  """Context in which a converter runs; turns its errors into InputErrors."""
  _make_converter_program_findable()
  _LOG.info('converting %s', path)
  # TensorFlow 2.2 advertises its new converter in this logger. Others are not
  # silenced, because calibration logs its progress.
  adverts = logging.getLogger('absl')
  level = adverts.level
  adverts.setLevel(logging.WARNING)
  try:
    yield
  except OSError as error:
    # The converter exchanges files with another program.
    raise InputError(
        '{}: TensorFlow {} cannot write temporary files to {}: {}'.format(
            path, tf.__version__, tempfile.gettempdir(),
            errors.of_system(error)))
  except Exception as error:  # the converter's own error has no public name
    raise InputError('{}: TensorFlow {} cannot convert this graph: {}'.format(
        path, tf.__version__, tf_errors.why_not_converted(error)))
  finally:
    adverts.setLevel(level)


def _make_converter_program_findable():
  """Adds the folder of this Python interpreter to PATH.

  TensorFlow 1.15 and 2.2 search only PATH for their converter,
  toco_from_protos, which fails if the environment is not activated.
  """
  folder = os.path.dirname(sys.executable)
  search = os.environ.get('PATH', '').split(os.pathsep)
  if folder not in search:
    os.environ['PATH'] = os.pathsep.join([folder] + search)


# --- Calibration images ----------------------------------------------------


def _calibration_images(options, graph):
  """Lists the first images of a folder; checks their number, size and kind."""
  height, width = graph.get_tensor_by_name(
      options.input_node + ':0').shape.as_list()[1:3]
  paths = png_folder.image_paths(options.dataset_dir, 'dataset_dir')
  png_folder.check_manifest(paths)
  if len(paths) < options.sample_num:
    raise InputError(
        '{}: too few images: {}, expected at least {}',
        option('dataset_dir', options.dataset_dir), len(paths),
        option('sample_num', options.sample_num))
  paths = paths[:options.sample_num]

  def check(path):
    image = png_folder.read_image_file(path, path)
    if image.size != (width, height) or image.mode != 'RGB':
      raise InputError(
          '{}: {}x{} {}, expected {}x{} RGB, like the input of {} (height x '
          'width)', path, image.height, image.width, image.mode, height, width,
          option('graph_def'))

  unused_results, problems = parallel.check_all(
      check, paths, title='checking', unit='image')
  if problems:
    raise InputError('{}', some_messages(problems))
  return paths


def representative_data(paths: List[str]) -> Iterator[List[np.ndarray]]:
  """Yields [image] for each file: float32 [1, height, width, 3] in [-1, 1]."""
  for path in progress.shown(paths, 'calibrating', unit='image'):
    pixels = np.asarray(png_folder.read_image_file(path, path), np.float32)
    yield [constants.scale_as_tflite_scripts(pixels[np.newaxis])]


# --- The result ------------------------------------------------------------


def _check_outputs(path, graph_def, *images):
  """Checks early that both files can be written."""
  given = option('out_tflite', path)
  inputs = [graph_def, metadata.of_graph(graph_def), *images]
  files.check_outputs(given, path, inputs=inputs, example='freeze.tflite')
  files.check_outputs(given, metadata.of_tflite(path), inputs=inputs,
                      ours=checked_read.json_with('graph_def_sha1'))


def _publish(content, options, description, started):
  """Writes a model and its description; returns a ConversionResult."""
  path, graph_path = options.out_tflite, options.graph_def
  model = tflite.parse(content, path)
  source, labels = (model.tensors[places[0]]
                    for places in (model.inputs, model.outputs))
  result = ConversionResult(
      path=path, size=len(content), tensors=len(model.tensors),
      operations=model.operation_counts(), input=source.describe(),
      output=labels.describe(), seconds=time.time() - started)
  label_map = metadata.label_map_beside(graph_path)
  if label_map:
    description.update(label_maps.json_entry(label_map))
  description = dict(
      description, graph_def=graph_path,
      graph_def_sha1=metadata.sha1_of_files(graph_path),
      # The checksum shows whether a run was killed between two renames.
      sha1={os.path.basename(path): metadata.sha1(content)},
      tensorflow=tf.__version__, operations=result.operations,
      input=dict(metadata.input_contract(source.shape[1:3], source.dtype),
                 tensor=result.input),
      output=dict(metadata.output_contract(
          labels.shape, labels.dtype, label_map.names if label_map else ()),
                  tensor=result.output))
  # The model is renamed last.
  files.write_all({metadata.of_tflite(path): files.json_bytes(description),
                   path: content})
  return result


def summary_lines(result: ConversionResult) -> List[str]:
  """Returns human-readable lines about a ConversionResult."""
  return [
      '{}: {} bytes, {} operators, {} tensors, {:.0f} s'.format(
          result.path, result.size, sum(result.operations.values()),
          result.tensors, result.seconds),
      '  ' + ', '.join('{} {}'.format(count, kind) for kind, count
                       in sorted(result.operations.items())),
      '  from {} to {}'.format(result.input, result.output)]
