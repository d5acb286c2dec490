"""Tests label maps: reading, refusals, agreement and use in every step.

smoke/test_own_data.py tests the chain of scripts with a label map.
"""
import json
import os

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.checkpoints import compatibility
from deeplab.config import label_map
from deeplab.config import options
from deeplab.data import builder
from deeplab.data import dataset
from deeplab.data import png_folder
from deeplab.data import png_folder_writer
from deeplab.data import preprocess
from deeplab.data import splits
from deeplab.errors import InputError
from deeplab.evaluation import tflite as lite_evaluation
from deeplab.evaluation import visualize
from deeplab.models import metadata
from deeplab.storage import files
from deeplab.training import train as train_lib
from tests import flag_groups
from tests import record_sets

CSV = """id,class,name
# what is built
1,1,structure
0,1,structure
200, 2 ,"ground, floor"

"""
MAP = label_map.LabelMap(
    ('other', 'structure', 'ground, floor'), ((), (0, 1), (200,)))
JSON = {'classes': [
    {'class': 2, 'name': 'ground, floor', 'ids': [200]},
    {'class': 1, 'name': 'structure', 'ids': [1, 0]}]}
OTHER = MAP._replace(ids=((), (0, 1), (201,)))
CROP = (33, 33)
MODEL = options.ModelOptions(crop_size=CROP)


def read(tmp_path, text):
  (tmp_path / 'map').write_bytes(
      text if isinstance(text, bytes) else text.encode('utf-8'))
  return label_map.read(str(tmp_path / 'map'))


# --- Reading ---------------------------------------------------------------


@pytest.mark.parametrize('text', [
    CSV, '\ufeff' + CSV, CSV.replace('\n', '\r\n'), json.dumps(JSON),
    '\n ' + json.dumps(JSON, indent=2),
    # An id may be listed as other.
    CSV + '7,0,other\n'])
def test_csv_and_json_are_read(tmp_path, text):
  assert read(tmp_path, text) == MAP


def test_every_id_has_a_class():
  assert MAP.num_classes == 3
  assert MAP.table == (1, 1) + (0,) * 198 + (2,) + (0,) * 55
  assert MAP.counts(range(256)) == (sum(range(256)) - 201, 1, 200)


def test_the_classes_of_ade20k_are_a_label_map_too():
  assert label_map.ADE20K.table == tuple(range(32)) + (0,) * 224
  assert label_map.ADE20K.names == constants.CLASS_NAMES
  assert label_map.ADE20K.palette == constants.PALETTE
  assert label_map.ADE20K.largest_id == 150 and MAP.largest_id == 255
  assert label_map.json_entry(label_map.ADE20K) == {}


@pytest.mark.parametrize('num_classes', [2, 31, 33, 151, 255])
def test_classes_without_a_label_map_have_numbers_as_names(
    num_classes):
  found = label_map.of_model(num_classes)
  assert found.num_classes == len(found.palette) == num_classes
  assert found.names[0] == 'other'
  assert found.names[-1] == 'class {}'.format(num_classes - 1)
  assert label_map.of_model(num_classes, label_map.ADE20K) == found
  assert MODEL._replace(num_classes=num_classes).classes == found


def test_32_classes_without_a_label_map_are_ade20k():
  assert label_map.of_model(3, MAP) == MAP
  assert label_map.of_model(32) == label_map.ADE20K


def test_a_label_map_may_have_255_classes(tmp_path):
  lines = ['{},{},n{}'.format(number, number, number)
           for number in range(1, 255)]
  found = read(tmp_path, '\n'.join(['id,class,name'] + lines))
  assert found.num_classes == 255 and found.palette[0] == (0, 0, 0)
  assert len(set(found.palette)) == 255
  assert label_map.from_json(found.to_json()) == found


def lines(*rows):
  return '\n'.join(('id,class,name',) + rows)


