"""Tests the network against the reference's golden outputs."""
import json
import os
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config import options
from deeplab.nets import deeplab_v3
from deeplab.nets import fake_quant as fake_quant_lib
from deeplab.nets import layers
from deeplab.nets import mobilenet_v2
from deeplab.training import losses
from tests import golden_weights
from tests import processors

pytestmark = [pytest.mark.tf1, pytest.mark.modern]

WEIGHT_DECAY = 4e-5
PUBLISHED = options.ModelOptions(decoder_output_stride=(4,))
TINY = PUBLISHED._replace(crop_size=(33, 33))


def close(actual, expected, tolerance=processors.BOUNDS['logits']):
  """Returns the largest difference relative to the largest expected value."""
  expected = np.asarray(expected, np.float64)
  np.testing.assert_allclose(
      actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def golden_file(size, golden_dir, request):
  folder = golden_dir
  if size == 512:
    folder = os.path.join(request.getfixturevalue('reference_dir'), 'golden')
  return np.load(os.path.join(folder, 'network{}.npz'.format(size)))


@pytest.mark.parametrize(
    'size', [65, pytest.param(512, marks=pytest.mark.extended)])
def test_outputs_and_gradients_match_the_reference(size, golden_dir, request):
  golden = golden_file(size, golden_dir, request)
  image = golden['image_in'][np.newaxis].astype(np.float32)
  label = golden['label_in'][np.newaxis, ..., np.newaxis].astype(np.int32)
  model = PUBLISHED._replace(crop_size=(size, size))
  with tf.Graph().as_default(), (
      tf.Session(config=processors.config())) as session:
    logits = deeplab_v3.logits(
        constants.scale_to_model_range(tf.constant(image)), model,
        weight_decay=WEIGHT_DECAY)
    loss = losses.mean([losses.sum_over_pixels(
        logits, tf.constant(label))])
    regularizers = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    variables = {v.op.name: v for v in tf.trainable_variables()}
    names = [str(name) for name in golden['grad_names']]
    gradients = tf.gradients(loss, [variables[name] for name in names])
    golden_weights.load(session, tf.global_variables())
    outputs, data_loss, regularization, gradients = session.run(
        [logits, loss, tf.add_n(regularizers), gradients])
  assert len(variables) == len(names) == 179
  step = 1 if size == 65 else 4
  bound = processors.BOUNDS['logits']
  close(outputs[0, ::step, ::step], golden['logits_stride4'], bound)
  close(outputs.mean((0, 1, 2)), golden['logits_mean'], bound)
  close(outputs.std((0, 1, 2)), golden['logits_std'], bound)
  bound = processors.BOUNDS['loss']
  assert data_loss == pytest.approx(golden['data_loss'], rel=bound)
  assert regularization == pytest.approx(
      golden['regularization_loss'], rel=bound)
  norms = [np.linalg.norm(g.astype(np.float64)) for g in gradients]
  median, largest = processors.BOUNDS['gradient_norms_{}'.format(size)]
  processors.check_median(norms, golden['grad_norms'], median)
  np.testing.assert_allclose(norms, golden['grad_norms'], rtol=largest)


QUANTIZATIONS = [options.LAYERS] + (
    [options.CONTRIB] if processors.IS_REFERENCE_TENSORFLOW else [])


@pytest.mark.extended
@pytest.mark.parametrize('implementation', QUANTIZATIONS)
def test_quantized_logits_match_the_reference(implementation, reference_dir):
  recording = processors.quantized_recording()
  golden = np.load(os.path.join(
      reference_dir, processors.RECORDINGS[recording or 'avx512'],
      'network512_qat.npz'))
  model = PUBLISHED._replace(quantize_delay_step=0, fake_quant=implementation)
  with tf.Graph().as_default(), (
      tf.Session(config=processors.config())) as session:
    images = tf.placeholder(tf.float32, [1, 512, 512, 3])
    predictions = deeplab_v3.predictions(deeplab_v3.logits(
        constants.scale_to_model_range(images), model), model)
    golden_weights.load(session, tf.global_variables())
    resized = predictions.op.inputs[0]
    logits = session.run(
        resized.op.inputs[0], {images: golden['image_in'][np.newaxis]})
  actual, expected = logits[0, ::4, ::4], golden['logits_stride4']
  if recording:
    close(actual, expected, 1e-5)
    close(logits.mean((0, 1, 2)), golden['logits_mean'], 1e-5)
  distance = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
  assert distance <= processors.BOUNDS['quantized_logits']
  # Logits are rounded to 255 steps of their range, [-4, 6].
  steps = logits / (10 / 255.0)
  np.testing.assert_allclose(steps, np.round(steps), atol=2e-3)


@pytest.mark.slow
def test_variables_and_regularized_weights_match_the_published_ones(golden_dir):
  with open(os.path.join(golden_dir, 'variables_float.json')) as content:
    published = {entry['name']: entry['shape'] for entry in json.load(content)
                 if not entry['name'].endswith(
                     constants.TRAINING_VARIABLE_ENDINGS)}
  golden = np.load(os.path.join(golden_dir, 'network65.npz'))
  with tf.Graph().as_default():
    deeplab_v3.logits(tf.zeros([1, 33, 33, 3]), TINY, weight_decay=1.0)
    ours = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
    assert set(tf.model_variables()) == set(tf.global_variables())
    regularized = [loss.op.name for loss in
                   tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)]
  assert ours == published
  assert len(ours) == 297
  assert sorted(name.split('/weights/')[0] for name in regularized) == sorted(
      str(name).split('/kernel/')[0] for name in golden['regularized'])
  assert len(regularized) == 41


