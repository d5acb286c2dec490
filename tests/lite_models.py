"""TFLite files for tests."""
import os
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf


def argmax_model(size):
  """Returns a TFLite file that labels a pixel by its largest channel.

  If no channel is above 0.5, the label is 3.

  Args:
    size: (height, width) of its input.
  """
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, (1,) + size + (3,), 'images')
    half = tf.constant(0.5, tf.float32, (1,) + size + (1,))
    labels = tf.argmax(tf.concat([images, half], 3), 3, output_type=tf.int32)
    converter = tf.lite.TFLiteConverter.from_session(
        session, [images], [labels])
    with pytest.MonkeyPatch.context() as patch:
      # TensorFlow looks for its converter program on PATH.
      patch.setenv('PATH', os.path.dirname(sys.executable), prepend=os.pathsep)
      return converter.convert()


def image_of(classes):
  """Returns an image that the model labels with these classes.

  Args:
    classes: [height, width], values 0 to 2.
  """
  classes = np.array(classes)
  image = np.full(classes.shape + (3,), 20)
  np.put_along_axis(image, classes[..., np.newaxis], 250, axis=2)
  return image
