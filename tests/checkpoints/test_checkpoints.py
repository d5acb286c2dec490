"""Tests finding, comparing and restoring checkpoints."""
import json
import os
import tarfile

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab.checkpoints import compatibility
from deeplab.checkpoints import find
from deeplab.checkpoints import read
from deeplab.checkpoints import restore as restore_lib
from deeplab.config import options
from deeplab.errors import InputError

pytestmark = [pytest.mark.tf1, pytest.mark.modern]

MODEL = options.ModelOptions(decoder_output_stride=(4,))
BACKBONE = 'MobilenetV2/Conv/weights'
LOGITS = 'logits/semantic/weights'


def save(folder, variables, step=7):
  """Writes a checkpoint of a dict from name to array; returns its prefix."""
  os.makedirs(str(folder), exist_ok=True)
  with tf.Graph().as_default(), tf.Session() as session:
    made = [tf.get_variable(name, initializer=np.asarray(value, np.float32))
            for name, value in variables.items()]
    session.run(tf.global_variables_initializer())
    return tf.train.Saver(made).save(
        session, os.path.join(str(folder), 'model.ckpt'), global_step=step,
        write_meta_graph=False)


def shapes(variables):
  return {name: list(np.shape(value)) for name, value in variables.items()}


FLOAT = {BACKBONE: np.zeros([3, 3]), 'image_pooling/weights': np.zeros(2),
         LOGITS: np.zeros([1, 1, 4, 32])}


def test_every_way_to_name_a_checkpoint_finds_its_prefix(tmp_path):
  prefix = save(tmp_path, FLOAT)
  for name in (str(tmp_path), prefix, prefix + '.index',
               prefix + '.data-00000-of-00001', prefix + '.meta'):
    assert find.find(name, 'x') == prefix
  assert read.step_of(prefix) == 7
  assert read.step_of('model.ckpt') == 0


def test_without_a_state_file_the_largest_step_is_the_newest(tmp_path):
  prefixes = [save(tmp_path, FLOAT, step) for step in (9, 100, 20)]
  os.remove(str(tmp_path / 'checkpoint'))
  assert find.find_latest(str(tmp_path)) == prefixes[1]


def test_a_missing_checkpoint_is_named_with_what_is_there(tmp_path):
  with pytest.raises(InputError, match=r'flag=.*: no checkpoint in this '
                     r'folder \(0 \*.index'):
    find.find(str(tmp_path), 'flag')
  save(tmp_path, FLOAT)
  with pytest.raises(InputError, match='that folder holds model.ckpt-7'):
    find.find(str(tmp_path / 'model.ckpt-8'), 'flag')
  with pytest.raises(InputError, match='no checkpoint in that folder'):
    find.find(str(tmp_path / 'no' / 'model.ckpt'), 'flag')


# --- Damage ----------------------------------------------------------------


