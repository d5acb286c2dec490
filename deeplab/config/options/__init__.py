"""Immutable options, one class per concern, to and from JSON.

Every object is a NamedTuple: build it with keywords, copy it with `_replace`.
Both check the values; see deeplab.config.fields. Flags get their help, defaults
and bounds from these classes.
"""
from typing import Any, Dict, NamedTuple, Type, TypeVar

from deeplab.config import label_map as label_maps
from deeplab.config.fields import definitions
from deeplab.config.options.common import expect
from deeplab.config.options.data import FAIL
from deeplab.config.options.data import MLPERF_APP
from deeplab.config.options.data import NUMBERED
from deeplab.config.options.data import SKIP
from deeplab.config.options.data import BuildOptions
from deeplab.config.options.data import DatasetOptions
from deeplab.config.options.data import PreprocessedOptions
from deeplab.config.options.data import SyntheticOptions
from deeplab.config.options.evaluation import CheckpointEvalOptions
from deeplab.config.options.evaluation import EvalOptions
from deeplab.config.options.evaluation import GraphEvalOptions
from deeplab.config.options.evaluation import MergeOptions
from deeplab.config.options.evaluation import TfliteEvalOptions
from deeplab.config.options.export import DYNAMIC
from deeplab.config.options.export import FAST
from deeplab.config.options.export import FLOAT
from deeplab.config.options.export import FLOAT16
from deeplab.config.options.export import FROZEN_GRAPH
from deeplab.config.options.export import INPUT_TYPES
from deeplab.config.options.export import ONNX
from deeplab.config.options.export import QUANTIZATION_AWARE
from deeplab.config.options.export import SAVED_MODEL
from deeplab.config.options.export import TENSORFLOW
from deeplab.config.options.export import CalibrationOptions
from deeplab.config.options.export import ConversionOptions
from deeplab.config.options.export import ExportOptions
from deeplab.config.options.export import RebuildOptions
from deeplab.config.options.mlperf import ACCURACY
from deeplab.config.options.mlperf import BOTH
from deeplab.config.options.mlperf import DEEPLAB_QUALITY_TARGET
from deeplab.config.options.mlperf import FULL
from deeplab.config.options.mlperf import MODERN
from deeplab.config.options.mlperf import OFFLINE
from deeplab.config.options.mlperf import PERFORMANCE
from deeplab.config.options.mlperf import QUICK
from deeplab.config.options.mlperf import SINGLE_STREAM
from deeplab.config.options.mlperf import TENSORFLOW_1_2
from deeplab.config.options.mlperf import AccuracyLogOptions
from deeplab.config.options.mlperf import LoadgenOptions
from deeplab.config.options.mlperf import ReproduceOptions
from deeplab.config.options.model import CONTRIB
from deeplab.config.options.model import DECODER_OUTPUT_STRIDES
from deeplab.config.options.model import LAYERS
from deeplab.config.options.model import OUTPUT_STRIDES
from deeplab.config.options.model import ModelOptions
from deeplab.config.options.model import PreprocessOptions
from deeplab.config.options.tools import ComparisonOptions
from deeplab.config.options.tools import InspectionOptions
from deeplab.config.options.tools import OverlayOptions
from deeplab.config.options.training import DistributionOptions
from deeplab.config.options.training import LaunchOptions
from deeplab.config.options.training import TrainOptions

_Options = TypeVar('_Options')


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
  expect(isinstance(content, dict), 'expected a dict of ' + cls.__name__)
  unknown = sorted(set(content) - set(definitions(cls)))
  expect(not unknown, 'unknown {} {}: written by another version?',
          cls.__name__, ', '.join(unknown))
  if cls is ModelOptions and content.get('label_map') is not None:
    content = dict(
        content, label_map=label_maps.from_json(content['label_map']))
  return cls(**content)
