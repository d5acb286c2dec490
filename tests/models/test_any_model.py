"""Tests how models of any kind are recognized and opened."""
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.checkpoints import compatibility
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.models import interface
from deeplab.models import open_model
from deeplab.nets import deeplab_v3
from deeplab.storage import files
from tests import lite_models
from tests import small_models

SIZE = small_models.SIZE
# The smallest valid TFLite model.
EMPTY_TFLITE = b'\x0c\0\0\0TFL3\x04\0\x04\0\x04\0\0\0'


@pytest.fixture(scope='module')
def checkpoint(shallow_module, tmp_path_factory):
  """Writes a checkpoint of 5 classes with a decoder, and nothing else."""
  prefix = str(tmp_path_factory.mktemp('train') / 'model.ckpt-7')
  with tf.Graph().as_default(), tf.Session() as session:
    deeplab_v3.logits(tf.zeros([1] + list(SIZE) + [3]),
                      options_lib.ModelOptions(
                          num_classes=5, crop_size=SIZE,
                          decoder_output_stride=(4,)))
    session.run(tf.global_variables_initializer())
    tf.train.Saver().save(session, prefix)
  return prefix


def test_kinds_are_recognized_by_content(tmp_path, checkpoint):
  graph = small_models.write_graph(tmp_path / 'x.tflite')
  lite = tmp_path / 'x.pb'
  lite.write_bytes(EMPTY_TFLITE)
  for path, expected in (
      (graph, (interface.FROZEN_GRAPH, graph)),
      (str(lite), (interface.TFLITE, str(lite))),
      (checkpoint, (interface.CHECKPOINT, checkpoint)),
      (checkpoint + '.index', (interface.CHECKPOINT, checkpoint)),
      (os.path.dirname(checkpoint), (interface.CHECKPOINT, checkpoint))):
    assert tuple(open_model.find(path)) == expected


def test_other_files_are_refused(tmp_path):
  path = tmp_path / 'x'
  for content, problem in (
      (b'', 'an empty file'), (b'text of no use', "begins with b'text of '")):
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
      open_model.find(str(path), 'given')
    assert str(error.value) == (
        'given={}: {}; expected a checkpoint, a frozen graph, a SavedModel, an '
        'ONNX file or a TFLite file'.format(path, problem))


def test_paths_without_a_model_are_refused(tmp_path):
  os.mkfifo(str(tmp_path / 'pipe'))
  for path, problem in ((tmp_path / 'none', 'no such file'),
                        (tmp_path / 'pipe', 'is a device or a pipe'),
                        (tmp_path, 'no checkpoint in this folder')):
    with pytest.raises(InputError) as error:
      open_model.find(str(path))
    assert 'model={}: {}'.format(path, problem) in str(error.value)


@pytest.mark.slow
def test_the_structure_of_a_checkpoint_comes_from_its_variables(checkpoint):
  options = open_model.model_options(checkpoint, SIZE)
  assert options == options_lib.ModelOptions(
      num_classes=5, crop_size=SIZE, decoder_output_stride=(4,))
  with open_model.open_predictor(
      open_model.find(checkpoint), crop_size=SIZE) as predictor:
    assert predictor.input_size == SIZE
    assert predictor.description == checkpoint
    assert predictor.runtime.startswith('TensorFlow ')
    facts = open_model.facts(open_model.find(checkpoint), predictor)
    assert facts['bytes'] == sum(
        os.path.getsize(checkpoint + ending)
        for ending in ('.index', '.data-00000-of-00001'))
    assert facts['sha256'] == files.sha256_of(checkpoint + '.index')
    assert facts['precision'] == interface.FLOAT32
    assert facts['input']['shape'] == [1, *SIZE, 3]
    labels = predictor.predict(np.zeros((2,) + SIZE + (3,), np.float32))
  assert labels.shape == (2,) + SIZE
  assert 0 <= labels.min() and labels.max() < 5


def test_structure_follows_from_names_and_shapes():
  assert compatibility.options_by_variables({
      'logits/semantic/weights': [1, 1, 256, 32],
      'logits/semantic/weights_quant/max': []}, 'x') == (
          options_lib.ModelOptions(quantize_delay_step=0))
  for stored in ({}, {'logits/semantic/weights': []}):
    with pytest.raises(InputError) as error:
      compatibility.options_by_variables(stored, 'x')
    assert str(error.value) == (
        'x: lacks logits/semantic/weights; it is not of this network')


