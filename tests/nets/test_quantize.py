"""Compares the two implementations of fake quantization.

The rewrite of tf.contrib.quantize is the reference; layers replace it if
TensorFlow lacks it. A last bit may decide how a value is rounded, and every
layer enlarges the difference. So training steps are compared on a few layers,
and the whole network only without rounding.
"""
import contextlib
import functools
import itertools
import json
import os
import sys
from typing import Dict, NamedTuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.nets import batch_norm
from deeplab.nets import deeplab_v3
from deeplab.nets import layers
from deeplab.nets import mobilenet_v2
from deeplab.nets import quantize
from deeplab.training import losses
from deeplab.training import step as step_lib
from tests import golden_weights
from tests import processors

pytestmark = [pytest.mark.tf1, pytest.mark.modern]

MODEL = options_lib.ModelOptions(
    crop_size=(65, 65), decoder_output_stride=(4,))
STEPS = 5
DELAY = 2  # the first step with rounding
BOTH = (options_lib.CONTRIB, options_lib.LAYERS)

has_contrib = pytest.mark.skipif(
    not processors.IS_REFERENCE_TENSORFLOW,
    reason='TensorFlow {} has no tf.contrib.quantize'.format(tf.__version__))


@contextlib.contextmanager
def session_without_rewriting():
  """Returns a session that runs the graph unchanged, in one thread.

  Replacing operations changes last bits. With several threads, the rewrite may
  read a moving average after the step has changed it.
  """
  config = tf.ConfigProto(inter_op_parallelism_threads=1)
  config.graph_options.rewrite_options.disable_meta_optimizer = True
  with tf.Session(config=config) as session:
    yield session


def fix_dropout(monkeypatch):
  """Makes every random number one half; dropout at 0.9 then keeps all."""
  from tensorflow.python.ops import random_ops
  for module in (random_ops, tf):
    monkeypatch.setattr(module, 'random_uniform',
                        lambda shape, *unused, **unused_too: tf.fill(
                            shape, 0.5))


# --- A network of a few layers ---------------------------------------------


def small_step(monkeypatch, delay, implementation):
  """Builds one step of training; returns a dict of tensors to fetch.

  The network has every quantized pattern: a plain, an atrous and a depthwise
  convolution, a linear layer, a shortcut, dropout, and a convolution with
  biases.
  """
  monkeypatch.setattr(mobilenet_v2, 'BLOCKS', mobilenet_v2.BLOCKS[:3])
  random = np.random.RandomState(5)
  images = tf.constant(random.uniform(-1, 1, [4, 17, 17, 3]), tf.float32)
  labels = tf.constant(random.randint(0, 4, [4, 5, 5, 1]), tf.int32)
  model = MODEL._replace(
      quantize_delay_step=delay, fake_quant=implementation)
  fake_quant = quantize.for_layers(model, is_training=True)
  tf.train.get_or_create_global_step()
  net, unused_end_points = mobilenet_v2.mobilenet_v2(
      images, output_stride=4, depth_multiplier=0.25, is_training=True,
      fake_quant=fake_quant)
  style = layers.Style(batch_norm=batch_norm.BatchNorm(0.9, 1e-5, True),
                       activation=tf.nn.relu, fake_quant=fake_quant)
  net = layers.separable_conv2d(net, 16, scope='atrous', rate=2, style=style)
  net = layers.dropout(net, keep_probability=0.9, is_training=True,
                       scope='dropout_scope', fake_quant=fake_quant)
  logits = layers.conv2d(net, 4, 1, scope='logits',
                         style=layers.Style(fake_quant=fake_quant))
  losses.mean([losses.sum_over_pixels(
      quantize.rewritten(logits, model, is_training=True), labels)])
  loss = tf.losses.get_total_loss()
  variables = tf.trainable_variables()
  gradients = tf.gradients(loss, variables)
  with tf.control_dependencies([loss] + gradients):
    update = tf.train.GradientDescentOptimizer(0.01).apply_gradients(
        zip(gradients, variables))
  updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS) + [update]
  return {'loss': loss, 'updates': tf.group(*updates),
          'gradients': {variable.op.name: gradient for variable, gradient
                        in zip(variables, gradients)}}


class Step(NamedTuple):
  loss: float
  # Dicts by variable name; `variables` holds the values after the step.
  gradients: Dict[str, np.ndarray]
  variables: Dict[str, np.ndarray]


