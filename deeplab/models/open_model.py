"""Opens model files; the content of a file tells its kind.

TensorFlow is imported only for the kinds that need it: a TFLite file needs only
an interpreter.
"""
import logging
import os
import re
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple

from deeplab import constants
from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.models import interface
from deeplab.models import metadata
from deeplab.storage import files
from deeplab.storage import remote

_LOG = logging.getLogger(__name__)
EXPECTED = ('a checkpoint, a frozen graph, a SavedModel, an ONNX file or a '
            'TFLite file')
# Number of bytes read to recognize the kind of a file.
_BEGINNING = 8
_TFLITE_IDENTIFIER = b'TFL3'  # bytes 4 to 8
# The first field of a GraphDef: number 1 (`node`), with a length.
_GRAPH_DEF_NODE = b'\n'
# The first field of an ONNX file: number 1 (`ir_version`), an integer.
_ONNX_VERSION = b'\x08'
_CHECKPOINT_FILE = re.compile(r'\.(index|meta|data-\d{5}-of-\d{5})$')


class ModelFile(NamedTuple):
  """A model on disk of a known kind."""
  # interface.CHECKPOINT, FROZEN_GRAPH, SAVED_MODEL, ONNX or TFLITE.
  kind: str
  # A checkpoint prefix, the folder of a SavedModel, or a file.
  path: str


def find(path: str, name: str = 'model') -> ModelFile:
  """Finds the model at a path, and its kind.

  Args:
    path: a file; a SavedModel's folder, or the file in it; or a checkpoint
      prefix, one of its files, or a folder of checkpoints, from which the
      newest readable one is chosen.
    name: the option with this path, for messages.

  Raises:
    InputError: nothing is there, or it is no model.
    OSError: it cannot be read.
  """
  servable = saved_model_folder(path)
  if servable:
    return ModelFile(interface.SAVED_MODEL, servable)
  if os.path.isfile(path) and not _CHECKPOINT_FILE.search(path):
    return ModelFile(_kind_of_file(path, name), path)
  if os.path.exists(path) and not os.path.isdir(path) and (
      not os.path.isfile(path)):
    raise InputError('{}: is a device or a pipe; expected {}',
                     option(name, path), EXPECTED)
  from deeplab.checkpoints import find as find_lib
  if not os.path.exists(path) and not find_lib.parts_of(path):
    raise InputError('{}: no such file; expected {}', option(name, path),
                     EXPECTED)
  return ModelFile(interface.CHECKPOINT, find_lib.find(path, name))


def saved_model_folder(path: str) -> Optional[str]:
  """Returns the folder of a SavedModel, or None; `path` may be its file."""
  folder, name = os.path.split(path)
  if name == constants.SAVED_MODEL_FILE and os.path.isfile(path):
    return folder or os.curdir
  inner = os.path.join(path, constants.SAVED_MODEL_FILE)
  return path if os.path.isfile(inner) else None


def file_of(model: ModelFile) -> str:
  """Returns the file whose checksum identifies a model.

  The index of a checkpoint has the checksums of all variables.
  """
  if model.kind == interface.SAVED_MODEL:
    return os.path.join(model.path, constants.SAVED_MODEL_FILE)
  return model.path + ('.index' if model.kind == interface.CHECKPOINT else '')


def facts(model: ModelFile, predictor: interface.Predictor) -> Dict[str, Any]:
  """Returns the facts about a model for its report.

  Args:
    model: from `find`.
    predictor: the opened model.

  Returns:
    Dict: 'bytes', of the file or of a checkpoint's index and data; 'sha256', of
    `file_of`; 'precision'; and 'input', from metadata.input_contract.

  Raises:
    OSError: it cannot be read.
  """
  parts = [file_of(model)]
  if model.kind == interface.CHECKPOINT:
    from deeplab.checkpoints import find as find_lib
    parts = [part for part in find_lib.parts_of(model.path)
             if not part.endswith('.meta')]
  return {'bytes': sum(map(remote.size, parts)),
          'sha256': files.sha256_of(file_of(model)),
          'precision': predictor.precision, 'input': predictor.input_contract}


def label_map_of(model: ModelFile) -> Optional[label_maps.LabelMap]:
  """Returns the label map beside a model, or None.

  Raises:
    InputError: the file beside the model cannot be read.
  """
  if model.kind == interface.CHECKPOINT:
    from deeplab.checkpoints import compatibility
    return compatibility.label_map_of(model.path)
  return metadata.label_map_beside(model.path)