def test_options_beside_a_checkpoint_take_precedence(tmp_path):
  options = options_lib.ModelOptions(num_classes=7, crop_size=(65, 97))
  compatibility.write_options(str(tmp_path), options, optimizer=None)
  prefix = str(tmp_path / 'model.ckpt-1')
  assert open_model.model_options(prefix) == options
  assert open_model.model_options(prefix, SIZE).crop_size == SIZE


def test_a_label_map_beside_a_model_is_used(tmp_path):
  graph = tmp_path / 'x.pb'
  model = open_model.find(small_models.write_graph(graph))
  checkpoint = open_model.ModelFile(
      interface.CHECKPOINT, str(tmp_path / 'model.ckpt-7'))
  assert open_model.label_map_of(model) is None
  assert open_model.label_map_of(checkpoint) is None
  small_models.describe(graph, small_models.OWN)
  assert open_model.label_map_of(model) == small_models.OWN
  compatibility.write_options(
      str(tmp_path),
      options_lib.ModelOptions().with_classes(small_models.OTHER),
      optimizer=None)
  assert open_model.label_map_of(checkpoint) == small_models.OTHER


def test_a_graph_has_an_input_size(tmp_path):
  model = open_model.find(small_models.write_graph(tmp_path / 'x.pb'))
  with open_model.open_predictor(model) as predictor:
    assert predictor.input_size == SIZE
    image = np.zeros((1,) + SIZE + (3,), np.float32)
    image[..., 2] = 255
    np.testing.assert_array_equal(
        predictor.predict(image), np.full((1,) + SIZE, 2))
  with pytest.raises(InputError, match='x.pb takes images of 33x33, but '
                     'crop_size=65,65'):
    open_model.open_predictor(model, crop_size=(65, 65))
  model = open_model.find(
      small_models.write_graph(tmp_path / 'x.pb', (1, 33, 33, 4)))
  with pytest.raises(InputError, match=r'x.pb: input is 1x33x33x4, expected '
                     r'\[batch, height, width, 3\]'):
    open_model.open_predictor(model)


def test_a_graph_with_a_fixed_batch_takes_a_short_last_batch(tmp_path):
  model = open_model.find(small_models.write_graph(
      tmp_path / 'x.pb', (2,) + SIZE + (3,)))
  images = np.zeros((3,) + SIZE + (3,), np.float32)
  for number in range(3):
    images[number, ..., 2 - number] = 255
  with open_model.open_predictor(model) as predictor:
    labels = predictor.predict(images)
  np.testing.assert_array_equal(labels[:, 0, 0], [2, 1, 0])


def test_class_names_are_known_or_logged_as_assumed(tmp_path, caplog):
  path = tmp_path / 'x.pb'

  def names_of(label_map=None, classes=(0, 1, 2)):
    if not (tmp_path / 'x.json').exists():
      small_models.write_graph(path, classes=classes)
    model = open_model.find(str(path))
    with open_model.open_predictor(model) as predictor:
      return open_model.classes_of(model, predictor, label_map).names

  assert names_of() == ('other', 'class 1', 'class 2')
  assert 'x.pb has no label map: its 3 classes are shown as numbers' in (
      caplog.text)
  caplog.clear()
  assert names_of(classes=(0, 1, 31)) == constants.CLASS_NAMES
  assert "x.pb has no label map: ADE20K's names are assumed" in caplog.text
  caplog.clear()
  csv = tmp_path / 'map.csv'
  csv.write_text('id,class,name\n1,1,built\n2,2,ground\n')
  assert names_of(str(csv)) == ('other', 'built', 'ground')
  with pytest.raises(InputError, match='map.csv: has 3 classes; .*x.pb has 32'):
    names_of(str(csv), classes=(0, 1, 31))
  small_models.write_graph(path)
  small_models.describe(path, small_models.OWN)
  assert names_of() == small_models.OWN.names
  assert not caplog.text


@pytest.mark.slow
def test_a_tflite_file_has_an_input_size(tmp_path):
  path = tmp_path / 'x.tflite'
  path.write_bytes(lite_models.argmax_model((8, 8)))
  model = open_model.find(str(path))
  with open_model.open_predictor(model) as predictor:
    assert predictor.input_size == (8, 8)
    assert predictor.num_classes == 4
    assert predictor.runtime.endswith(', 1 thread')
    labels = predictor.predict(np.zeros([1, 8, 8, 3], np.float32))
  assert labels.shape == (1, 8, 8)
  with pytest.raises(InputError) as error:
    open_model.open_predictor(model, crop_size=SIZE)
  assert str(error.value) == (
      '{} takes images of 8x8, but crop_size=33,33'.format(path))
