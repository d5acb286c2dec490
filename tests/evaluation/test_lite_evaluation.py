"""Tests segmentation_inference_eval_seg_tflite.py."""
import hashlib
import json
import os
import shutil
import signal

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from deeplab.config import label_map
from deeplab.config import options as options_lib
from deeplab.data import dataset
from deeplab.data import png_folder_writer
from deeplab.errors import InputError
from deeplab.evaluation import merging
from deeplab.evaluation import model_card
from deeplab.evaluation import report as report_lib
from deeplab.evaluation import tflite
from deeplab.models import interpreters
from deeplab.models import metadata
from deeplab.system import environment
from tests import lite_models
from tests import scripts
from tests.lite_models import image_of

pytestmark = [pytest.mark.tf1, pytest.mark.tf2, pytest.mark.modern]
SCRIPT = 'segmentation_inference_eval_seg_tflite.py'
SIZE = (4, 5)  # height, width
LITERT = environment.installed_version('ai-edge-litert')
INTERPRETER = (
    'ai-edge-litert {}, XNNPACK delegate'.format(LITERT) if LITERT else
    'TensorFlow {}, built-in kernels'.format(tf.__version__))


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """A TFLite file: a pixel's label is its largest channel, of three and 0.5."""
  path = tmp_path_factory.mktemp('model') / 'argmax.tflite'
  path.write_bytes(lite_models.argmax_model(SIZE))
  return str(path)


def save(folder, name, image, label):
  for kind, array in (('images', image), ('annotations', label)):
    (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(array, np.uint8)).save(
        str(folder / kind / name))


@pytest.fixture
def folder(tmp_path):
  """Writes two pairs, in the order img_2, img_10."""
  folder = tmp_path / 'preprocessed'
  save(folder, 'img_2.png', image_of(np.full(SIZE, 1)),
       [[1] * 5, [1] * 5, [1, 1, 2, 2, 0], [2, 2, 0, 0, 0]])
  save(folder, 'img_10.png', image_of([[0] * 5] + [[2] * 5] * 3),
       [[2] * 5, [2] * 5, [2] * 5, [2, 2, 2, 2, 40]])
  return folder


# (label, prediction) to the number of pixels in both pairs.
COUNTS = {(1, 1): 12, (2, 1): 4, (2, 0): 5, (2, 2): 14}


def expected_matrix(counts):
  matrix = np.zeros([32, 32], int)
  for place, count in counts.items():
    matrix[place] = count
  return matrix.tolist()


def evaluate(model, folder, report_json=None, vis_dir=None, vis_images=8,
             **changes):
  return tflite.evaluate(
      options_lib.TfliteEvalOptions(
          net_file=model, **dict({'test_dir': str(folder)}, **changes)),
      options_lib.EvalOptions(
          report_json=report_json, vis_dir=vis_dir, vis_images=vis_images))


# --- Scores and reports ----------------------------------------------------


@pytest.mark.slow
def test_the_default_command(model, folder, tmp_path):
  os.makedirs(str(tmp_path / 'checkpoints' / 'float'))
  shutil.copy(model, str(tmp_path / 'checkpoints' / 'float' / 'freeze.tflite'))
  lines = scripts.run(SCRIPT, cwd=str(tmp_path)).stdout.splitlines()
  assert lines[2] == '    1  wall              34.29 %   0.7500'
  assert lines[3] == '    2  building          65.71 %   0.6087'
  # (3/4 + 14/23) / 31, / 3 and / 2; class 0 is predicted, but never correct.
  assert lines[-5:-1] == [
      'mIoU             0.4529  (every class seen, reference eval.py)',
      'mIoU, kept       0.6793* (without class 0, reference TFLite script)',
      'mIoU, app        0.0438  (sum over 31 classes / 31, MLPerf mobile app)',
      '* the mean that the published figures of TFLite files on x86 are']
  assert lines[-1].startswith('RESULT ')
  result = json.loads(lines[-1][len('RESULT '):])
  assert result['miou_kept_classes'] == pytest.approx((3 / 4 + 14 / 23) / 2)
  assert result['miou'] == pytest.approx((3 / 4 + 14 / 23) / 3)
  assert result['pixel_accuracy'] == pytest.approx(26 / 35)
  assert (result['kind'], result['images']) == ('tflite', 2)
  assert result['path'] == './checkpoints/float/freeze.tflite'
  assert result['geometry'] == '4x5, no manifest.json'
  assert result['split'] == './preprocessed/images'


