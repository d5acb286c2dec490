"""The weights that the reference's golden outputs were made with."""
import zlib

import numpy as np


def draw(name, shape):
  """Returns the golden value of a variable, float32 of the given shape."""
  random = np.random.RandomState((zlib.crc32(name.encode()) + 20260) % 2**32)
  kind = name.split('/')[-1]
  if name.endswith('weights_quant/min'):
    value = np.full(shape, -1.5)
  elif name.endswith('weights_quant/max'):
    value = np.full(shape, 1.5)
  elif kind == 'min':
    value = np.full(shape, -4)
  elif kind == 'max':
    value = np.full(shape, 6)
  elif kind == 'gamma':
    value = random.uniform(0.8, 1.2, shape)
  elif kind == 'moving_variance':
    value = random.uniform(0.5, 1.5, shape)
  elif kind in ('beta', 'moving_mean', 'biases'):
    value = random.normal(0, 0.1, shape)
  elif kind == 'depthwise_weights':
    value = random.normal(size=shape) * np.sqrt(2 / np.prod(shape[:2]))
  else:
    assert kind == 'weights', name
    value = random.normal(size=shape) * np.sqrt(2 / np.prod(shape[:3]))
  return np.asarray(value, np.float32)


def load(session, variables):
  """Gives every variable its golden value, in one run of the session."""
  session.run(
      [variable.initializer for variable in variables],
      {variable.initializer.inputs[1]:
       draw(variable.op.name, variable.shape.as_list())
       for variable in variables})
