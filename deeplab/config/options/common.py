"""Bounds and fields that several classes of options share."""
import re

from deeplab import constants
from deeplab import errors
from deeplab.config.fields import field
from deeplab.config.fields import required
from deeplab.errors import InputError

# Side of an image in pixels: constants.MAX_PIXELS is the area of such a square.
LARGEST_SIDE = 8192
# A larger limit on the longer side, which then never applies, is allowed.
LARGEST_RESIZE = 2 * LARGEST_SIDE
# Labels have 8 bits.
MOST_CLASSES = 256
# At this width, one separable layer has 64 million weights.
MOST_CHANNELS = 8192
# A scaled image has this factor squared times as many pixels.
LARGEST_SCALE = 16.0
MOST_SCALES = 1000
# Threads, processes and hosts.
MOST_WORKERS = 1024
# NumPy's and LoadGen's seeds.
LARGEST_SEED = 2 ** 32 - 1
LARGEST_LOADGEN_SEED = 2 ** 64 - 1

# A host by name or number ([::1] for IPv6), and a port.
ADDRESS = re.compile(r'([\w.-]+|\[[0-9a-fA-F:.]+\]):[1-9]\d{0,4}$')
SIZE = 'HEIGHT,WIDTH, for example 512,512'


def seed_field(default, text):
  """Returns a field for a seed."""
  return field(default, text, most=LARGEST_SEED)


def workers_field(what):
  """Returns a field for a number of processes."""
  return field(0, what + '; 0: one for each processor.', most=MOST_WORKERS)


def loadgen_seed_field(default, text):
  """Returns a field for one of LoadGen's seeds."""
  return field(default, text + '; the default is that of MLPerf Inference '
               'v6.0, as LoadGen 6.0.17 has it.', most=LARGEST_LOADGEN_SEED)


def label_map_field(text):
  """Returns a field for a label map; text: what None means."""
  return field(None, 'Label map: file that assigns ids of labels to classes '
               'and names them; other ids are class 0, which is ignored. Not '
               'given: ' + text)


# Deviates: the reference has 513, with which its own evaluation fails.
CROP_SIZE = field(
    (512, 512), 'HEIGHT,WIDTH of the input of the network, in pixels.', least=1,
    most=LARGEST_SIDE, form=SIZE)
INPUT_SIZE = field(
    None, "HEIGHT,WIDTH of the input of a checkpoint's network, in pixels; not "
    'given: as trained. Files have a size of their own.', least=1,
    most=LARGEST_SIDE, form=SIZE)
TRAINING_SEED = seed_field(
    None, 'Seed of the initial values, the order of images, augmentation and '
    'dropout, also over interruptions; on more than one core sums differ in '
    'their last bits. None: different in every run.')
STRICT_CHECKPOINT = field(
    False, 'Refuse a folder whose newest checkpoint cannot be read; not set: '
    'use the newest readable one and log a warning.')
NAMES_OF_CLASSES = field(
    None, 'Label map with the names of the classes; none: the one stored with '
    'the model.')
EXIF_ROTATION = field(
    True, 'Rotate pictures by their EXIF data, as viewers do. Data sets are '
    'read as they are stored.')
MODEL = required(
    'Model, such as a checkpoint, a frozen graph or a TFLite file; its kind is '
    'detected.')
TEST_DIR = required('Folder with the images, or the folder above it.')
VAL_LABEL_DIR = field(
    None, 'Folder with the annotations; none: annotations/ beside the images.')
INPUT_NODE = field(constants.INPUT_NODE, 'Input node, for images in [-1, 1].')
OUTPUT_NODE = field(constants.OUTPUT_NODE, 'Output node, with the labels.')
GRAPH_DEF = required('Frozen graph to convert, as export_model.py writes it.')
OUT_TFLITE = required('TFLite file to write.')
NUM_THREADS = field(
    1, 'Threads of one interpreter, if it supports several.', least=1,
    most=MOST_WORKERS)
ALL_THREADS = field(
    0, 'Threads of a TFLite interpreter, if it supports several; 0: one for '
    'each processor.', most=MOST_WORKERS)


def given(options, *names):
  """Returns several fields as options for messages."""
  return [errors.option(name, getattr(options, name)) for name in names]


def expect(holds, template, *values):
  """Raises an InputError unless a condition holds."""
  if not holds:
    raise InputError(template, *values)