@pytest.mark.parametrize('text, words', [
    ('', 'lists no class; expected at least class 1'),
    (lines('3,0,other'), 'lists no class'),
    ('3,1,wall', 'line 1 is 3,1,wall; expected id,class,name'),
    (lines('1,1'), 'line 2 is 1,1; expected id,class,name'),
    (lines('1,1,"wall'), 'line 2: unexpected end of data; expected id,class'),
    (lines('1,1,a', '', '1,2,b'), 'line 4: id 1 is listed twice, first in '
     'line 2'),
    (lines('256,1,a'), 'line 2: id 256: expected a whole number from 0 to 255'),
    (lines('-1,1,a'), 'line 2: id -1: expected'),
    (lines('1.0,1,a'), 'line 2: id 1.0: expected'),
    (lines('\u0663,1,a'), 'line 2: id \u0663: expected a whole number'),
    (lines('1,one,a'), 'line 2: class one: expected a whole number from 0 to '
     '254'),
    (lines('1,255,a'), 'line 2: class 255: expected a whole number from 0 to'),
    (lines('1,1,a', '2,3,b'), 'no id of class 2, but of class 3; expected '
     'classes 1, 2, ... without a gap'),
    (lines('1,1,'), "line 2: class 1 is called ''; expected a name"),
    (lines('1,1,a\tb'), 'class 1 is called a\\\\tb; expected a name of 1 to'),
    (lines('1,1,' + 41 * 'a'), 'called a{40}\\.\\.\\.; expected a name of 1 to '
     '40 visible characters'),
    (lines('1,1,a', '2,1,b'), 'line 3: class 1 is called b, and before a'),
    (lines('1,1,a', '2,2,a'), 'line 3: class 2 is called a, as another class'),
    (lines('1,1,other'), 'line 2: class 1 is called other, as another class'),
    (lines('1,0,sky'), 'line 2: class 0 is called sky, and before other'),
    (b'id,class,name\n1,1,Geb\xe4ude\n',
     r'line 2: class 1 is called Geb\\udce4ude; expected .* in UTF-8'),
    ('{"classes": ', 'no JSON'),
    ('[1]', r'expected \{"classes"'),
    ('{"classes": {}}', r'expected \{"classes"'),
    ('{"classes": [1]}', 'entry 1 of classes: expected class, name and ids'),
    ('{"classes": [{"class": 1, "name": "a", "id": [1]}]}', 'entry 1 of'),
    ('{"classes": [{"class": 1, "name": "a", "ids": []}]}', 'expected ids, a '
     'list of at least one number'),
    ('{"classes": [{"class": 1, "name": "a", "ids": [true]}]}', 'entry 1: id '
     'True: expected a whole number'),
    ('{"classes": [{"name": "a", "ids": [1]}]}', 'entry 1: class None: exp'),
    ('{"classes": [{"class": 1, "ids": [1]}]}', 'class 1 is called None'),
    (b'\x00\x01', 'not a text file'),
])
def test_bad_label_maps_are_refused_in_one_line(tmp_path, text, words):
  with pytest.raises(InputError, match='^label_map={}: (.*{})'.format(
      tmp_path / 'map', words)) as caught:
    read(tmp_path, text)
  assert '\n' not in str(caught.value)


def test_a_missing_label_map_is_refused(tmp_path):
  with pytest.raises(InputError, match='no such file; expected a label map'):
    label_map.read(str(tmp_path / 'none'))


def test_conflicting_label_maps_are_refused():
  ade20k = label_map.ADE20K
  assert label_map.agreed(('a', None), ('b', None)) == ade20k
  assert label_map.agreed(('a', None), ('b', MAP), ('c', None)) == MAP
  assert label_map.agreed(('a', MAP), ('c', MAP)) == MAP
  with pytest.raises(InputError, match='^a: id 200 is 2 ground, floor, but 0 '
                     'other by c; expected the same classes'):
    label_map.agreed(('a', MAP), ('b', None), ('c', OTHER))
  with pytest.raises(InputError, match='^a: id 0 is 0 other, but 1 structure'):
    label_map.agreed(('a', ade20k), ('b', MAP))


# --- Steps -----------------------------------------------------------------


def test_ids_become_classes_before_resizing():
  label = np.array([[0, 1, 2, 200, 255]], np.uint8)
  crop = options.PreprocessOptions(crop_size=(2, 6))
  with tf.Graph().as_default(), tf.Session() as session:
    found = session.run([preprocess.for_evaluation(
        tf.zeros([1, 5, 3]), tf.constant(label[..., np.newaxis]), crop,
        which)[1][..., 0] for which in (MAP, label_map.ADE20K)])
  # Padding is no id; it becomes class 0 of this map.
  assert found[0].tolist() == [[1, 1, 0, 2, 0, 0], [0] * 6]
  assert found[1].tolist() == [[0, 1, 2, 0, 0, 0], [0] * 6]


