"""Exports a checkpoint as a frozen graph, a SavedModel or an ONNX file."""
import collections
import logging
import os
from typing import Any, Dict, NamedTuple, Optional, Tuple

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.checkpoints import compatibility
from deeplab.checkpoints import find
from deeplab.checkpoints import restore as restore_lib
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.models import metadata
from deeplab.models import onnx_file
from deeplab.models import saved_model_file
from deeplab.nets import deeplab_v3
from deeplab.storage import checked_read
from deeplab.storage import files

_LOG = logging.getLogger(__name__)
_FORMATS = (options_lib.FROZEN_GRAPH, options_lib.SAVED_MODEL, options_lib.ONNX)


class ExportResult(NamedTuple):
  """The files written."""
  # Path of the first format, and of all formats in order.
  path: str
  paths: Tuple[str, ...]
  # Checkpoint prefix.
  checkpoint: str
  # Number of nodes, and how many of each type.
  nodes: int
  operations: Dict[str, int]
  # Size of all formats together, in bytes.
  size: int
  # Path of the graph without weights, if requested.
  inference_graph: Optional[str]


def export(model_options: options_lib.ModelOptions,
           options: options_lib.ExportOptions) -> ExportResult:
  """Freezes a checkpoint's network, from [-1, 1] images to int32 labels.

  Writes all requested files, or none. The graph has the nodes of
  deeplab.constants: the placeholder IMAGE_NODE, float32 [1, height, width, 3]
  in [-1, 1]; INPUT_NODE, its identity, which consumers feed; OUTPUT_NODE, int32
  [1, height, width].

  Args:
    model_options: the graph's image size is its crop size.
    options: input, output and scales.

  Raises:
    InputError: the checkpoint is missing or not of this network, the files
      cannot be written, or a package that a format needs is missing.
  """
  if options_lib.ONNX in options.formats:
    onnx_file.check_converter(option('formats', options_lib.ONNX))
  _check_scales(model_options, options)
  prefix = find.find(options.checkpoint_path, 'checkpoint_path',
                            strict=options.strict_checkpoint)
  model_options = compatibility.with_classes_of(
      prefix, model_options, options.num_classes)
  compatibility.check_options(prefix, model_options)
  named = _output_path(options.export_path)
  models = _model_paths(named, options.formats)
  inference_graph = os.path.join(
      os.path.dirname(named), constants.INFERENCE_GRAPH
  ) if options.save_inference_graph else None
  _check_outputs(options.export_path, named, models, inference_graph)
  _LOG.info('exporting %s', prefix)
  graph_def, frozen = _frozen(prefix, model_options, options)
  contents: Dict[str, Any] = {
      path: _content_of(frozen, kind, path, model_options)
      for kind, path in models.items()}
  size = sum(map(len, contents.values()))
  if inference_graph:
    contents[inference_graph] = str(graph_def).encode('utf-8')
  contents[metadata.of_graph(named)] = files.json_bytes(dict(
      _description(prefix, model_options, options),
      # The checksums show whether a run was killed between two renames.
      sha1={metadata.name_of(path): metadata.sha1(content)
            for path, content in contents.items()}))
  servable = models.get(options_lib.SAVED_MODEL)
  if servable:
    contents[servable] = {constants.SAVED_MODEL_FILE: contents[servable]}
  # The models are renamed last, when their other files exist.
  files.write_all(dict(reversed(list(contents.items()))))
  return ExportResult(
      path=list(models.values())[0], paths=tuple(models.values()),
      checkpoint=prefix, nodes=len(frozen.node),
      operations=operation_counts(frozen), size=size,
      inference_graph=inference_graph)


def _check_scales(model_options, options):
  """Checks that the network supports the input size at all scales."""
  for scale in options.inference_scales:
    try:
      deeplab_v3.at_scale(model_options, scale)
    except InputError as error:
      raise InputError('{}: at {} the input has {}', option(
          'inference_scales', options.inference_scales), scale, str(error))


def _output_path(export_path):
  """Resolves export_path to the path of the frozen graph."""
  if export_path.endswith('.pb'):
    return export_path
  if os.path.exists(export_path) and not os.path.isdir(export_path):
    raise InputError(
        '{}: {} is a file; expected a folder, or a path that ends in .pb',
        option('export_path', export_path), export_path)
  return os.path.join(export_path, constants.FROZEN_GRAPH)