@pytest.mark.parametrize('workers, text', [
    (1, '1 process x 1 thread'), (9, '2 processes x 1 thread')])
def test_workers_do_not_change_scores(model, folder, tmp_path, workers, text):
  path = str(tmp_path / 'report.json')
  report = evaluate(model, folder / 'images', path, num_workers=workers)
  assert report.matrix.tolist() == expected_matrix(COUNTS)
  assert report.runtime == '{}, {}'.format(INTERPRETER, text)
  with open(path) as content:
    written = json.load(content)
  assert written == json.loads(json.dumps(report_lib.to_json(report)))
  assert written['confusion_matrix'] == report.matrix.tolist()
  # These are the fields of a model card.
  with open(model, 'rb') as content:
    checksum = hashlib.sha256(content.read()).hexdigest()
  assert written['model'] == {
      'bytes': os.path.getsize(model), 'sha256': checksum,
      'precision': 'float32 weights, float32 activations',
      'input': metadata.input_contract(SIZE)}
  rows = model_card.rows(report_lib.read(path))
  assert rows.pop('ms an image').endswith(', ' + report.runtime)
  assert rows == {
      'bytes': str(os.path.getsize(model)), 'SHA-256': checksum,
      'precision': 'float32 weights, float32 activations',
      'input': 'float32 1x4x5x3, NHWC RGB; pixels 0 and 255 are -1 and 1',
      'score': '0.6793',
      'convention': 'mIoU, kept: without class 0, reference TFLite script',
      'geometry': '4x5, no manifest.json',
      'images': '2 of {}'.format(folder / 'images')}


def test_classes_split_and_geometry_come_from_the_manifest(model, folder):
  classes = label_map.LabelMap(('other', 'land', 'sea'), ((), (7,), (200,)))
  save(folder, 'img_10.png', image_of(np.full(SIZE, 2)), np.full(SIZE, 2))
  (folder / 'manifest.json').write_text(json.dumps(dict(
      label_map.json_entry(classes), split='train',
      geometry='resized to 5..5')))
  report = evaluate(model, folder, num_workers=1)
  assert (report.split, report.geometry) == ('train', 'resized to 5..5')
  assert report.matrix.tolist() == [[0, 0, 0], [0, 12, 0], [0, 4, 20]]
  assert [one['name'] for one in report_lib.to_json(report)['classes']] == [
      'other', 'land', 'sea']
  # A model may have more classes than the label map.
  save(folder, 'img_10.png', np.full(SIZE + (3,), 100), np.full(SIZE, 2))
  with pytest.raises(InputError, match='img_10.png: prediction 3: expected a '
                     r'class in 0\.\.2'):
    evaluate(model, folder, num_workers=1)


def test_merged_shards_equal_a_single_run(model, folder, tmp_path):
  paths = [str(tmp_path / '{}.json'.format(number)) for number in range(2)]
  for number, path in enumerate(paths):
    evaluate(model, folder, path, num_shards=2, shard_index=number)
  found = report_lib.to_json(merging.merge(paths, options_lib.MergeOptions(
      report_json=str(tmp_path / 'sum.json'))))
  whole = report_lib.to_json(evaluate(model, folder))
  for name in ('seconds', 'images_per_second', 'runtime', 'host_ms'):
    del found[name], whole[name]
  assert found == whole
  with pytest.raises(InputError, match='num_shards=3: expected at most 2, the'):
    evaluate(model, folder, paths[0], num_shards=3, shard_index=0)
  with pytest.raises(InputError, match='num_shards=2 without report_json'):
    evaluate(model, folder, num_shards=2, shard_index=0)