@pytest.fixture
def built(tmp_path):
  """Builds records of two pairs with ids 1, 200 and 255, and their map."""
  (tmp_path / 'classes.csv').write_text(CSV)
  for folder in ('images', 'labels'):
    (tmp_path / folder).mkdir()
  for number, ids in enumerate(((1, 200, 255), (1, 1, 3))):
    (tmp_path / 'images' / 'p{}.jpg'.format(number)).write_bytes(
        record_sets.picture(number, CROP))
    Image.fromarray(np.resize(np.array(ids, np.uint8), CROP)).save(
        str(tmp_path / 'labels' / 'p{}.png'.format(number)))
  build(tmp_path, label_map=str(tmp_path / 'classes.csv'))
  return tmp_path


def build(folder, split='val', **changes):
  return builder.build([options.BuildOptions(
      split=split, image_folder=str(folder / 'images'),
      label_folder=str(folder / 'labels'), output_dir=str(folder / 'records'),
      **changes)])


def data_options(folder, **changes):
  return options.DatasetOptions(**dict(dict(
      dataset_dir=str(folder / 'records'), split='val'), **changes))


PREPROCESSING = options.PreprocessOptions(crop_size=CROP)


def test_the_builder_describes_the_classes(built):
  with open(str(built / 'records' / 'val.json')) as text:
    description = json.load(text)
  assert label_map.from_json(description['label_map']) == MAP
  assert [(one['id'], one['name'], one['pixel_share'])
          for one in description['classes']] == [
              (0, 'other', 0.333333), (1, 'structure', 0.5),
              (2, 'ground, floor', 0.166667)]
  summary, = build(built, label_map=str(built / 'classes.csv'))
  assert builder.histogram_table([summary])[2:] == [
      ' 1  structure        50.00%', ' 2  ground, floor    16.67%']


def test_the_builder_refuses_labels_without_any_id_of_the_map(built):
  (built / 'sky.csv').write_text(lines('9,1,sky'))
  with pytest.raises(InputError, match='no label of 2 holds an id that '
                     'label_map=.*sky.csv lists'):
    build(built, label_map=str(built / 'sky.csv'))
  # 255 is not an id of ADE20K, so the file must be something else.
  with pytest.raises(InputError, match='holds label 255; expected'):
    build(built)


@pytest.mark.slow
def test_readers_take_the_label_map_of_the_records(built):
  for changes in ({}, {'verify_records': True},
                  {'label_map': str(built / 'classes.csv')}):
    batches = dataset.Batches(data_options(built, **changes), PREPROCESSING)
    assert batches.label_map == MAP
    labels = {batch['filename'][0]: batch['label'][0] for batch in batches}
    assert labels['p0.jpg'][0, :3].tolist() == [1, 2, 0]
    assert labels['p1.jpg'][0, :3].tolist() == [1, 1, 0]


def test_training_batches_use_the_label_map(built):
  with tf.Graph().as_default(), tf.Session() as session:
    batch = dataset.training_batches(
        data_options(built, seed=1), PREPROCESSING._replace(
            min_scale_factor=1.0, max_scale_factor=1.0))
    session.run(tf.tables_initializer())
    found = {int(value) for _ in range(4)
             for value in np.unique(session.run(batch['label']))}
  assert found == {0, 1, 2}


def test_a_label_map_that_differs_from_the_records_is_refused(built):
  (built / 'other.csv').write_text(lines('1,1,structure', '2,2,roof'))
  with pytest.raises(InputError, match='label_map=.*other.csv: id 0 is 0 other'
                     ', but 1 structure by .*val.json; expected the same'):
    splits.open_split(data_options(
        built, label_map=str(built / 'other.csv')))
  with pytest.raises(InputError, match='val.json: id 200 is 2 ground, floor, '
                     'but 0 other by the network'):
    dataset.Batches(data_options(built), PREPROCESSING, model_map=OTHER)
  path = built / 'records' / 'val.json'
  content = json.loads(path.read_text())
  content['label_map'] = {'classes': []}
  path.write_text(json.dumps(content))
  with pytest.raises(InputError, match='val.json: damaged'):
    splits.open_split(data_options(built))