def _model_paths(named, formats):
  """Returns a dict from format to path."""
  stem = os.path.splitext(named)[0]
  places = {options_lib.FROZEN_GRAPH: named,
            options_lib.SAVED_MODEL: stem + constants.SAVED_MODEL_SUFFIX,
            options_lib.ONNX: stem + constants.ONNX_SUFFIX}
  return {kind: places[kind] for kind in formats}


def _check_outputs(export_path, named, models, inference_graph):
  """Raises InputError if a file cannot be written; warns of older models."""
  given = option('export_path', export_path)
  description = metadata.of_graph(named)
  folder = models.get(options_lib.SAVED_MODEL)
  files.check_outputs(given, *[
      path for path in [inference_graph] + list(models.values())
      if path not in (None, folder)])
  files.check_outputs(given, description,
                      ours=checked_read.json_with('checkpoint', 'model'))
  if folder:
    saved_model_file.check_replaceable(folder)
  others = [path for kind, path in _model_paths(named, _FORMATS).items()
            if kind not in models and os.path.exists(path)]
  if others:
    _LOG.warning('%s: from an earlier export; the new %s does not describe it',
                 ' and '.join(others), description)


def _frozen(prefix, model_options, options):
  """Returns the graph of a checkpoint's network, and the graph with weights."""
  with tf.Graph().as_default() as graph:
    _build(model_options, options)
    compatibility.check_fits(prefix, {
        variable.op.name: variable.shape.as_list()
        for variable in tf.global_variables()})
    restore = restore_lib.restorer(tf.global_variables())
    graph_def = graph.as_graph_def()
    with tf.Session() as session:
      restore(session, prefix)
      frozen = tf.graph_util.convert_variables_to_constants(
          session, graph_def, [constants.OUTPUT_NODE])
    # Newer TensorFlows add attributes that 1.15 does not know. Stripping
    # default values makes the graph readable by every TensorFlow.
    return graph_def, tf.train.export_meta_graph(
        graph_def=frozen, strip_default_attrs=True).graph_def


def _content_of(graph_def, kind, path, model_options):
  """Converts a frozen graph to the content of a file in some format."""
  if kind == options_lib.FROZEN_GRAPH:
    # Serialization is made deterministic because attributes have no order.
    return graph_def.SerializeToString(deterministic=True)
  if kind == options_lib.SAVED_MODEL:
    return saved_model_file.content_of(
        graph_def, constants.IMAGE_NODE, constants.OUTPUT_NODE)
  return onnx_file.convert(
      path, graph_def, input_node=constants.IMAGE_NODE,
      output_node=constants.OUTPUT_NODE, classes=model_options.classes.names)


def _description(prefix, model_options, options):
  """Returns the JSON that describes the graph: its source, input, output."""
  content = {
      'checkpoint': prefix,
      'model': options_lib.to_json(model_options),
      'quantized': model_options.is_quantized,
      'input': dict(metadata.input_contract(model_options.crop_size),
                    node=constants.INPUT_NODE),
      'output': dict(metadata.output_contract(
          (1,) + model_options.crop_size, classes=model_options.classes.names),
                     node=constants.OUTPUT_NODE),
  }
  if options.preprocessing:
    content['preprocessing'] = options.preprocessing.to_json()
    content['geometry'] = options.preprocessing.geometry()
  return content


def _build(model_options, options):
  """Adds the graph to export to the default graph."""
  images = tf.placeholder(
      tf.float32, [1] + list(model_options.crop_size) + [3],
      name=constants.IMAGE_NODE)
  if options.inference_scales == (1.0,) and not options.add_flipped_images:
    deeplab_v3.predictions(
        deeplab_v3.logits(images, model_options), model_options)
  else:
    # Consumers feed this node, so it comes before the scales branch.
    images = tf.identity(images, constants.INPUT_NODE)
    deeplab_v3.multi_scale_predictions(
        images, model_options, scales=options.inference_scales,
        flip=options.add_flipped_images)


def operation_counts(graph_def: tf.GraphDef) -> Dict[str, int]:
  """Counts a graph's nodes by type."""
  return dict(collections.Counter(node.op for node in graph_def.node))