def test_shards_of_other_models_or_images_are_refused(model, folder, tmp_path):
  paths = [str(tmp_path / '{}.json'.format(number)) for number in range(2)]
  evaluate(model, folder, paths[0], num_shards=2, shard_index=0)
  evaluate(model, folder, paths[1], num_shards=2, shard_index=1,
           is_input_0_255=True)
  merged = options_lib.MergeOptions(report_json=str(tmp_path / 'sum.json'))
  with pytest.raises(InputError, match=r'input float32 in \[-1, 1\], and floa'):
    merging.merge(paths, merged)
  # The annotations have the same size, so only their content differs.
  save(folder, 'img_2.png', image_of(np.full(SIZE, 1)), np.full(SIZE, 1))
  evaluate(model, folder, paths[0], num_shards=2, shard_index=0)
  size = os.path.getsize(str(folder / 'annotations' / 'img_2.png'))
  save(folder, 'img_2.png', image_of(np.full(SIZE, 1)), np.full(SIZE, 5))
  assert os.path.getsize(str(folder / 'annotations' / 'img_2.png')) == size
  evaluate(model, folder, paths[1], num_shards=2, shard_index=1)
  with pytest.raises(InputError, match='not of one evaluation: images '):
    merging.merge(paths, merged)


def test_the_float_range_can_be_chosen(model, folder):
  save(folder, 'img_3.png', np.full(SIZE + (3,), 140), np.full(SIZE, 4))
  # 140 is 0.098 in [-1, 1], less than the 0.5 of channel 3.
  matrix = evaluate(model, folder, is_float_input=True).matrix
  assert matrix.tolist() == expected_matrix({(4, 3): 20, **COUNTS})
  matrix = evaluate(model, folder, is_input_0_255=True).matrix
  assert matrix.tolist() == expected_matrix({(4, 0): 20, **COUNTS})


def test_vis_images_limits_the_rows_of_the_picture(model, folder, tmp_path):
  heights = []
  for count in (1, 2):
    evaluate(model, folder, vis_dir=str(tmp_path / 'vis'), vis_images=count)
    with Image.open(str(tmp_path / 'vis' / 'predictions.png')) as picture:
      heights.append(picture.height)
  # One more row and a gap of 8 pixels.
  assert heights[1] - heights[0] == SIZE[0] + 8


def test_ignored_files_and_pixels_are_logged(model, folder, caplog):
  (folder / 'images' / 'notes.txt').write_text('')
  save(folder, 'img_11.png', image_of(np.ones(SIZE, int)), np.ones(SIZE))
  (folder / 'images' / 'img_11.png').unlink()
  with caplog.at_level('INFO'):
    report = evaluate(model, folder, num_threads=2)
  if LITERT:
    assert report.runtime.endswith(' x 2 threads')
    threads = []
  else:
    threads = ['num_threads=2 has no effect: the interpreter of {} has one '
               'thread; num_workers starts processes'.format(INTERPRETER)]
  assert [record.getMessage() for record in caplog.records
          if 'deeplab' in record.name] == [
      '{} takes float32 in [-1, 1]'.format(model)] + threads + [
      'labels above 31 are ignored, as in the MLPerf Mobile app: 1 pixel of 1 '
      'annotation', 'ignored in the folder of images: 1 file of '
      'another kind', 'not used: 1 annotation without an image']


def test_folders_of_the_mlperf_app_are_accepted(model, folder, caplog):
  """JPEG images; raw annotations, padded with 255, with any ids."""
  expected = evaluate(model, folder)
  (folder / 'images' / 'img_2.png').unlink()
  Image.fromarray(image_of(np.full(SIZE, 1)).astype(np.uint8)).save(
      str(folder / 'images' / 'img_2.jpg'), quality=95)
  (folder / 'annotations' / 'img_2.png').unlink()
  raw = folder / 'annotations' / 'img_2.raw'
  raw.write_bytes(bytes([1] * 12 + [2, 2, 255, 2, 2] + [32, 150, 200]))
  with caplog.at_level('INFO'):
    report = evaluate(model, folder)
  assert report.matrix.tolist() == expected.matrix.tolist()
  assert ('labels above 31 are ignored, as in the MLPerf Mobile app: 5 pixels '
          'of 2 annotations' in caplog.text)
  raw.write_bytes(bytes(19))
  with pytest.raises(InputError, match='img_2.raw has 19 bytes; expected 20, '
                     'one for each pixel of its image'):
    evaluate(model, folder)