@pytest.mark.slow
def test_records_without_a_map_use_that_of_the_network_or_user(
    tmp_path):
  (tmp_path / 'records').mkdir()
  record_sets.write(
      tmp_path / 'records' / 'val-00000-of-00001.tfrecord',
      [record_sets.example(label_bytes=record_sets.label(4))])
  (tmp_path / 'map').write_text(lines('4,1,ground'))
  wanted = label_map.read(str(tmp_path / 'map'))
  for batches in (
      dataset.Batches(data_options(tmp_path), PREPROCESSING, model_map=wanted),
      dataset.Batches(data_options(tmp_path, label_map=str(tmp_path / 'map')),
                      PREPROCESSING)):
    batch, = batches
    assert batches.label_map == wanted
    assert set(np.unique(batch['label'])) == {0, 1}
  batch, = dataset.Batches(data_options(tmp_path), PREPROCESSING)
  assert set(np.unique(batch['label'])) == {0, 4}


# --- Checkpoints -----------------------------------------------------------


def test_num_classes_of_a_network_must_match_its_label_map():
  own = MODEL.with_classes(MAP)
  assert (own.num_classes, own.classes) == (3, MAP)
  assert MODEL.with_classes(label_map.ADE20K) == MODEL
  assert MODEL.classes == label_map.ADE20K
  with pytest.raises(InputError, match='num_classes=32: expected 3'):
    MODEL._replace(label_map=MAP)
  content = json.loads(json.dumps(options.to_json(own)))
  assert options.from_json(options.ModelOptions, content) == own
  assert 'label_map' not in options.to_json(MODEL)


def test_a_checkpoint_keeps_its_label_map(tmp_path):
  prefix = str(tmp_path / 'model.ckpt-1')
  own = MODEL.with_classes(MAP)
  assert compatibility.label_map_of(prefix) is None
  assert compatibility.with_classes_of(prefix, MODEL, 32) == MODEL
  compatibility.write_options(str(tmp_path), own, optimizer='adam')
  assert compatibility.label_map_of(prefix) == MAP
  assert compatibility.label_map_of(str(tmp_path)) == MAP
  for given in (None, 3):
    assert compatibility.with_classes_of(prefix, MODEL, given) == own
  with pytest.raises(InputError, match='trained on 3 classes of a label map, '
                     'got num_classes=32'):
    compatibility.with_classes_of(prefix, MODEL, 32)
  for other in (MODEL, MODEL.with_classes(OTHER)):
    with pytest.raises(InputError, match='label_map: id .* was trained as .*, '
                       'now it is ') as caught:
      compatibility.check_options(prefix, other)
    assert 'num_classes' not in str(caught.value)
    with pytest.raises(InputError, match='was made with other options'):
      compatibility.check_resumable(
          str(tmp_path), other, optimizer='adam', recipe={})
  compatibility.check_options(prefix, own)


def test_training_on_a_single_class_warns(built, caplog):
  (built / 'one.csv').write_text(lines('1,1,structure'))
  build(built, 'train', label_map=str(built / 'one.csv'))
  (built / 'file').write_text('')
  with pytest.raises((InputError, OSError), match='file'):
    train_lib.train(
        dataset_options=data_options(built, split='train', batch_size=2),
        preprocess_options=PREPROCESSING, model_options=MODEL,
        options=options.TrainOptions(
            train_logdir=str(built / 'file'), fine_tune_batch_norm=False))
  assert 'num_classes=2: a model of one class alone is always' in caplog.text


def test_num_classes_of_an_export_is_none_unless_given():
  def parsed(*arguments):
    return flag_groups.arguments_of('export_model.py', *arguments)

  assert parsed()['options'].num_classes is None
  assert parsed('--num_classes=32')['options'].num_classes == 32
  assert parsed('--num_classes=9')['model_options'].num_classes == 9


# --- Descriptions beside files ---------------------------------------------


def test_a_description_belongs_to_the_file_with_its_checksum(tmp_path):
  for name, content in (
      ('freeze.pb', {'model': options.to_json(MODEL.with_classes(MAP))}),
      ('a.tflite', {'label_map': MAP.to_json()})):
    path = str(tmp_path / name)
    described = (metadata.of_graph if name.endswith('.pb')
                 else metadata.of_tflite)(path)
    assert metadata.label_map_beside(path) is None
    (tmp_path / name).write_bytes(b'model')
    content['sha1'] = {name: metadata.sha1(b'model')}
    files.write_json(described, content)
    assert metadata.label_map_beside(path) == MAP
    (tmp_path / name).write_bytes(b'another')
    assert metadata.label_map_beside(path) is None
  for content in ([], {'sha1': 3}):
    files.write_json(described, content)
    assert metadata.label_map_beside(path) is None