def classes_of(model: ModelFile, predictor: interface.Predictor,
               given: Optional[str] = None) -> label_maps.LabelMap:
  """Returns the label map of a model.

  Logs a notice if it is assumed.

  Args:
    model: from `find`.
    predictor: the opened model.
    given: the user's label map; None: the one beside the model.

  Raises:
    InputError: the label map cannot be read, or has other classes.
  """
  known = label_maps.read(given) if given else label_map_of(model)
  number = predictor.num_classes or (known or label_maps.ADE20K).num_classes
  if given and known and known.num_classes != number:
    raise InputError('{}: has {} classes; {} has {}', option(
        'label_map', given), known.num_classes, model.path, number)
  found = label_maps.of_model(number, known)
  if found != known:
    _LOG.warning(
        '%s has no label map: %s', model.path, "ADE20K's names are assumed"
        if found == label_maps.ADE20K else
        'its {} classes are shown as numbers'.format(number))
  return found


def is_onnx(path: str) -> bool:
  """Returns whether a file begins like ONNX; OSError: unreadable."""
  return _beginning(path)[:1] == _ONNX_VERSION


def _beginning(path):
  with open(path, 'rb') as content:
    return content.read(_BEGINNING)


def _kind_of_file(path, name):
  beginning = _beginning(path)
  if beginning[4:] == _TFLITE_IDENTIFIER:
    return interface.TFLITE
  if beginning[:1] == _GRAPH_DEF_NODE:
    return interface.FROZEN_GRAPH
  if beginning[:1] == _ONNX_VERSION:
    return interface.ONNX
  raise InputError('{}: {}; expected {}', option(name, path),
                   'begins with {!r}'.format(beginning) if beginning
                   else 'an empty file', EXPECTED)


def open_predictor(model: ModelFile, *,
                   crop_size: Optional[Tuple[int, int]] = None,
                   num_threads: int = 1,
                   nodes: Sequence[str] = ()) -> interface.Predictor:
  """Opens a model to label images.

  Args:
    model: from `find`.
    crop_size: (height, width) of the images. None: the size in the file; the
      default for a checkpoint without model_options.json beside it.
    num_threads: threads for a TFLite or ONNX file, if supported.
    nodes: names of the input and the output of a frozen graph; (): the names
      that export_model.py gives.

  Returns:
    The predictor.

  Raises:
    InputError: the file cannot be used, or takes images of another size.
  """
  predictor = _opened(model, crop_size, num_threads, nodes)
  if crop_size and predictor.input_size != tuple(crop_size):
    predictor.close()
    raise InputError(
        '{} takes images of {}x{}, but {}', model.path, *predictor.input_size,
        option('crop_size', crop_size))
  return predictor


def _opened(model, crop_size, num_threads, nodes):
  """Opens a model of any kind; see open_predictor."""
  if model.kind == interface.TFLITE:
    from deeplab.models import interpreters
    return interpreters.TflitePredictor(model.path, num_threads=num_threads)
  if model.kind == interface.ONNX:
    from deeplab.models import onnx_file
    return onnx_file.OnnxPredictor(model.path, num_threads=num_threads)
  from deeplab.models import predictors
  if model.kind == interface.FROZEN_GRAPH:
    return predictors.open_frozen_graph(model.path, *nodes)
  if model.kind == interface.SAVED_MODEL:
    return predictors.open_saved_model(model.path)
  predictor = predictors.CheckpointPredictor(
      model_options(model.path, crop_size))
  try:
    predictor.restore(model.path)
  except BaseException:
    predictor.close()
    raise
  return predictor


def model_options(
    prefix: str, crop_size: Optional[Tuple[int, int]] = None
) -> options_lib.ModelOptions:
  """Returns the options that build a checkpoint's network.

  Args:
    prefix: checkpoint prefix.
    crop_size: (height, width) of the images; None: as in training.

  Returns:
    The options in model_options.json beside it. Without that file, options from
    the names and shapes of the variables, and the published values.

  Raises:
    InputError: the checkpoint or the options cannot be read.
  """
  from deeplab.checkpoints import compatibility
  from deeplab.checkpoints import read
  written = compatibility.read_options(os.path.dirname(prefix))
  options = written[0] if written else compatibility.options_by_variables(
      read.variables_in(prefix), prefix)
  return options._replace(crop_size=crop_size) if crop_size else options