@functools.lru_cache(maxsize=None)
def small_run(delay, implementation):
  """Trains without randomness; returns a list of STEPS Steps."""
  with pytest.MonkeyPatch.context() as monkeypatch, (
      tf.Graph().as_default()):
    fix_dropout(monkeypatch)
    fetches = small_step(monkeypatch, delay, implementation)
    variables = {variable.op.name: variable
                 for variable in tf.global_variables()}
    with session_without_rewriting() as session:
      session.run(tf.global_variables_initializer())
      golden_weights.load(session, tf.model_variables())
      steps = []
      for _ in range(STEPS):
        done = session.run(fetches)
        steps.append(Step(done['loss'], done['gradients'],
                          session.run(variables)))
      return steps


def distances(one, other):
  """Returns a dict from variable to the norm of the difference."""
  assert set(one) == set(other)
  return {name: np.linalg.norm(one[name] - other[name]) for name in one}


# Delay, losses of the steps and norms of their gradients with the rewrite on
# TensorFlow 1.15.5.
GOLDEN_STEPS = [
    (-1, [1.6810136, 1.6352991, 1.5985843, 1.5635750, 1.5338123],
     [2.2123682, 1.9994828, 1.9086121, 1.8071580, 1.6602416]),
    (0, [1.5623350, 1.4137216, 1.3467535, 1.2792634, 1.2477285],
     [4.0272832, 2.8240298, 2.4354954, 2.4370095, 2.1187821]),
    (DELAY, [1.6810154, 1.4265469, 1.3280087, 1.2698704, 1.2331660],
     [2.2123039, 3.7167577, 2.5880824, 2.3484669, 1.9779398]),
]


@pytest.mark.slow
@pytest.mark.parametrize('delay, losses_of_steps, norms', GOLDEN_STEPS)
def test_training_steps_match_the_reference_on_every_tensorflow(
    delay, losses_of_steps, norms):
  steps = small_run(delay, None if delay < 0 else options_lib.LAYERS)
  np.testing.assert_allclose(
      [step.loss for step in steps], losses_of_steps, rtol=1e-5)
  np.testing.assert_allclose(
      [np.sqrt(sum(np.sum(np.square(gradient, dtype=np.float64))
                   for gradient in step.gradients.values()))
       for step in steps], norms, rtol=1e-4)


@pytest.mark.slow
@has_contrib
@pytest.mark.parametrize('delay', [0, DELAY])
def test_losses_gradients_and_ranges_match_the_rewrite(delay):
  contrib, own = [
      small_run(delay, implementation) for implementation in BOTH]
  np.testing.assert_allclose(
      [step.loss for step in own], [step.loss for step in contrib], rtol=1e-6)
  assert contrib[-1].loss < contrib[0].loss
  for expected, step in zip(contrib, own):
    length = np.sqrt(sum(np.sum(np.square(gradient))
                         for gradient in expected.gradients.values()))
    assert length > 1
    assert max(distances(
        expected.gradients, step.gradients).values()) < 3e-6 * length
  expected = contrib[-1].variables
  for name, distance in distances(expected, own[-1].variables).items():
    assert distance < 1e-5 * (1 + np.linalg.norm(expected[name])), name


@pytest.mark.slow
@pytest.mark.parametrize('implementation', [
    pytest.param(options_lib.CONTRIB, marks=has_contrib), options_lib.LAYERS])
def test_batch_norm_is_frozen_from_the_delay_step_on(implementation):
  averages = [
      {name: value for name, value in step.variables.items()
       if 'moving' in name}
      for step in small_run(DELAY, implementation)[DELAY - 2:DELAY + 1]]
  assert len(averages[0]) == 2 * 11
  for name, value in averages[0].items():
    np.testing.assert_allclose(averages[1][name], value, rtol=1e-5)
    np.testing.assert_allclose(averages[2][name], value, rtol=1e-5)
    initial = golden_weights.draw(name, value.shape)
    assert np.linalg.norm(value - initial) > 1e-4 * np.linalg.norm(initial)


# --- All network structures ------------------------------------------------

