"""Tests gen_preprocessed_data.py: pixels, names, lists and refusals."""
import errno
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
from PIL import Image
import pytest

from deeplab import constants
from deeplab.data import dataset
from deeplab.data import png_folder
from deeplab.data import png_folder_writer
from deeplab.errors import InputError
from deeplab.evaluation import metrics
from deeplab.storage import files as files_lib
from deeplab.system import memory
from tests import flag_groups
from tests import record_sets
from tests import scripts
from tests.record_sets import numbered
from tests.record_sets import pair

SCRIPT = 'gen_preprocessed_data.py'


def everywhere(test):
  return pytest.mark.tf1(pytest.mark.tf2(pytest.mark.modern(test)))


@pytest.fixture
def five(tmp_path):
  """A folder with images 1 to 5 in both splits."""
  folder = tmp_path / 'records'
  folder.mkdir()
  for split in constants.SPLITS:
    record_sets.write_shards(output_dir=str(folder), split=split, shards=[
        [numbered(3), numbered(1, height=2)], [numbered(5)],
        [numbered(2, name='/data/ade/image_2.png'), numbered(4)]])
  return folder


@pytest.fixture
def generate(five, tmp_path):
  """Runs the script's main on the records of `five`, in this process."""
  def run(*arguments):
    made = flag_groups.arguments_of(
        'gen_preprocessed_data.py', '--dataset_dir={}'.format(five),
        '--preprocessed_dataset_dir={}'.format(tmp_path / 'out'),
        '--eval_crop_size=4,5', *arguments)
    dataset_options, preprocess_options, options = (
        made['dataset_options'], made['preprocess_options'], made['options'])
    names = None
    if options.image_list:
      names = png_folder_writer.read_image_list(options.image_list)
    return png_folder_writer.write(
        dataset.Batches(dataset_options, preprocess_options, names=names),
        names=names, split=dataset_options.split,
        preprocess_options=preprocess_options, options=options)
  return run


def pixels(path):
  with Image.open(str(path)) as image:
    return np.array(image)


def values(folder):
  """Returns the top left value of every image, in order."""
  count = len(os.listdir(str(folder / 'images')))
  return [int(pixels(folder / 'images' / 'img_{}.png'.format(n))[0, 0, 0])
          for n in range(count)]


def files(folder):
  return sorted(os.path.relpath(os.path.join(parent, name), str(folder))
                for parent, _, names in os.walk(str(folder)) for name in names)


# --- Against the reference -------------------------------------------------