@pytest.mark.slow
def test_features_at_all_output_strides_agree():
  """Subsampled dense features are the features at the nominal stride."""
  image = np.random.RandomState(0).uniform(-1, 1, [1, 65, 65, 3])
  features = {}
  for stride in options.OUTPUT_STRIDES:
    with tf.Graph().as_default(), tf.Session() as session:
      net, _ = mobilenet_v2.mobilenet_v2(
          tf.constant(image, tf.float32), output_stride=stride,
          depth_multiplier=0.25)
      golden_weights.load(session, tf.global_variables())
      features[stride] = session.run(net)
  assert features[32].shape == (1, 3, 3, 80)
  close(features[16][:, ::2, ::2], features[32])
  close(features[8][:, ::4, ::4], features[32])
  assert np.abs(features[32]).max() > 0.1


def test_labels_are_resized_by_nearest_neighbour_after_the_arg_max():
  # ModelOptions does not allow a crop this small.
  model = types.SimpleNamespace(prediction_with_upsampled_logits=False,
                                crop_size=(3, 3))
  corners = np.eye(32, dtype=np.float32)[np.array([[5, 6], [7, 8]])][np.newaxis]
  with tf.Graph().as_default(), tf.Session() as session:
    predictions = deeplab_v3.predictions(tf.constant(corners), model)
    labels = session.run(predictions)
  assert predictions.op.name == constants.OUTPUT_NODE
  assert labels[0, 0, 0] == 5 and labels[0, 2, 2] == 8
  assert set(labels.ravel()) <= {5, 6, 7, 8}


def test_predictions_are_resized_without_aligned_corners():
  """Aligned corners would put the middle pixel at 1/2, not at 2/3."""
  coarse = np.zeros([1, 1, 2, 32])
  coarse[0, 0, :, 5] = [1, 0]
  coarse[0, 0, :, 6] = [0, 0.9]
  with tf.Graph().as_default(), tf.Session() as session:
    labels = session.run(deeplab_v3.predictions(
        tf.constant(coarse, tf.float32), types.SimpleNamespace(
            prediction_with_upsampled_logits=True, crop_size=(1, 3))))
  np.testing.assert_array_equal(labels, [[[5, 6, 6]]])


def test_batch_norm_decay_is_used_in_training(shallow):
  with tf.Graph().as_default(), tf.Session() as session:
    deeplab_v3.logits(tf.zeros([2, 33, 33, 3]),
                      TINY._replace(batch_norm_decay=0.5),
                      train_batch_norm=True)
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    rates = session.run([
        update.op.inputs[1].op.inputs[1] for update in updates])
  # The backbone keeps its own decay, 0.997.
  assert {round(float(rate), 4) for rate in rates} == {0.003, 0.5}


