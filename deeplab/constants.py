"""Values that modules, files and graphs share.

Node names, variable scopes, input range, classes, record keys and shard names.
This module needs no TensorFlow.
"""
import re
from typing import Any, Optional, Sequence, Tuple

# --- Classes ---------------------------------------------------------------

# ADE20K (SceneParse150) ids 1..31 are kept; 0 means "other" or "unlabelled".
# The loss and every score ignore pixels whose ground truth is 0. Labels of 32
# and above become 0 during preprocessing.
CLASS_NAMES = (
    'other', 'wall', 'building', 'sky', 'floor', 'tree', 'ceiling', 'road',
    'bed', 'windowpane', 'grass', 'cabinet', 'sidewalk', 'person', 'earth',
    'door', 'table', 'mountain', 'plant', 'curtain', 'chair', 'car', 'water',
    'painting', 'sofa', 'shelf', 'house', 'sea', 'mirror', 'rug', 'field',
    'armchair')
NUM_CLASSES = len(CLASS_NAMES)
IGNORE_LABEL = 0
LARGEST_LABEL_ON_DISK = 150

# RGB colours of the SceneParse150 palette, for pictures of labels.
PALETTE = (
    (0, 0, 0), (120, 120, 120), (180, 120, 120), (6, 230, 230), (80, 50, 50),
    (4, 200, 3), (120, 120, 80), (140, 140, 140), (204, 5, 255),
    (230, 230, 230), (4, 250, 7), (224, 5, 255), (235, 255, 7), (150, 5, 61),
    (120, 120, 70), (8, 255, 51), (255, 6, 82), (143, 255, 140), (204, 255, 4),
    (255, 51, 7), (204, 70, 3), (0, 102, 200), (61, 230, 250), (255, 6, 51),
    (11, 102, 255), (255, 7, 71), (255, 9, 224), (9, 7, 230), (220, 220, 220),
    (255, 9, 92), (112, 9, 255), (8, 255, 214))

# --- Input range -----------------------------------------------------------

# Images are RGB in [0, 255]; the network's input is in [-1, 1].
PADDING_VALUE = 127.5


def scale_to_model_range(images: Any) -> Any:
  """Maps images, float arrays or tensors, from [0, 255] to [-1, 1].

  Parity: the reference trains and evaluates its network in this range.
  """
  return images * (2.0 / 255.0) - 1.0


def scale_as_tflite_scripts(images: Any) -> Any:
  """Maps float32 pixels to [-1, 1] as the reference does for TFLite files.

  Parity: mobile_open's segmentation_inference_eval_seg_tflite.py computes this
  in float32. Its post_training_quant.py divides by 127.5 in float64 and casts
  the result. Both give the same float32 for all 256 pixels; they differ from
  scale_to_model_range in the last bit. That bit matters in calibration: it
  changes the scales that are stored in the file.
  """
  return (images - 127.5) / 127.5


# --- Graphs ----------------------------------------------------------------

IMAGE_NODE = 'ImageTensor'  # the exported graph's placeholder
INPUT_NODE = 'MobilenetV2/MobilenetV2/input'  # fed at inference
OUTPUT_NODE = 'ArgMax'  # int32 [1, height, width]
FROZEN_GRAPH = 'freeze.pb'
# In other formats, these replace '.pb' in the name of the frozen graph.
SAVED_MODEL_SUFFIX = '_saved_model'  # a folder
ONNX_SUFFIX = '.onnx'
# The file in a SavedModel's folder.
SAVED_MODEL_FILE = 'saved_model.pb'
# Input and output in the signature of a SavedModel and in an ONNX file.
INPUT_NAME = 'images'
OUTPUT_NAME = 'labels'
LOGITS_NAME = 'logits'  # instead of OUTPUT_NAME, without the arg max
CHANNELS = 3
# Mean and standard deviation of the published quantization-aware TFLite
# file's uint8 input: its real value is (pixel - 128) / 128. Training maps
# pixels to pixel / 127.5 - 1, which no uint8 zero point can express.
QUANTIZED_INPUT_STATS = (128.0, 128.0)
# Number of images that the published file was calibrated on.
CALIBRATION_IMAGES = 500
INFERENCE_GRAPH = 'inference_graph.pbtxt'

# Variable scopes.
BACKBONE_SCOPE = 'MobilenetV2'
IMAGE_POOLING_SCOPE = 'image_pooling'
ASPP_SCOPE = 'aspp'
CONCAT_PROJECTION_SCOPE = 'concat_projection'
# In quantization-aware training only: the ranges of the dropout's products.
DROPOUT_SCOPE = CONCAT_PROJECTION_SCOPE + '_dropout'
DECODER_SCOPE = 'decoder'
LOGITS_SCOPE = 'logits'
SEMANTIC_SCOPE = 'semantic'
# Layers after the backbone, for the gradient multiplier and initialization.
LAST_LAYER_SCOPES = (
    LOGITS_SCOPE, IMAGE_POOLING_SCOPE, ASPP_SCOPE, CONCAT_PROJECTION_SCOPE,
    DECODER_SCOPE)