def test_a_description_without_a_map_means_ade20k(tmp_path):
  (tmp_path / 'freeze.pb').write_bytes(b'model')
  files.write_json(str(tmp_path / 'freeze.json'), {
      'model': options.to_json(MODEL),
      'output': {'classes': constants.CLASS_NAMES},
      'sha1': {'freeze.pb': metadata.sha1(b'model')}})
  assert metadata.label_map_beside(
      str(tmp_path / 'freeze.pb')) == label_map.ADE20K


# --- Preprocessed images and TFLite ----------------------------------------


@pytest.fixture
def preprocessed(built):
  """Writes the records as a folder of preprocessed pairs."""
  png_folder_writer.write(
      dataset.Batches(data_options(built), PREPROCESSING), split='val',
      preprocess_options=PREPROCESSING,
      options=options.PreprocessedOptions(output_dir=str(built / 'png')))
  return built / 'png'


def test_annotations_hold_classes_of_the_manifest(preprocessed):
  assert png_folder.read_label_map(str(preprocessed)) == MAP
  pairs = png_folder.list_pairs(str(preprocessed)).pairs
  assert png_folder.check(pairs, CROP, MAP) == 0
  found = {value for pair in pairs
           for value in np.unique(png_folder.read_pair(pair, 3)[1])}
  assert found == {0, 1, 2}
  # Callers such as LoadGen expect ADE20K's classes.
  with pytest.raises(InputError, match='manifest.json: id 0 is 1 structure, but'
                     ' 0 other by what they are read for'):
    png_folder.check(pairs, CROP)
  # An annotation holds classes, so an unknown value is an error.
  Image.fromarray(np.full(CROP, 3, np.uint8)).save(pairs[0].label_path)
  with pytest.raises(InputError, match='holds 3; expected class ids 0..2'):
    png_folder.check(pairs, CROP, MAP)


def test_classes_of_a_tflite_file_and_images_must_agree(
    preprocessed, tmp_path):
  net = tmp_path / 'a.tflite'
  net.write_bytes(b'model')
  asked = options.TfliteEvalOptions(
      net_file=str(net), test_dir=str(preprocessed))
  listing = png_folder.list_pairs(str(preprocessed))
  assert lite_evaluation._label_map(asked, listing) == MAP
  files.write_json(str(net) + '.json', {
      'label_map': OTHER.to_json(),
      'sha1': {net.name: metadata.sha1(b'model')}})
  with pytest.raises(InputError, match='manifest.json: id 200 is 2 ground, '
                     'floor, but 0 other by net_file='):
    lite_evaluation._label_map(asked, listing)
  # A manifest without classes means ADE20K; no manifest means any classes.
  files.write_json(str(preprocessed / 'manifest.json'), {'split': 'val'})
  with pytest.raises(InputError, match='manifest.json: id 0 is 0 other'):
    lite_evaluation._label_map(asked, listing)
  os.remove(str(preprocessed / 'manifest.json'))
  assert lite_evaluation._label_map(asked, listing) == OTHER


# --- Pictures --------------------------------------------------------------


def test_pictures_show_the_colours_and_names_of_a_label_map():
  labels = np.array([[0, 1, 2]])
  assert [visualize.shade(index, 1.0, MAP) for index in (1, 2)] == [
      (128, 0, 0), (0, 128, 0)]
  with pytest.raises(InputError, match='label 3: expected a class in 0..2'):
    visualize.overlay(np.zeros([1, 3, 3]), labels + 1, label_map=MAP)
  long = MAP._replace(names=('other', 'structure', 40 * 'g'))
  narrow, wide = (visualize.legend([1, 2], 200, which) for which in (MAP, long))
  assert narrow.height < 3 * 18 and wide.height > 2 * 18
  sheet = visualize.prediction_sheet(
      [np.zeros((1, 3, 3))], [labels], [labels[:, ::-1]], label_map=MAP)
  assert visualize.shade(1, label_map=MAP) in {
      color for _, color in sheet.getcolors(10 ** 6)}