@pytest.mark.slow
@everywhere
def test_pixels_match_the_reference(reference_dir, tmp_path):
  golden = np.load(os.path.join(reference_dir, 'golden', 'preprocess.npz'))
  # The cases with factor 1, which is the only one of the reference's script.
  cases = [5, 6]
  record_sets.write_shards(output_dir=str(tmp_path), split='val', shards=[[
      pair('case{}.png'.format(case), golden['case{}_image_in'.format(case)],
              golden['case{}_label_in'.format(case)]) for case in cases]])
  out = tmp_path / 'out'
  done = scripts.run(
      SCRIPT, '--eval_crop_size=512,512', '--min_resize_value=512',
      '--max_resize_value=512', '--dataset_dir={}'.format(tmp_path),
      '--preprocessed_dataset_dir={}'.format(out), '--eval_split=val')
  assert done.stdout.startswith(
      'val: 2 pairs in {} (resized to 512..512, factor 1, padded to 512x512; '
      .format(out))
  for number, case in enumerate(cases):
    image = pixels(out / 'images' / 'img_{}.png'.format(number))
    assert image.shape == (512, 512, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(
        image[::8, ::8],
        golden['case{}_image_stride8'.format(case)].astype(np.uint8))
    np.testing.assert_array_equal(
        pixels(out / 'annotations' / 'img_{}.png'.format(number)),
        golden['case{}_label'.format(case)])
  png_folder.check(png_folder.list_pairs(str(out)).pairs, (512, 512))


# --- Output ----------------------------------------------------------------


@everywhere
def test_images_are_numbered_in_the_order_of_records(generate, tmp_path):
  summary = generate('--manifest={}'.format(tmp_path / 'new' / 'copy.json'))
  out = tmp_path / 'out'
  assert values(out) == [3, 1, 5, 2, 4]
  assert (summary.split, summary.pairs) == ('val', 5)
  names = ['img_{}.png'.format(number) for number in range(5)]
  assert files(out) == [
      os.path.join(kind, name) for kind in ('annotations', 'images')
      for name in names] + ['manifest.json']
  manifest = json.loads((out / 'manifest.json').read_text())
  assert manifest == json.loads((tmp_path / 'new' / 'copy.json').read_text())
  assert (manifest['split'], manifest['count'], manifest['skipped']) == (
      'val', 5, 0)
  assert manifest['geometry'] == 'not resized, padded to 4x5'
  assert manifest['preprocessing']['crop_size'] == [4, 5]
  # Records of the reference's builder have a folder in the name.
  assert manifest['images'] == [
      {'name': name, 'source': source, 'height': height, 'width': 4}
      for name, source, height in zip(
          names, ['image_3.png', 'image_1.png', 'image_5.png', 'image_2.png',
                  'image_4.png'], [3, 2, 3, 3, 3])]


@everywhere
def test_padding_and_truncation(generate, tmp_path):
  generate()
  image = pixels(tmp_path / 'out' / 'images' / 'img_1.png')
  label = pixels(tmp_path / 'out' / 'annotations' / 'img_1.png')
  assert (image.shape, label.shape) == ((4, 5, 3), (4, 5))
  # 127.5 is truncated, not rounded.
  np.testing.assert_array_equal(
      image[:, :, 0], [[1, 1, 1, 1, 127]] * 2 + [[127] * 5] * 2)
  np.testing.assert_array_equal(label, [[1, 1, 1, 1, 0]] * 2 + [[0] * 5] * 2)


@pytest.mark.parametrize('arguments', [
    ('--eval_batch_size=2',), ('--eval_batch_size=7', '--num_workers=1'),
    ('--num_workers=5',)])
@pytest.mark.slow
@everywhere
def test_output_is_independent_of_batches(generate, tmp_path, arguments):
  generate()
  (tmp_path / 'out').rename(tmp_path / 'expected')
  generate(*arguments)
  for name in files(tmp_path / 'expected'):
    assert (tmp_path / 'out' / name).read_bytes() == (
        tmp_path / 'expected' / name).read_bytes()


@pytest.mark.parametrize('arguments, width', [
    ([], 32), (['--resize_factor=16'], 17)])
@pytest.mark.slow
def test_resize_factor_is_1_by_default(generate, tmp_path, arguments, width):
  generate('--eval_crop_size=33,33', '--min_resize_value=32',
           '--max_resize_value=32', *arguments)
  image = pixels(tmp_path / 'out' / 'images' / 'img_0.png')
  assert (image[0, :, 0] != 127).sum() == width


@pytest.mark.extended
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
  record_sets.write_shards(output_dir=str(tmp_path), split='val',
                           shards=[[numbered(1)] * 500])
  program = textwrap.dedent("""
      import resource
      from deeplab.config import options
      from deeplab.data import dataset
      from deeplab.data import png_folder_writer

      preprocess = options.PreprocessOptions(
          min_resize_value=512, max_resize_value=512)
      batches = dataset.Batches(
          options.DatasetOptions('{0}', 'val'), preprocess)

      class Watched:
        num_images = batches.num_images
        num_skipped = first_image = 0
        label_map = batches.label_map

        def __iter__(self):
          for number, batch in enumerate(batches):
            if number in (100, 499):
              print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            yield batch

      png_folder_writer.write(
          Watched(), split='val', preprocess_options=preprocess,
          options=options.PreprocessedOptions('{0}/out'))
      """).format(tmp_path)
  early, late = map(int, subprocess.check_output(
      [sys.executable, '-c', program], cwd=scripts.REPOSITORY,
      stderr=subprocess.DEVNULL).split())
  # In KB. 400 images need 1.3 GB.
  assert late - early < 200e3


# --- Bad records -----------------------------------------------------------


def spoil(five):
  """Damages two of the five records; returns the shards."""
  for split in constants.SPLITS:
    os.remove(str(five / (split + '.json')))
  paths = [str(five / 'val-{:05d}-of-00003.tfrecord'.format(index))
           for index in range(3)]
  record_sets.flip(paths[0], record_sets.spans(paths[0])[0][1] - 9)
  record_sets.write(paths[1], [b'\xff\xfe\xfd'])
  return paths


@pytest.mark.slow
def test_bad_records_are_left_out_and_counted(generate, five, tmp_path, caplog):
  paths = spoil(five)
  with pytest.raises(InputError, match=paths[0] + ': record 0 fails its CRC'):
    generate()
  assert not files(tmp_path / 'out')
  summary = generate('--on_bad_record=skip')
  assert values(tmp_path / 'out') == [2, 4]
  assert (summary.pairs, summary.skipped) == (2, 3)
  assert png_folder_writer.summary_line(summary).endswith(
      '; 3 bad records left out')
  manifest = json.loads((tmp_path / 'out' / 'manifest.json').read_text())
  assert (manifest['count'], manifest['skipped']) == (2, 3)
  assert '3 records of val left out: {}: record 0 fails its CRC'.format(
      paths[0]) in caplog.text


def test_a_batch_is_not_larger_than_the_split(
    generate, tmp_path, monkeypatch):
  monkeypatch.setattr(memory, 'available_bytes', lambda: 2 ** 20)
  generate('--eval_batch_size=4096')
  assert values(tmp_path / 'out') == [3, 1, 5, 2, 4]
  with pytest.raises(InputError, match='batch_size=5 of crop_size=999,999: need'
                     's about 0.1 GiB of memory'):
    generate('--eval_batch_size=4096', '--eval_crop_size=999,999',
             '--overwrite')
  with pytest.raises(InputError, match='batch_size=1000000000: expected'):
    generate('--eval_batch_size=1000000000')


# --- A list of images ------------------------------------------------------


@pytest.mark.slow
def test_an_image_list_selects_and_orders_images(generate, tmp_path):
  path = tmp_path / 'list.txt'
  path.write_bytes(b'image_4.png \r\nimage_2.png\r\n\r\n image_3.png\r\n')
  generate('--eval_split=train', '--image_list={}'.format(path),
           '--eval_batch_size=2')
  out = tmp_path / 'out'
  assert values(out) == [4, 2, 3]
  manifest = json.loads((out / 'manifest.json').read_text())
  assert [entry['source'] for entry in manifest['images']] == [
      'image_4.png', 'image_2.png', 'image_3.png']
  assert manifest['image_list'] == str(path)
  assert pixels(out / 'annotations' / 'img_0.png')[0, 0] == 4


def test_the_published_list_is_read(reference_dir):
  names = png_folder_writer.read_image_list(
      os.path.join(reference_dir, 'ptq.txt'))
  assert len(names) == 500
  assert names[0] == 'ADE_train_00002043.jpg'
  assert names[-1] == 'ADE_train_00018939.jpg'


@pytest.mark.slow
def test_bad_image_lists_are_refused(generate, five, tmp_path):
  path = tmp_path / 'list.txt'

  def refusal(content):
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
      generate('--image_list={}'.format(path))
    assert not (tmp_path / 'out').exists()
    return str(caught.value).replace('image_list={}: '.format(path), '')

  assert refusal(b'image_1.png\na.png\nb.png\nc.png\nd.png\n') == (
      '4 of 5 listed images are not in the 5 records of val in {}: a.png, '
      'b.png, c.png, and 1 more'.format(five))
  assert refusal(b' \n\n') == (
      'no line with a name; expected the file name of an image on each')
  assert refusal(b'image_1.png\nimage_2.png\nimage_1.png \n') == (
      '1 names occur more than once: image_1.png')
  assert 'not a text file' in refusal(b'\xff\xfe\x00')
  with pytest.raises(InputError, match='image_list=/no/such: no such file'):
    generate('--image_list=/no/such')
  record_sets.write_shards(output_dir=str(five), split='val', shards=[
      [numbered(1), numbered(2)], [numbered(1)]])
  assert refusal(b'image_1.png').startswith(
      '1 of 1 listed images are more than once in the 3 records of val in ')


# --- Folders in use and failing runs ---------------------------------------


@pytest.mark.slow
def test_older_files_are_replaced_only_with_overwrite(generate, five, tmp_path):
  out = tmp_path / 'out'
  generate('--eval_split=train')
  before = files(out)
  with pytest.raises(InputError) as caught:
    generate()
  assert str(caught.value) == (
      'output_dir={} holds 10 files from split train; '
      'overwrite replaces them'.format(out))
  assert files(out) == before
  record_sets.write_shards(output_dir=str(five), split='val',
                           shards=[[numbered(7), numbered(8)]])
  generate('--overwrite')
  assert values(out) == [7, 8]
  assert len(files(out)) == 5


@pytest.mark.slow
def test_manifest_is_checked_before_the_work(
    generate, tmp_path):
  generate()
  before = files(tmp_path)
  with pytest.raises(InputError, match='manifest={0}: is a folder, expected '
                     'the name of a file, such as {0}/manifest.json'.format(
                         tmp_path)):
    generate('--overwrite', '--manifest={}'.format(tmp_path))
  assert files(tmp_path) == before


@pytest.mark.parametrize('name', ['images/photo.png', 'annotations/img_0.jpg'])
def test_foreign_files_are_never_removed(generate, tmp_path, name):
  out = tmp_path / 'out'
  generate()
  (out / name).write_bytes(b'')
  (out / 'images' / '.hidden').write_bytes(b'')
  before = files(out)
  with pytest.raises(InputError) as caught:
    generate('--overwrite')
  assert str(caught.value) == (
      'output_dir={} holds 1 files that are not img_N.png: {}; '
      'give another folder'.format(out, name))
  assert files(out) == before


@pytest.mark.slow
def test_a_full_disk_leaves_a_marker(generate, tmp_path, monkeypatch):
  out = tmp_path / 'out'
  replace = os.replace

  def full_after_two(temporary, path):
    if path.endswith('images/img_2.png'):
      raise OSError(errno.ENOSPC, 'No space left on device', temporary)
    replace(temporary, path)

  monkeypatch.setattr(files_lib.os, 'replace', full_after_two)
  with pytest.raises(InputError) as caught:
    generate('--num_workers=1')
  assert str(caught.value) == (
      'disk full after 5 images; correct this and run again with overwrite')
  found = files(out)
  assert 'INCOMPLETE' in found and 'manifest.json' not in found
  assert not [name for name in found if name.endswith('.tmp')]
  with pytest.raises(InputError, match='did not finish writing it'):
    png_folder.image_paths(str(out), 'test_dir')
  monkeypatch.undo()
  with pytest.raises(InputError, match='from split unknown; overwrite'):
    generate()
  generate('--overwrite')
  assert len(files(out)) == 11
  assert len(png_folder.image_paths(str(out), 'test_dir')) == 5


@pytest.mark.slow
def test_an_image_larger_than_the_crop_is_refused(generate, tmp_path):
  with pytest.raises(InputError) as caught:
    generate('--eval_crop_size=2,4')
  assert str(caught.value) == (
      'image_3.png is 3x4 but the crop is 2x4; set min_resize_value=2 '
      'max_resize_value=2 (or a larger crop)')
  assert files(tmp_path / 'out') == []
  (tmp_path / 'list.txt').write_text('image_1.png\nimage_2.png\n')
  with pytest.raises(InputError, match='^/data/ade/image_2.png is 3x4 but'):
    generate('--image_list={}'.format(tmp_path / 'list.txt'),
             '--eval_crop_size=2,4')


@pytest.mark.slow
def test_refusals_of_the_script(five, tmp_path):
  def refusal(*arguments):
    return scripts.refusal(SCRIPT, *arguments)

  data = '--dataset_dir={}'.format(five)
  out = '--preprocessed_dataset_dir={}'.format(tmp_path / 'out')
  assert '--preprocessed_dataset_dir is required' in refusal(data)
  (tmp_path / 'file').write_text('')
  assert 'Not a directory' in refusal(
      data, '--preprocessed_dataset_dir={}'.format(tmp_path / 'file'))
  assert 'no train-*-of-*.tfrecord in {}'.format(tmp_path) in refusal(
      '--dataset_dir={}'.format(tmp_path), '--eval_split=train', out)
  assert '--num_workers=-1: expected a whole number from 0' in refusal(
      data, out, '--num_workers=-1')
  assert not (tmp_path / 'out').exists()


# --- Layout of the MLPerf Mobile app ---------------------------------------


def test_layout_of_the_app_gives_the_score_of_the_app(tmp_path, generate):
  """The app sorts the paths, sums 31 IoUs and divides by 31."""
  count = 12
  random = np.random.RandomState(0)
  label = random.randint(1, 5, size=[count, 3, 4]).astype(np.uint8)
  # This model reads the labels off the image, except for some pixels.
  wrong = random.rand(count, 3, 4) < 0.2
  image = np.where(wrong, 1, label).astype(np.uint8)
  record_sets.write_shards(
      output_dir=str(tmp_path / 'records'), split='val', shards=[[
          pair('{}.png'.format(number),
                  np.repeat(image[number, :, :, np.newaxis], 3, axis=2),
                  label[number]) for number in range(count)]])
  generate('--layout=mlperf_app')
  folder = tmp_path / 'out'
  assert sorted(os.listdir(str(folder / 'images'))) == [
      'img_{:08d}.png'.format(number) for number in range(count)]
  intersections, unions = np.zeros(32), np.zeros(32)
  with open(str(folder / 'manifest.json')) as content:
    manifest = json.load(content)
  assert manifest['layout'] == 'mlperf_app'
  images, truths = (sorted((folder / kind).iterdir())
                    for kind in ('images', 'annotations'))
  for number, (name, truth) in enumerate(zip(images, truths)):
    assert manifest['images'][number]['name'] == name.name
    labelled = pixels(truth)
    # Padding has no class.
    predicted = pixels(name)[..., 0][labelled > 0]
    labelled = labelled[labelled > 0]
    for index in range(1, 32):
      intersections[index] += np.sum(
          (labelled == index) & (predicted == index))
      unions[index] += np.sum((labelled == index) | (predicted == index))
  app = sum(intersections[index] / unions[index]
            for index in range(1, 32) if unions[index]) / 31
  matrix = np.zeros([32, 32])
  for one in png_folder.list_pairs(str(folder)).pairs:
    read, truth = png_folder.read_pair(one)
    matrix += metrics.confusion_matrix(
        truth, np.where(truth > 0, read[..., 0], 0))
  assert matrix.sum() == count * 12
  assert 0 < app == pytest.approx(metrics.scores(matrix).miou_mlperf_app)


@pytest.mark.slow
def test_overwrite_replaces_the_layout_of_the_app(tmp_path, generate):
  generate('--layout=mlperf_app')
  assert values_of_app(tmp_path / 'out') == [3, 1, 5, 2, 4]
  generate('--overwrite')
  assert values(tmp_path / 'out') == [3, 1, 5, 2, 4]
  assert len(os.listdir(str(tmp_path / 'out' / 'annotations'))) == 5


def values_of_app(folder):
  return [int(pixels(path)[0, 0, 0])
          for path in sorted((folder / 'images').iterdir())]


# --- Foreign files ---------------------------------------------------------


def test_inputs_and_foreign_files_are_not_replaced(
    generate, five, tmp_path):
  names = tmp_path / 'names.txt'
  names.write_text('image_1.png\n')
  with pytest.raises(InputError, match='is an input of this command'):
    generate('--image_list={}'.format(names), '--manifest={}'.format(names))
  with pytest.raises(InputError, match='was not written by this command'):
    generate('--manifest={}'.format(five / 'val.json'))
  (tmp_path / 'out').mkdir(exist_ok=True)
  (tmp_path / 'out' / 'manifest.json').write_text('{"my": "numbers"}')
  with pytest.raises(InputError, match='was not written by this command'):
    generate()
  assert files(tmp_path / 'out') == ['manifest.json']


def test_two_runs_do_not_write_to_one_folder(generate, tmp_path, monkeypatch):
  write_pairs = png_folder_writer._write_pairs

  def with_another_run(*arguments):
    with pytest.raises(InputError, match='another run writes there'):
      generate('--overwrite')
    return write_pairs(*arguments)

  monkeypatch.setattr(png_folder_writer, '_write_pairs', with_another_run)
  assert generate().pairs == 5
  assert values(tmp_path / 'out') == [3, 1, 5, 2, 4]


def test_overwriting_does_not_follow_a_link(generate, tmp_path):
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'img_0.png').write_text('mine')
  (tmp_path / 'out').mkdir()
  os.symlink(str(tmp_path / 'mine'), str(tmp_path / 'out' / 'images'))
  with pytest.raises(InputError, match='holds images, images/img_0.png'):
    generate('--overwrite')
  assert files(tmp_path / 'mine') == ['img_0.png']