# Substrings of the names of variables that fake quantization adds.
QUANTIZATION_VARIABLE_MARKS = (
    'weights_quant/', 'act_quant/', '_bypass_quant/', 'activation_Mul_quant/')
# Endings of the names of variables that only training needs: optimizer slots
# and the state of the moving averages of quantization ranges.
TRAINING_VARIABLE_ENDINGS = (
    '/Momentum', '/Adam', '/Adam_1', 'beta1_power', 'beta2_power',
    'global_step', 'fake_quantization_step', '/biased', '/local_step')

# --- Records ---------------------------------------------------------------

SPLITS = ('train', 'val')
NUM_SHARDS = 4

KEY_IMAGE = 'image/encoded'
KEY_FILENAME = 'image/filename'
KEY_IMAGE_FORMAT = 'image/format'
KEY_HEIGHT = 'image/height'
KEY_WIDTH = 'image/width'
KEY_CHANNELS = 'image/channels'
KEY_LABEL = 'image/segmentation/class/encoded'
KEY_LABEL_FORMAT = 'image/segmentation/class/format'


def image_name(recorded: str) -> str:
  """Returns a record's file name without the reference builder's folder."""
  return recorded.rsplit('/', 1)[-1]


def bytes_of_name(name: str) -> bytes:
  """Returns a file name as records store it: its bytes, UTF-8 or not."""
  return name.encode('utf-8', 'surrogateescape')


def text_of_name(recorded: bytes) -> str:
  """Returns a record's file name as a Python file name."""
  return recorded.decode('utf-8', 'surrogateescape')


def shard_name(split: str, index: int, count: int = NUM_SHARDS) -> str:
  """Returns a shard's file name, 'train-00000-of-00004.tfrecord'."""
  return '{}-{:05d}-of-{:05d}.tfrecord'.format(split, index, count)


def parse_shard_name(name: str) -> Optional[Tuple[str, int, int]]:
  """Returns (split, index, count), or None for any other file name."""
  match = re.fullmatch(
      r'(\w+)-([0-9]{5})-of-([0-9]{5})(?:\.tfrecord)?', name)
  if not match:
    return None
  return match.group(1), int(match.group(2)), int(match.group(3))


def description_name(split: str) -> str:
  """Returns the name of the file that describes a split's shards."""
  return split + '.json'


def incomplete_name(split: str) -> str:
  """Returns the name of the file that marks shards being renamed.

  It has no dash after the split: the reference reads every file that has one.
  """
  return split + '.INCOMPLETE'


# --- Files beside a checkpoint ---------------------------------------------

MODEL_OPTIONS_FILE = 'model_options.json'

# --- Preprocessed images ---------------------------------------------------

# The folders of images and labels, and the file beside them.
PREPROCESSED_IMAGES = 'images'
PREPROCESSED_ANNOTATIONS = 'annotations'
PREPROCESSED_MANIFEST = 'manifest.json'
# Marks a folder that a run is writing or has left incomplete.
INCOMPLETE = 'INCOMPLETE'


def preprocessed_name(number: int, digits: int = 1) -> str:
  """Returns an image's file name: 'img_7.png', zero-padded to `digits`."""
  return 'img_{:0{}d}.png'.format(number, digits)


def is_preprocessed_name(name: str) -> bool:
  """Whether a file has one of preprocessed_name's names."""
  return re.match(r'img_\d+\.png$', name) is not None

# --- Limits ----------------------------------------------------------------

# Larger inputs are refused before memory is allocated, because a file of a few
# bytes can ask for any amount. This network needs far less.

# Bytes of a file that is read whole, and of all constants of a graph together.
# The largest published model has 9 MB.
MAX_FILE_BYTES = 2 ** 29
# Pixels of an image: 8192x8192. ADE20K's largest images have about 2000 a side.
# An RGB image of this size has 200 MB, and each worker holds one image.
MAX_PIXELS = 2 ** 26
# Values of a tensor in a graph: 1 GB of float32. Logits of 151 classes at
# 1024x1024 take 60 % of it; the published graph's logits take 3 %.
MAX_TENSOR_VALUES = 2 ** 28


def size_problem(sides: Optional[Sequence[Optional[int]]],
                 shown: Any) -> Optional[str]:
  """Returns the problem with the size of a tensor in a graph, or None.

  Args:
    sides: its shape; None: unknown. The first axis, the batch, may be None.
    shown: the shape, for the message.
  """
  if sides is None or None in sides[1:]:
    return 'a tensor of no fixed size, {}; expected one'.format(shown)
  values = 1
  for side in sides:
    values *= 1 if side is None else side
  if not 0 < values <= MAX_TENSOR_VALUES:
    return 'a tensor of {} values, {}; expected 1 to {}'.format(
        values, shown, MAX_TENSOR_VALUES)
  return None