# --- Refusals --------------------------------------------------------------


def test_bad_files_and_options_are_refused(model, folder, tmp_path):
  bad, short = tmp_path / 'bad.tflite', tmp_path / 'short.tflite'
  bad.write_text('This is no model.')
  with open(model, 'rb') as content:
    short.write_bytes(content.read()[:100])
  for net_file, changes, words in (
      ('/no/such', {}, 'net_file=/no/such: no such file'),
      (bad, {}, 'not a TFLite model .bad identifier'),
      (short, {}, 'short.tflite: damaged or cut off TFLite model .100 bytes'),
      (model, {'test_dir': '/no/such'}, 'test_dir=/no/such: no such folder'),
      (model, {'is_float_input': False},
       r'takes float32 in \[-1, 1\], but is_float_input=false'),
      (model, {'num_workers': -1}, 'num_workers=-1: expected'),
      (model, {'num_threads': 0}, 'num_threads=0: expected')):
    with pytest.raises(InputError, match=words):
      evaluate(str(net_file), folder, **changes)


def test_a_crash_of_the_interpreter_is_reported_in_one_line(
    model, folder, monkeypatch):
  """The workers are forked, so they have the patch too."""
  monkeypatch.setattr(
      interpreters.TflitePredictor, 'predict',
      lambda *_: os.kill(os.getpid(), signal.SIGSEGV))
  with pytest.raises(InputError, match='net_file=.*: the interpreter crashed; '
                     'the file may be damaged, or the memory too small for'):
    evaluate(model, folder)


def test_pairs_of_a_wrong_size_are_refused_before_any_work(model, folder):
  save(folder, 'img_7.png', np.zeros([4, 6, 3]), np.ones([4, 6]))
  with pytest.raises(InputError) as caught:
    evaluate(model, folder)
  assert str(caught.value) == (
      '1 of 3 pairs cannot be used: img_7.png is 4x6; the model takes 4x5 '
      '(height x width)')
  (folder / 'annotations' / 'img_2.png').unlink()
  with pytest.raises(InputError) as caught:
    evaluate(model, folder)
  assert str(caught.value).startswith('1 of 3 images without annotation in ')


# --- Against the reference -------------------------------------------------


@pytest.fixture(scope='module')
def sample(sample_records, tmp_path_factory):
  """Preprocesses the sample's validation images for TFLite."""
  folder = tmp_path_factory.mktemp('sample')
  size = options_lib.PreprocessOptions(
      crop_size=(512, 512), min_resize_value=512, max_resize_value=512,
      resize_factor=1)
  png_folder_writer.write(
      dataset.Batches(options_lib.DatasetOptions(sample_records, 'val'), size),
      split='val', preprocess_options=size,
      options=options_lib.PreprocessedOptions(str(folder / 'val')))
  return folder / 'val'


def check_score(request, reference_dir, name):
  with open(os.path.join(reference_dir, 'numbers.json')) as content:
    scores = json.load(content)['tflite_eval'][name]
  if tf.__version__ not in scores:
    pytest.skip('no score of {} known for TensorFlow {}'.format(
        name, tf.__version__))
  sample = request.getfixturevalue('sample')
  report = evaluate(os.path.join(reference_dir, name), sample)
  assert report.scores.miou_kept_classes == pytest.approx(
      scores[tf.__version__], abs=1e-4)
  assert (report.images, report.split) == (2, 'val')
  assert report.geometry == (
      'resized to 512..512, factor 1, padded to 512x512')


def test_score_of_the_published_quantization_aware_file(request, reference_dir):
  check_score(request, reference_dir, 'freeze_qat.tflite')


@pytest.mark.extended
def test_score_of_the_published_post_training_file(request, reference_dir):
  check_score(request, reference_dir, 'freeze_ptq.tflite')
