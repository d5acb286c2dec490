"""Models of a few operators, for tests that use only their labels."""
import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config import label_map as label_maps
from deeplab.models import metadata
from deeplab.storage import files

SIZE = (33, 33)
# Two label maps with the same number of classes.
OWN = label_maps.LabelMap(('other', 'built', 'a <way>'), ((), (1, 2), (7,)))
OTHER = OWN._replace(ids=((), (1,), (2, 7)))


def write_graph(path, input_shape=(1,) + SIZE + (3,), classes=(0, 1, 2),
                num_classes=None):
  """Writes a frozen graph that labels a pixel by its brightest channel.

  Args:
    path: pathlib.Path of the file.
    input_shape: shape of its input.
    classes: labels of red, green and blue.
    num_classes: number of classes; None: as few as possible.

  Returns:
    The path as a str.
  """
  with tf.Graph().as_default() as graph:
    images = tf.placeholder(tf.float32, input_shape, name=constants.INPUT_NODE)
    # Scores of the other classes stay at -9.
    count = num_classes or max(classes) + 1
    spread = np.full([1, 1, input_shape[-1], count], 0, np.float32)
    spread[0, 0, range(len(classes)), classes] = 1
    biases = np.full([count], -9, np.float32)
    biases[list(classes)] = 0
    net = tf.nn.bias_add(
        tf.nn.conv2d(images, spread, strides=1, padding='SAME'), biases)
    tf.argmax(net, 3, output_type=tf.int32, name=constants.OUTPUT_NODE)
    path.write_bytes(graph.as_graph_def().SerializeToString())
  return str(path)


def describe(path, label_map):
  """Writes a graph's label map beside it, as export_model.py does."""
  files.write_json(metadata.of_graph(str(path)), {
      'model': label_maps.json_entry(label_map),
      'sha1': {path.name: metadata.sha1(path.read_bytes())}})