def damaged(path, how):
  """Removes or cuts a file, or flips a bit of it."""
  content = bytearray(path.read_bytes())
  if how == 'removed':
    path.unlink()
  elif how == 'cut':
    path.write_bytes(content[:len(content) - 5])
  else:
    content[len(content) // 3] ^= 16
    path.write_bytes(content)


@pytest.fixture
def three(tmp_path):
  """A folder with checkpoints of steps 1, 2 and 10."""
  random = np.random.RandomState(1)
  for step in (1, 2, 10):
    save(tmp_path, {'a': random.rand(50), 'b': random.rand(50)}, step)
  tf.train.update_checkpoint_state(str(tmp_path), 'model.ckpt-10', [
      'model.ckpt-{}'.format(step) for step in (1, 2, 10)])
  return tmp_path


@pytest.mark.parametrize('part, how', [
    ('.index', 'removed'), ('.index', 'cut'),
    ('.data-00000-of-00001', 'removed'), ('.data-00000-of-00001', 'flipped')])
def test_a_damaged_newest_checkpoint_is_skipped(three, caplog, part, how):
  newest = str(three / 'model.ckpt-10')
  damaged(three / ('model.ckpt-10' + part), how)
  assert find.find(str(three), 'x') == str(three / 'model.ckpt-2')
  [record] = caplog.records
  line = record.getMessage()
  assert line.startswith('{}: model.ckpt-10 cannot be read ('.format(three))
  assert line.endswith('; taking model.ckpt-2') and '\n' not in line
  with pytest.raises(InputError, match='model.ckpt-10 cannot be read .* '
                     'strict_checkpoint=true'):
    find.find(str(three), 'x', strict=True)
  # A checkpoint that is named has no substitute.
  with pytest.raises(InputError, match=r'x=.*model.ckpt-10.* \('):
    find.find(newest, 'x')
  assert len(caplog.records) == 1


def test_if_no_checkpoint_can_be_read_all_are_named(three):
  for step in (1, 2, 10):
    damaged(three / 'model.ckpt-{}.index'.format(step), 'cut')
  with pytest.raises(InputError) as error:
    find.find(str(three), 'x')
  for step in (1, 2, 10):
    assert 'model.ckpt-{} cannot be read'.format(step) in str(error.value)


def test_every_flipped_byte_of_the_data_is_detected(tmp_path):
  prefix = save(tmp_path, {'a': np.arange(7), 'b/w': np.ones([2, 3])})
  path = tmp_path / 'model.ckpt-7.data-00000-of-00001'
  content = path.read_bytes()
  assert read.damage_of(prefix) is None and len(content) >= 13 * 4
  for position in range(len(content)):
    flipped = bytearray(content)
    flipped[position] ^= 1
    path.write_bytes(flipped)
    assert read.damage_of(prefix), position


@pytest.mark.parametrize('state', [
    b'', b'\x00\xff\xfe', b'all_model_checkpoint_paths: "a"',
    b'model_checkpoint_path: "/nowhere/model.ckpt-3"'])
def test_a_useless_state_file_is_named(three, caplog, state):
  (three / 'checkpoint').write_bytes(state)
  assert find.find(str(three), 'x') == str(three / 'model.ckpt-10')
  [record] = [record for record in caplog.records
              if record.name.startswith('deeplab')]  # not TensorFlow's
  assert 'the state file checkpoint ' in record.getMessage()
  assert record.getMessage().endswith('taking model.ckpt-10')
  with pytest.raises(InputError, match='the state file checkpoint'):
    find.find(str(three), 'x', strict=True)


def test_a_state_file_names_the_newest_checkpoint(three, caplog):
  # The folder was moved, so the state file names another one.
  tf.train.update_checkpoint_state(str(three), '/was/model.ckpt-2', [
      '/was/model.ckpt-{}'.format(step) for step in (10, 2)])
  assert find.find(str(three), 'x') == str(three / 'model.ckpt-2')
  # Just after a save, the state file does not name it yet.
  prefix = save(three, {'a': 0.0}, 11)
  tf.train.update_checkpoint_state(str(three), 'model.ckpt-2', [
      'model.ckpt-{}'.format(step) for step in (10, 2)])
  assert find.find(str(three), 'x') == prefix
  # Data files are renamed before the index.
  (three / 'model.ckpt-12.data-00000-of-00001').write_bytes(b'')
  assert find.find(str(three), 'x', strict=True) == prefix
  assert not caplog.records


def test_damage_in_a_watched_folder_is_logged_once(three, caplog, monkeypatch):
  damaged(three / 'model.ckpt-10.index', 'cut')
  seen = []
  damage_of = read.damage_of
  monkeypatch.setattr(read, 'damage_of', lambda prefix: (
      seen.append(os.path.basename(prefix)), damage_of(prefix))[1])
  newest = find.Newest(str(three))
  for _ in range(3):
    assert newest.find() == str(three / 'model.ckpt-2')
  assert seen == ['model.ckpt-10', 'model.ckpt-2']
  assert len(caplog.records) == 1
  for path in list(three.glob('model.ckpt-*')):
    path.unlink()
  prefix = save(three, {'a': 0.0}, 11)
  assert newest.find() == prefix and seen[2:] == ['model.ckpt-11']


def test_a_checkpoint_removed_by_its_trainer_is_not_damaged(
    three, caplog, monkeypatch):
  """A trainer that keeps one checkpoint removes it during the read."""
  damage_of = read.damage_of

  def replaced(prefix):
    if prefix.endswith('-10'):
      for path in list(three.glob('model.ckpt-*')):
        path.unlink()
      save(three, {'a': 0.0}, 11)
    return damage_of(prefix)

  monkeypatch.setattr(read, 'damage_of', replaced)
  assert find.find(str(three), 'x', strict=True) == str(
      three / 'model.ckpt-11')
  assert not caplog.records


@pytest.mark.parametrize('name', [
    'a[1]*?', 'back\\slash', '\u00fc\u4e2d \n'])
def test_a_folder_may_have_any_name(tmp_path, name):
  for other in (name, 'a1', 'ab', 'x'):
    (tmp_path / other).mkdir()
  folder = tmp_path / name
  save(folder, {'a': [1.0, 2.0]}, 1)
  os.rename(str(save(folder, {'a': [3.0, 4.0]}, 2)) + '.index',
            str(folder / 'model.ckpt-2.index'))
  prefix = find.find(str(folder), 'x')
  assert prefix == str(folder / 'model.ckpt-2')
  assert find.find(prefix, 'x') == prefix
  assert read.variables_in(prefix) == {'a': [2]}
  with tf.Graph().as_default(), tf.Session() as session:
    variable = tf.get_variable('a', [2])
    restore_lib.restorer([variable])(session, prefix)
    assert list(session.run(variable)) == [3, 4]


@pytest.mark.parametrize('value', [np.inf, np.nan])
def test_weights_that_are_not_finite_are_not_restored(tmp_path, value):
  prefix = save(tmp_path, {'a': [1.0], 'b': [1.0, value], 'c': [value]})
  with tf.Graph().as_default(), tf.Session() as session:
    variables = [tf.get_variable('a', [1]), tf.get_variable('b', [2])]
    with pytest.raises(InputError, match='model.ckpt-7: 1 of 2 values of b are '
                       'inf or NaN'):
      restore_lib.restorer(variables)(session, prefix)
    restore_lib.restorer(variables[:1])(session, prefix)


def test_restoring_needs_every_variable_with_its_type(tmp_path):
  prefix = save(tmp_path, FLOAT)
  for name, dtype, words in (
      ('x/Momentum', tf.float32, 'x/Momentum not found in checkpoint'),
      (BACKBONE, tf.float64, 'expected dtype double does not equal original '
       'dtype float')):
    with tf.Graph().as_default(), tf.Session() as session:
      variable = tf.get_variable(name, [3, 3], dtype)
      with pytest.raises(InputError, match='model.ckpt-7: .*' + words):
        restore_lib.restorer([variable])(session, prefix)


# --- Comparing with a graph ------------------------------------------------


@pytest.mark.parametrize('stored, graph, words', [
    ({'decoder/x/weights': 0.0}, {}, ['1 variable (decoder/x/weights)',
                                      'decoder_output_stride=4?']),
    ({}, {'decoder/x/weights': []}, ['lacks', 'drop decoder_output_stride']),
    ({'logits/semantic/act_quant/max': 0.0}, {},
     ['quantization-aware', 'add quantize_delay_step=0']),
    ({}, {'logits/semantic/act_quant/max': []},
     ['float checkpoint', 'drop quantize_delay_step']),
    ({}, {LOGITS: [1, 1, 4, 21]},
     ['[1, 1, 4, 32], expected [1, 1, 4, 21]', 'give num_classes=32']),
    ({'aspp1/weights': 0.0}, {BACKBONE: [3, 4]},
     ['1 variable (aspp1/weights)', BACKBONE,
      'other options of the network, such as depth_multiplier or atrous']),
])
def test_a_checkpoint_that_does_not_fit_names_the_likely_flag(
    tmp_path, stored, graph, words):
  prefix = save(tmp_path, dict(FLOAT, **stored))
  with pytest.raises(InputError) as error:
    compatibility.check_fits(prefix, dict(shapes(FLOAT), **graph))
  for word in words:
    assert word in str(error.value)


def test_variables_of_training_may_stay_unused(tmp_path):
  prefix = save(tmp_path, dict(FLOAT, **{
      BACKBONE + '/Adam': 0.0, BACKBONE + '/Momentum': 0.0,
      'beta1_power': 0.0, 'x/act_quant/x/act_quant/max/biased': 0.0,
      'concat_projection_dropout/dropout/mul/activation_Mul_quant/max': 0.0}))
  compatibility.check_fits(prefix, shapes(FLOAT))


def write(folder, model=MODEL, optimizer='adam'):
  compatibility.write_options(str(folder), model, optimizer=optimizer)
  return str(folder / 'model.ckpt-1')


def test_options_are_read_back_unchanged(tmp_path):
  model = MODEL._replace(
      atrous_rates=(6, 12), divisible_by=16, quantize_delay_step=7)
  write(tmp_path, model)
  assert compatibility.read_options(str(tmp_path))[:2] == (model, 'adam')
  assert compatibility.read_options(str(tmp_path / 'other')) is None
  written = json.loads((tmp_path / 'model_options.json').read_text())
  assert written['model']['decoder_output_stride'] == [4]


@pytest.mark.parametrize('trained, given, words', [
    ({}, {'decoder_output_stride': ()},
     'decoder_output_stride: checkpoint was trained with 4, got None'),
    ({}, {'atrous_rates': (6,)}, 'atrous_rates'),
    ({}, {'quantize_delay_step': 0},
     'trained in float: drop quantize_delay_step'),
    ({'quantize_delay_step': 0}, {}, 'add quantize_delay_step=0'),
    # The step and the implementation do not change the variables.
    ({'quantize_delay_step': 0},
     {'quantize_delay_step': 9, 'fake_quant': options.LAYERS}, None),
    ({'atrous_rates': (6, 12)},
     {'atrous_rates': (12, 24), 'output_stride': 8, 'crop_size': (257, 257)},
     None)])
def test_flags_that_differ_from_training_are_refused(
    tmp_path, caplog, trained, given, words):
  prefix = write(tmp_path, MODEL._replace(**trained))
  if words:
    with pytest.raises(InputError, match=words):
      compatibility.check_options(prefix, MODEL._replace(**given))
  else:
    compatibility.check_options(prefix, MODEL._replace(**given))
    assert ('trained with output_stride=16, used with 8' in caplog.text) == (
        'output_stride' in given)


def test_a_folder_with_another_configuration_is_not_resumed(tmp_path):
  write(tmp_path, optimizer='momentum')
  compatibility.check_resumable(
      str(tmp_path), MODEL, optimizer='momentum', recipe={})
  with pytest.raises(InputError, match='trained in float: drop '
                     'quantize_delay_step; optimizer: was momentum, now '
                     'adam.*new train_logdir'):
    compatibility.check_resumable(
        str(tmp_path), MODEL._replace(quantize_delay_step=0), optimizer='adam',
        recipe={})


@pytest.mark.parametrize('content, problem', [
    ('\xff', 'no JSON: '), ('[' * 100000, 'nested too deeply'),
    ('null', 'expected a dict that has a dict as model'),
    ('{"model": [1]}', 'expected a dict that has'),
    ('{"model": {}, "training": 1}', 'expected a dict as training'),
    ('{"model": {"colour": 1}}', 'unknown ModelOptions colour'),
    ('{"model": {}, "optimizer": []}', 'optimizer=: expected momentum'),
    ('{"model": {"num_classes": null}}', 'num_classes='),
    ('{"model": {"depth_multiplier": 1e400}}', 'depth_multiplier=')])
def test_an_unreadable_options_file_is_named(tmp_path, content, problem):
  path = tmp_path / 'model_options.json'
  path.write_bytes(content.encode('latin-1'))
  with pytest.raises(InputError) as error:
    compatibility.read_options(str(tmp_path))
  line = str(error.value)
  assert line.startswith('{}: {}'.format(path, problem)), line
  assert line.endswith('; remove the file to do without')
  assert '\n' not in line and len(line) - len(str(path)) < 200


# --- Starting from a checkpoint --------------------------------------------


def restore(path, variables, excluded=()):
  """Returns the values after initialization and restoring."""
  with tf.Graph().as_default(), tf.Session() as session:
    made = {name: tf.get_variable(
        name, initializer=np.asarray(value, np.float32))
            for name, value in variables.items()}
    initialize = restore_lib.initializer_from(
        path, list(made.values()), excluded)
    session.run(tf.global_variables_initializer())
    initialize(session)
    return session.run(made)


def test_all_but_excluded_variables_are_restored(tmp_path, caplog):
  caplog.set_level('INFO')
  ones = {name: np.ones_like(value) for name, value in FLOAT.items()}
  prefix = save(tmp_path, dict(ones, global_step=5.0,
                               **{BACKBONE + '/Adam': np.ones([3, 3])}))
  zeros = dict(FLOAT, global_step=0.0, **{
      BACKBONE + '/Adam': np.zeros([3, 3]), 'extra/weights': 0.0,
      'x/weights_quant/max': 6.0})
  values = restore(prefix + '.index', zeros, excluded=('logits',))
  assert (values[BACKBONE] == 1).all()
  assert (values[BACKBONE + '/Adam'] == 1).all()
  assert (values[LOGITS] == 0).all()
  assert values['global_step'] == 0
  assert values['extra/weights'] == 0 and values['x/weights_quant/max'] == 6
  assert ('restored 2/4 model variables from {} (newly initialized: '
          'extra, logits)'.format(prefix)) in caplog.text


def test_an_incomplete_backbone_is_refused(tmp_path):
  prefix = save(tmp_path, {'logits/semantic/weights': np.zeros(3)})
  with pytest.raises(InputError, match='lacks 1 of 1 variables of the '
                     'backbone'):
    restore(prefix, FLOAT)


def test_variables_of_another_shape_are_named(tmp_path):
  prefix = save(tmp_path, dict(FLOAT, **{LOGITS: np.zeros([1, 1, 4, 151])}))
  with pytest.raises(InputError, match='checkpoint has 151 classes, the model '
                     '32: add initialize_last_layer=false'):
    restore(prefix, FLOAT)
  restore(prefix, FLOAT, excluded=('logits',))
  prefix = save(tmp_path, dict(FLOAT, **{BACKBONE: np.zeros([3, 4])}))
  with pytest.raises(InputError, match=r'Conv/weights is \[3, 4\], expected '
                     r'\[3, 3\]'):
    restore(prefix, FLOAT)


def test_an_unused_decoder_is_not_ignored_silently(tmp_path, caplog):
  prefix = save(tmp_path, dict(FLOAT, **{
      'decoder/a/weights': 0.0, 'decoder/b/BatchNorm/gamma': 0.0,
      'decoder/a/weights/Adam': 0.0}))
  with pytest.raises(InputError, match=r'has 2 variables \(decoder/a/weights, '
                     'decoder/b/BatchNorm/gamma\\) that this network does not '
                     'use; add decoder_output_stride=4 .*'
                     'initialize_last_layer=false'):
    restore(prefix, FLOAT)
  restore(prefix, FLOAT, excluded=('logits', 'decoder'))
  assert not caplog.records
  prefix = save(tmp_path / 'other', dict(FLOAT, **{'head/weights': 0.0}))
  restore(prefix, FLOAT)
  assert 'has 1 variable (head/weights) that this network does not' in (
      caplog.text)


def test_ranges_of_dropout_are_not_counted_as_missing(tmp_path, caplog):
  caplog.set_level('INFO')
  restore(save(tmp_path, FLOAT), dict(FLOAT, **{
      'concat_projection_dropout/dropout/mul/activation_Mul_quant/min': 0.0}))
  assert 'restored 3/3 model variables' in caplog.text
  assert 'newly initialized' not in caplog.text


def test_another_kind_of_file_is_named(tmp_path):
  with tarfile.open(str(tmp_path / 'model.tar.gz'), 'w:gz'):
    pass
  (tmp_path / 'freeze.pb').write_bytes(b'')
  for name, words in (('model.tar.gz', 'is an archive; unpack it and give'),
                      ('freeze.pb', 'is a frozen graph')):
    with pytest.raises(InputError, match='x=.*{}: {}'.format(name, words)):
      find.find(str(tmp_path / name), 'x')


def test_the_step_comes_from_the_checkpoint_or_its_name(tmp_path):
  prefix = save(tmp_path, dict(FLOAT, global_step=5.0))
  assert read.global_step_in(prefix) == 5
  prefix = save(tmp_path / 'other', FLOAT)
  assert read.global_step_in(prefix) == 7


def test_a_resume_with_another_recipe_is_logged(tmp_path, caplog):
  compatibility.write_options(
      str(tmp_path), MODEL, optimizer='adam', recipe={
          'batch_size': 4, 'seed': None, 'records': [['a', 1]], 'old': 1})
  compatibility.check_resumable(
      str(tmp_path), MODEL, optimizer='adam', recipe={
          'batch_size': 2, 'seed': None, 'records': [['a', 2]], 'new': 1})
  assert [record.getMessage() for record in caplog.records] == [
      'resuming with another batch_size than before: 2, was 4',
      'resuming with other records than before: the names or sizes of the '
      'shards differ']