ANY = (False, True)
STRUCTURES = [
    dict(aspp_with_separable_conv=separable,
         aspp_with_concat_projection=not separable, atrous_rates=(2, 3),
         output_stride=8, use_bounded_activation=separable)
    for separable in ANY
] + [
    dict(decoder_output_stride=(8, 4), decoder_use_separable_conv=separable,
         decoder_use_sum_merge=is_sum, decoder_output_is_logits=is_logits)
    for separable, is_sum, is_logits in itertools.product(ANY, ANY, ANY)]


def shallow_logits(structure, implementation):
  return deeplab_v3.logits(
      tf.constant(np.random.RandomState(1).uniform(-1, 1, [1, 65, 65, 3]),
                  tf.float32),
      options_lib.ModelOptions(
          crop_size=(65, 65), aspp_convs_filters=8, decoder_filters=8,
          quantize_delay_step=0, fake_quant=implementation, **structure))


@pytest.mark.extended
@has_contrib
def test_every_structure_has_the_same_ranges_as_the_rewrite(shallow):
  for structure in STRUCTURES:
    found = []
    for implementation in BOTH:
      with tf.Graph().as_default() as graph:
        tf.train.get_or_create_global_step()
        shallow_logits(structure, implementation)
        found.append({
            (variable.op.name, tuple(variable.shape.as_list()))
            for variable in tf.global_variables()}.union(
                operation.name for operation in graph.get_operations()
                if operation.type == 'FakeQuantWithMinMaxVars'))
    assert not found[0] ^ found[1], structure


@pytest.mark.extended
@has_contrib
@pytest.mark.parametrize('is_logits', ANY)
def test_a_decoder_with_sum_merge_matches_the_rewrite(
    shallow, is_logits):
  structure = dict(decoder_output_stride=(8, 4), decoder_use_sum_merge=True,
                   decoder_output_is_logits=is_logits)
  results = []
  for implementation in BOTH:
    with tf.Graph().as_default():
      logits = shallow_logits(structure, implementation)
      with session_without_rewriting() as session:
        session.run(tf.global_variables_initializer())
        golden_weights.load(session, tf.global_variables())
        for variable in tf.global_variables():
          if '/act_quant_1/max' in variable.op.name:
            variable.load(3.0, session)  # so that the two stages differ
        results.append(session.run(logits))
  assert len(np.unique(results[0])) > 20
  np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-5)


# --- The whole network -----------------------------------------------------


@pytest.mark.slow
def test_layers_create_the_published_variables(golden_dir):
  with open(os.path.join(golden_dir, 'variables_qat.json')) as variables:
    published = {(variable['name'], tuple(variable['shape']))
                 for variable in json.load(variables)}
  assert len(published) == 1030
  with tf.Graph().as_default():
    step_lib.build_step(
        tf.zeros([2, 65, 65, 3]), tf.zeros([2, 65, 65, 1], tf.int32),
        MODEL._replace(quantize_delay_step=100, fake_quant=options_lib.LAYERS),
        options_lib.TrainOptions('unused'))
    assert {(variable.op.name, tuple(variable.shape.as_list()))
            for variable in tf.global_variables()} == published


def test_layers_quantize_without_contrib(monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow.contrib', None)
  assert quantize.implementation(MODEL) is None
  model = MODEL._replace(quantize_delay_step=3)
  assert quantize.implementation(model) == options_lib.LAYERS
  with pytest.raises(InputError, match='fake_quant=contrib: TensorFlow .* '
                     'has no tf.contrib.quantize; expected layers'):
    quantize.implementation(model._replace(fake_quant=options_lib.CONTRIB))


@has_contrib
def test_contrib_is_used_if_it_is_available():
  model = MODEL._replace(quantize_delay_step=0)
  assert quantize.implementation(model) == options_lib.CONTRIB
  assert quantize.implementation(model._replace(
      fake_quant=options_lib.LAYERS)) == options_lib.LAYERS


@pytest.mark.slow
def test_networks_at_several_scales_share_their_ranges(shallow):
  """With the rewrite, each network would have its own ranges."""
  model = MODEL._replace(quantize_delay_step=0)
  with tf.Graph().as_default() as graph:
    deeplab_v3.multi_scale_predictions(
        tf.zeros([1, 65, 65, 3]), model, scales=(0.5, 1.0), flip=False)
    ranges = [v for v in tf.global_variables() if '_quant/' in v.op.name]
    rounded = [operation for operation in graph.get_operations()
               if operation.type == 'FakeQuantWithMinMaxVars']
  assert len(rounded) == len(ranges) > 50