def test_decoder_output_is_logits_removes_the_logits_layer(shallow):
  model = TINY._replace(decoder_output_is_logits=True)
  with tf.Graph().as_default():
    logits = deeplab_v3.logits(tf.zeros([1, 33, 33, 3]), model)
    names = [v.op.name for v in tf.global_variables()]
  assert logits.shape.as_list() == [1, 9, 9, 32]
  assert not [name for name in names if name.startswith('logits')]
  # No activation follows, because logits may be negative.
  assert logits.op.type == 'BiasAdd'


@pytest.mark.parametrize('value, divisor, smallest, expected', [
    (32, 8, None, 32), (16 * 0.5, 1, 1, 8), (24 * 0.35, 8, None, 8),
    (13, 8, None, 16), (20, 16, None, 32), (3, 8, None, 8)])
def test_make_divisible(value, divisor, smallest, expected):
  assert mobilenet_v2.make_divisible(value, divisor, smallest) == expected


@pytest.mark.parametrize('side, stride, expected', [
    (512, 16, 32), (512, 4, 128), (513, 16, 33), (257, 32, 9), (65, 4, 17)])
def test_scale_dimension(side, stride, expected):
  assert layers.scale_dimension(side, 1.0 / stride) == expected


def test_dropout_is_only_active_in_training():
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(0)
    kept = layers.dropout(tf.ones([100, 100]), keep_probability=0.9,
                          is_training=False, scope='kept')
    dropped = layers.dropout(tf.ones([100, 100]), keep_probability=0.9,
                             is_training=True, scope='dropped')
    kept, dropped = session.run([kept, dropped])
  assert (kept == 1).all()
  np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.9], rtol=1e-6)
  assert 0.88 < np.count_nonzero(dropped) / 1e4 < 0.92


@pytest.mark.parametrize('fake_quant', [
    None, fake_quant_lib.FakeQuant(is_training=True)])
def test_dropout_depends_only_on_its_seed(fake_quant):
  """The result does not depend on earlier draws."""
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.placeholder(tf.int64, [])
    dropped = layers.dropout(
        tf.ones([100, 100]), keep_probability=0.9, is_training=True,
        scope='dropped', seed=tf.stack([tf.constant(7, tf.int64), step]),
        fake_quant=fake_quant)
    session.run(tf.global_variables_initializer())
    first, again, other = [
        session.run(dropped, {step: number}) > 0 for number in (1, 1, 2)]
  assert 0.88 < np.mean(first) < 0.92
  assert (first == again).all() and (first != other).any()


@pytest.mark.slow
def test_probabilities_and_not_logits_are_averaged_over_scales(shallow):
  scales = (0.5, 1.5)
  model = TINY._replace(crop_size=(65, 65))
  image = np.random.RandomState(1).uniform(-1, 1, [1, 65, 65, 3])
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = tf.constant(image, tf.float32)
    labels = deeplab_v3.multi_scale_predictions(
        inputs, model, scales=scales, flip=True)
    outputs = []
    for side in (33, 97):
      scaled = tf.image.resize_bilinear(inputs, [side, side])
      for mirrored in (False, True):
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
          single = deeplab_v3.logits(
              scaled[:, :, ::-1] if mirrored else scaled,
              model._replace(crop_size=(side, side)))
        single = tf.image.resize_bilinear(single, [65, 65])
        outputs.append(single[:, :, ::-1] if mirrored else single)
    golden_weights.load(session, tf.global_variables())
    labels, outputs = session.run([labels, outputs])
  exponentials = [np.exp(output - output.max(axis=3, keepdims=True))
                  for output in outputs]
  probabilities = sum(value / value.sum(axis=3, keepdims=True)
                      for value in exponentials)
  wanted, unwanted = [
      sums.argmax(axis=3) for sums in (probabilities, sum(outputs))]
  assert (labels == wanted).mean() > 0.999
  # Where the two rules differ, the labels must follow the first one.
  differ = wanted != unwanted
  assert differ.sum() > 20
  assert (labels == wanted)[differ].mean() > 0.9
