"""Tests building records: builder.py, pairs.py and build_ade20k_data.py."""
import io
import json
import os
import re

from absl import flags
import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.cli import script_flags
from deeplab.config import label_map
from deeplab.config.options import BuildOptions
from deeplab.data import builder
from deeplab.data import pairs
from deeplab.data import records
from deeplab.errors import InputError
from tests import flag_groups
from tests import png
from tests import scripts

SCRIPT = 'build_ade20k_data.py'
ALL_CLASSES = os.path.join(scripts.REPOSITORY, 'label_maps', 'ade20k_150.csv')
SIZE = (12, 9)  # width, height


def everywhere(test):
  return pytest.mark.tf1(pytest.mark.tf2(pytest.mark.modern(test)))


class Folders:
  """A folder for images and one for labels."""

  def __init__(self, parent):
    self.images = parent / 'images'
    self.labels = parent / 'labels'
    self.output = parent / 'out'
    for folder in (self.images, self.labels):
      folder.mkdir(parents=True)

  def add_image(self, name='a.jpg', mode='RGB', size=SIZE, **save):
    pixels = np.random.RandomState(len(name)).randint(
        0, 256, size[::-1] + (3,), np.uint8)
    Image.fromarray(pixels).convert(mode).save(
        str(self.images / name),
        format={'.png': 'PNG', '.gif': 'GIF'}.get(
            os.path.splitext(name)[1].lower(), 'JPEG'), **save)

  def add_label(self, name='a.png', values=(0, 1, 31, 32, 150), size=SIZE):
    pixels = np.resize(np.array(values, np.uint8), size[::-1])
    Image.fromarray(pixels).save(str(self.labels / name), format='PNG')

  def add_pairs(self, count):
    for index in range(count):
      self.add_image('p{:02d}.jpg'.format(index))
      self.add_label('p{:02d}.png'.format(index))

  def options(self, **changes):
    return BuildOptions(
        split='train', image_folder=str(self.images),
        label_folder=str(self.labels), output_dir=str(self.output),
        num_workers=2)._replace(**changes)

  def build(self, **changes):
    return builder.build([self.options(**changes)])[0]

  def written(self):
    return sorted(path.name for path in self.output.iterdir())


@pytest.fixture
def folders(tmp_path):
  return Folders(tmp_path)


def read(paths):
  """Returns the features of all records, as a list of dicts."""
  features = []
  for path in paths:
    for record in tf.io.tf_record_iterator(path):
      example = tf.train.Example.FromString(record)
      features.append({
          key: (value.bytes_list.value or value.int64_list.value)[0]
          for key, value in example.features.feature.items()})
  return features


def names_of(paths):
  return [feature['image/filename'].decode() for feature in read(paths)]


# --- Output ----------------------------------------------------------------


def test_records_hold_the_files_unchanged(folders):
  folders.add_image()
  folders.add_label()
  summary = folders.build()
  assert [os.path.basename(path) for path in summary.shards] == [
      'train-0000{}-of-00004.tfrecord'.format(index) for index in range(4)]
  assert read(summary.shards) == [{
      'image/encoded': (folders.images / 'a.jpg').read_bytes(),
      'image/filename': b'a.jpg', 'image/format': b'jpeg',
      'image/height': 9, 'image/width': 12, 'image/channels': 3,
      'image/segmentation/class/encoded':
          (folders.labels / 'a.png').read_bytes(),
      'image/segmentation/class/format': b'png'}]


@pytest.mark.parametrize('length, lengths', [
    (0, [0, 0, 0, 0]), (6, [1, 2, 1, 2]), (8, [2, 2, 2, 2]),
    (20210, [5052, 5053, 5052, 5053])])
def test_pairs_are_split_evenly_into_shards(length, lengths):
  parts = builder.split_evenly(list(range(length)), 4)
  assert [len(part) for part in parts] == lengths
  assert sum(parts, []) == list(range(length))


def test_order_depends_only_on_names_and_seed(folders, tmp_path):
  other = Folders(tmp_path / 'other')
  other.add_pairs(7)
  folders.add_pairs(7)
  (folders.images / 'notes.txt').write_text('x')
  order = names_of(folders.build().shards)
  assert order == names_of(other.build(split='val').shards)
  assert order != sorted(order)
  assert sorted(order) == ['p{:02d}.jpg'.format(index) for index in range(7)]
  assert order != names_of(folders.build(shuffle_seed=1).shards)
  # The order of a seed never changes.
  assert builder.shuffled('abcdefgh', 0) == list('ebfcadhg')


def test_summary_counts_pairs_pixels_and_other_files(folders):
  folders.add_pairs(3)
  (folders.images / 'index.csv').write_text('x')
  (folders.images / '.DS_Store').write_text('x')
  summary = folders.build()
  assert (summary.pairs, summary.skipped, summary.ignored) == (3, 0, 1)
  # 108 pixels of 0, 1, 31, 32 and 150 in turn: 22, 22, 22, 21, 21 of each.
  assert summary.class_pixels == (
      (3 * (22 + 21 + 21), 3 * 22) + (0,) * 29 + (3 * 22,))


def test_a_description_is_written_beside_the_shards(folders):
  folders.add_pairs(2)
  folders.build(shuffle_seed=3)
  description = json.loads((folders.output / 'train.json').read_text())
  classes = description.pop('classes')
  assert len(description.pop('shards')) == 4
  assert description == {'split': 'train', 'pairs': 2, 'skipped': 0,
                         'shuffle_seed': 3}
  assert [entry['name'] for entry in classes] == list(constants.CLASS_NAMES)
  assert classes[1] == {'id': 1, 'name': 'wall',
                        'pixel_share': round(22 / 108, 6)}


def test_histogram_table_names_classes_with_and_without_pixels():
  def summary(split, *pixels):
    return builder.BuildSummary(
        split, 1, 0, 0, (), pixels + (0,) * (32 - len(pixels)), 1.0)

  lines = builder.histogram_table(
      [summary('train', 1, 3), summary('val', 1, 0, 1)])
  assert lines[:4] == [
      'id  class          train       val',
      ' 0  other         25.00%    50.00%',
      ' 1  wall          75.00%     0.00%',
      ' 2  building       0.00%    50.00%']
  assert lines[4].startswith('no pixel: sky, floor, tree')
  assert len(lines) == 5


def test_label_weights_balance_by_median_frequency():
  # Class 1 has 16 of 20 pixels (0.8) and class 2 has 2 of 10 (0.2). Class 3 has
  # 1 of 10 (0.1). Class 4 is absent. The median is 0.2.
  assert builder.label_weights([(1, 9, 0, 0, 0), (0, 7, 2, 1, 0)]) == (
      pytest.approx((0, 0.25, 1, 2, 1)))


def test_replaces_a_set_with_another_number_of_shards(folders):
  folders.add_pairs(2)
  folders.output.mkdir()
  for name in ('train-00000-of-00002.tfrecord', 'val-00000-of-00002.tfrecord'):
    (folders.output / name).write_bytes(b'old')
  folders.build()
  assert folders.written() == ['train-0000{}-of-00004.tfrecord'.format(index)
                               for index in range(4)] + [
                                   'train.json', 'val-00000-of-00002.tfrecord']


# --- Accepted input --------------------------------------------------------


@everywhere
def test_accepts_any_spelling_of_extensions(folders):
  names = ['a.jpg', 'b.JPG', 'c.jpeg', 'd.Jpeg', 'e.png', 'f.PNG', 'g.b.jpg']
  for name in names:
    folders.add_image(name)
    folders.add_label(os.path.splitext(name)[0] + '.png')
  formats = {feature['image/filename'].decode(): feature['image/format']
             for feature in read(folders.build().shards)}
  assert formats == {
      name: b'png' if name.lower().endswith('png') else b'jpeg'
      for name in names}


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'RGB'])
@everywhere
def test_accepts_jpegs_of_all_colour_types(folders, mode):
  folders.add_image(mode=mode)
  folders.add_label()
  encoded = read(folders.build().shards)[0]['image/encoded']
  with tf.Graph().as_default(), tf.Session() as session:
    decoded = session.run(tf.image.decode_image(encoded, channels=3))
  assert decoded.shape == (9, 12, 3)


def test_warns_that_the_exif_orientation_is_not_applied(folders, caplog):
  exif = Image.Exif()
  exif[0x0112] = 6
  folders.add_image(exif=exif)
  folders.add_label()
  feature = read(folders.build().shards)[0]
  assert (feature['image/height'], feature['image/width']) == (9, 12)
  assert ('EXIF orientations (1 of 1 images) are not applied: a.jpg (6)'
          in caplog.text)
  folders.add_label(size=SIZE[::-1])
  with pytest.raises(InputError, match='a: image 12x9, label 9x12; a.jpg has '
                     'EXIF orientation 6 and is stored unturned; turn'):
    folders.build()


@pytest.mark.parametrize('save', ['gray', 'rgb'])
@everywhere
def test_warns_about_images_with_16_bits(folders, caplog, save):
  if save == 'gray':
    Image.fromarray(np.arange(100, 100 + 9 * 12, dtype=np.uint16).reshape(
        9, 12) * 4).save(str(folders.images / 'a.png'))
  else:
    (folders.images / 'a.png').write_bytes(
        png.gray(9, 12, rows=9, depth=16, color_type=2, value=3))
  folders.add_label()
  folders.build()
  assert ('only the upper 8 bits are used, which are a.png ({}..3 of 255)'
          .format(1 if save == 'gray' else 3) in caplog.text)


def test_warns_about_a_single_class(folders, caplog):
  folders.add_pairs(1)
  folders.build()
  assert 'one class alone' not in caplog.text
  folders.add_label('p00.png', values=(0, 12))
  folders.build()
  assert ('train: all labelled pixels are of class 12 sidewalk: a model of one '
          'class alone is always right' in caplog.text)


def test_accepts_a_label_of_zeros_beside_others(folders):
  folders.add_pairs(2)
  folders.add_label('p00.png', values=[0])
  assert folders.build().pairs == 2


@everywhere
def test_palette_labels_option_takes_the_indices(folders):
  folders.add_image()
  values = np.resize(np.array([0, 1, 5, 31, 12, 150], np.uint8), SIZE[::-1])
  label = Image.fromarray(values, mode='P')
  label.putpalette([(7 * index) % 256 for index in range(768)])
  label.save(str(folders.labels / 'a.png'))

  with pytest.raises(InputError, match='a.png is a palette image; expected '
                     '8-bit gray, .*palette_labels'):
    folders.build()
  feature = read(folders.build(palette_labels=True).shards)[0]
  stored = Image.open(io.BytesIO(feature['image/segmentation/class/encoded']))
  assert stored.mode == 'L'
  np.testing.assert_array_equal(np.asarray(stored), values)


@pytest.mark.parametrize('image_format, accepted', [
    ('jpg', True), ('jpeg', True), (None, True), ('png', False)])
@everywhere
def test_image_format_is_checked_by_content(
    folders, image_format, accepted):
  folders.add_image('a.jpg')
  # The name of this JPEG ends in .png.
  os.rename(str(folders.images / 'a.jpg'), str(folders.images / 'a.png'))
  folders.add_label()
  if accepted:
    assert folders.build(image_format=image_format).pairs == 1
  else:
    with pytest.raises(InputError, match='a.png is a JPEG; expected PNG'):
      folders.build(image_format=image_format)


# --- Refusals --------------------------------------------------------------


def cut(path, length):
  path.write_bytes(path.read_bytes()[:length])


def flip(path, position):
  content = bytearray(path.read_bytes())
  content[position] ^= 1
  path.write_bytes(bytes(content))


def save_label(folders, pixels, **save):
  Image.fromarray(pixels).save(str(folders.labels / 'a.png'), **save)


def gray_label(folders, **changes):
  (folders.labels / 'a.png').write_bytes(png.gray(
      SIZE[1], SIZE[0], **dict(dict(rows=SIZE[1]), **changes)))


def instead(path, make):
  path.unlink()
  make(str(path))


BAD_FILES = [
    (lambda f: (f.labels / 'a.png').unlink(), 'a.jpg: no label a.png'),
    (lambda f: f.add_label(size=(9, 9)), 'a: image 12x9, label 9x9'),
    (lambda f: cut(f.images / 'a.jpg', 400), r'a.jpg: truncated JPEG \(400 b'),
    (lambda f: cut(f.images / 'a.jpg', 0), 'a.jpg: empty file'),
    # The checksum of the pixels is just before the last 12 bytes.
    (lambda f: flip(f.labels / 'a.png', -14), 'a.png: damaged PNG'),
    (lambda f: cut(f.labels / 'a.png', -2), 'a.png: truncated PNG'),
    (lambda f: (f.images / 'a.jpg').write_bytes(b'GIF89a'),
     'a.jpg: is neither JPEG nor PNG'),
    (lambda f: (f.images / 'a.jpg').write_bytes(b'\xff\xd8\xffxx'),
     r'a.jpg: damaged JPEG \(5 bytes\): '),
    (lambda f: save_label(f, np.ones((9, 12, 3), np.uint8)),
     'a.png is RGB; expected 8-bit gray, 0 = other, 1..150'),
    (lambda f: save_label(f, np.ones((9, 12), np.uint16)),
     'a.png is 16-bit gray; expected 8-bit gray'),
    (lambda f: gray_label(f, depth=4, value=0x12),
     'a.png is 4-bit gray; expected 8-bit gray'),
    # Pillow would fill missing pixels with zeros.
    (lambda f: gray_label(f, rows=8), 'a.png: damaged PNG .*: 104 of 117 byt'),
    (lambda f: instead(f.images / 'a.jpg', lambda p: os.symlink('gone', p)),
     'a.jpg: no such file'),
    (lambda f: instead(f.images / 'a.jpg', os.mkfifo),
     'a.jpg: .*a pipe'),
    (lambda f: instead(f.images / 'a.jpg', os.mkdir),
     'a.jpg: .*a folder'),
    (lambda f: save_label(f, np.ones((9, 12), np.uint8), format='JPEG'),
     'a.png is a JPEG; expected 8-bit gray'),
    (lambda f: f.add_label(values=[1, 151]), r'a.png holds label 151; .*'
     r'1..150 \(other ids: label_map, see docs/own_data.md\)'),
    (lambda f: f.add_label(values=[0, 255]),
     'a.png holds only 0 and 255: a mask, not class ids'),
    (lambda f: f.add_image('a.png'),
     'a.jpg: 2 images share the label a.png; a.png: 2 images share'),
]


@pytest.mark.parametrize('spoil, message', BAD_FILES,
                         ids=[message for _, message in BAD_FILES])
@everywhere
def test_refuses_bad_files_by_name(folders, spoil, message):
  folders.add_pairs(1)
  folders.add_image()
  folders.add_label()
  spoil(folders)
  with pytest.raises(InputError, match='pairs of train cannot be used: ' +
                     message):
    folders.build()
  assert folders.written() == ['train-problems.txt']
  # With skip_bad, exactly these files are left out.
  summary = folders.build(skip_bad=True)
  assert names_of(summary.shards) == ['p00.jpg']
  assert summary.skipped == (2 if 'share' in message else 1)


def test_reports_all_problems_at_once(folders):
  folders.add_pairs(6)
  for index in range(5):
    (folders.labels / 'p{:02d}.png'.format(index)).unlink()
  with pytest.raises(InputError) as caught:
    folders.build()
  problems = folders.output / 'train-problems.txt'
  assert str(caught.value) == (
      '5 of 6 pairs of train cannot be used: p00.jpg: no label p00.png; '
      'p01.jpg: no label p01.png; p02.jpg: no label p02.png; and 2 more (full '
      'list: {}); skip_bad leaves them out'.format(problems))
  assert problems.read_text().splitlines() == [
      'p{0:02d}.jpg: no label p{0:02d}.png'.format(index)
      for index in range(5)]
  # A good build removes the list.
  for index in range(5):
    folders.add_label('p{:02d}.png'.format(index))
  folders.build()
  assert not problems.exists()


def test_skip_bad_fails_if_no_pair_is_left(folders):
  folders.add_image()
  folders.add_label(values=[151])
  with pytest.raises(InputError, match=r'1 of 1 pairs .* cannot be used'):
    folders.build(skip_bad=True)


def add_one(folders, image, label, **save):
  folders.add_image(image)
  folders.add_label(label, **save)


@pytest.mark.parametrize('prepare, message', [
    (lambda f: (f.images / 'town').mkdir(),
     '0 other files; folders inside it are not searched: town'),
    (lambda f: f.add_image('a.gif'), re.escape(
        'no *.jpg, *.jpeg or *.png in train_image_folder=') + '.*1 other fil'),
    (lambda f: f.add_image('a_seg.png'), 'a_seg.png: this is the full ADE20K; '
     'use ADEChallengeData2016'),
    (lambda f: add_one(f, 'x_leftImg8bit.png', 'x_gtFine.png'),
     'train_label_folder=.*: no label has the name of an image; expected '
     'x_leftImg8bit.png for x_leftImg8bit.png, found x_gtFine.png'),
    (lambda f: add_one(f, 'a.jpg', 'a.png', values=[0, 32, 150]),
     'no label of 1 holds a class id of 1..31'),
])
def test_refuses_wrong_folders(folders, prepare, message):
  prepare(folders)
  with pytest.raises(InputError, match=message):
    folders.build()
  assert not folders.output.exists() or folders.written() == []


@pytest.mark.parametrize('changes, message', [
    (dict(image_folder='no/such'), 'train_image_folder=no/such: no such f'),
    (dict(label_folder='no/such'), 'train_label_folder=no/such: no such f'),
    (dict(num_workers=-1), 'num_workers=-1: expected a whole number from 0'),
    (dict(split='test'), 'split=test: expected train or val'),
])
def test_refuses_bad_options(folders, changes, message):
  folders.add_pairs(1)
  with pytest.raises(InputError, match=message):
    folders.build(**changes)
  assert not folders.output.exists()
  with pytest.raises(InputError, match='labels are expected in another folder'):
    folders.build(label_folder=str(folders.images))
  folders.output.write_text('x')
  with pytest.raises(InputError, match='output_dir=.*out: '):
    folders.build()


def test_a_foreign_description_is_not_replaced(folders):
  folders.add_pairs(1)
  folders.output.mkdir()
  (folders.output / 'train.json').write_text('{"my": "numbers"}')
  with pytest.raises(InputError, match='was not written by this command'):
    folders.build()
  assert folders.written() == ['train.json']


# --- Both splits at once ---------------------------------------------------


@pytest.fixture
def two(tmp_path):
  """Folders of training and validation pairs, and BuildOptions of both."""
  found = [Folders(tmp_path / split) for split in constants.SPLITS]
  for folders in found:
    folders.add_pairs(3)
  return found, [
      folders.options(split=split, output_dir=str(tmp_path / 'out'))
      for folders, split in zip(found, constants.SPLITS)]


def contents_of(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bad_validation_label_keeps_the_training_shards(two, tmp_path):
  (train, val), options = two
  builder.build(options)
  before = contents_of(tmp_path / 'out')
  train.add_image('new.jpg')
  train.add_label('new.png')
  val.add_label('p01.png', values=[200])
  with pytest.raises(InputError, match='^1 of 3 pairs of val cannot be used: '
                     'p01.png holds label 200'):
    builder.build(options)
  after = contents_of(tmp_path / 'out')
  assert after.pop('val-problems.txt')
  assert after == before


def test_problems_of_both_splits_are_reported_at_once(two, tmp_path):
  (train, val), options = two
  (train.labels / 'p00.png').unlink()
  (val.labels / 'p02.png').unlink()
  with pytest.raises(InputError) as caught:
    builder.build(options)
  for text in ('1 of 3 pairs of train cannot be used: p00.jpg: no label',
               '; 1 of 3 pairs of val cannot be used: p02.jpg: no label'):
    assert text in str(caught.value)
  assert sorted(contents_of(tmp_path / 'out')) == [
      'train-problems.txt', 'val-problems.txt']


def test_a_disk_full_at_the_last_shard_keeps_both_older_splits(
    two, tmp_path, monkeypatch):
  (_, val), options = two
  builder.build(options)
  before = contents_of(tmp_path / 'out')
  label_bytes = pairs.label_bytes

  def full(pair):
    if str(val.labels) in pair.label_path:
      raise OSError(28, 'No space left on device')
    return label_bytes(pair)

  monkeypatch.setattr(pairs, 'label_bytes', full)
  with pytest.raises(InputError, match='disk full writing val-00001-of-00004'):
    builder.build([one._replace(shuffle_seed=7) for one in options])
  assert contents_of(tmp_path / 'out') == before


def test_bytes_do_not_depend_on_file_order_or_workers(
    two, tmp_path, monkeypatch):
  _, options = two
  builder.build(options)
  scandir = os.scandir
  inputs = [str(folder) for folders in two[0]
            for folder in (folders.images, folders.labels)]
  monkeypatch.setattr(
      os, 'scandir', lambda folder: reversed(list(scandir(folder)))
      if folder in inputs else scandir(folder))
  builder.build([one._replace(output_dir=str(tmp_path / 'other'), num_workers=5)
                 for one in options])
  monkeypatch.undo()
  found = contents_of(tmp_path / 'other')
  assert found == contents_of(tmp_path / 'out')
  assert len(found) == 10


# --- The script ------------------------------------------------------------


def flags_for(split, folders):
  return ['--{}_image_folder={}'.format(split, folders.images),
          '--{}_image_label_folder={}'.format(split, folders.labels)]


@pytest.mark.slow
@everywhere
def test_script_converts_one_split_or_both_from_any_folder(tmp_path):
  train, val = Folders(tmp_path / 'train'), Folders(tmp_path / 'val')
  train.add_pairs(3)
  val.add_pairs(2)
  flags = flags_for('train', train) + ['--output_dir=out']
  assert 'val: left out' in scripts.run(
      SCRIPT, *flags, cwd=str(tmp_path)).stdout
  lines = scripts.run(SCRIPT, *(flags + flags_for('val', val)),
                      cwd=str(tmp_path)).stdout.splitlines()
  assert lines[0].startswith('train: 3 pairs in 4 shards in out (')
  assert lines[1].startswith('val: 2 pairs in 4 shards in out (')
  assert lines[3] == 'id  class          train       val'
  for split, count in (('train', 3), ('val', 2)):
    paths = records.find_shards(str(tmp_path / 'out'), split)
    assert len(names_of(paths)) == count


def test_script_takes_all_classes_of_ade20k_and_weights_them(tmp_path):
  train = Folders(tmp_path / 'train')
  train.add_pairs(1)
  result = scripts.run(SCRIPT, *(flags_for('train', train) + [
      '--output_dir=out', '--label_map=' + ALL_CLASSES]), cwd=str(tmp_path))
  description = json.loads((tmp_path / 'out' / 'train.json').read_text())
  classes = label_map.from_json(description['label_map'])
  assert classes.num_classes == 151
  assert classes.names[:32] == constants.CLASS_NAMES
  assert classes.names[32::118] == ('seat', 'flag')
  assert classes.table == tuple(range(151)) + (0,) * 105
  assert [one['id'] for one in description['classes'] if one['pixel_share']
          ] == [0, 1, 31, 32, 150]
  # train.py accepts the last line. Of 108 pixels, 22 are of classes 1 and 31,
  # and 21 of classes 32 and 150; the median is 21.5.
  values = flags.FlagValues()
  script_flags.TRAIN.define_flags(values)
  values(['train.py', result.stdout.splitlines()[-1]])
  assert len(values.label_weights) == 151
  assert [values.label_weights[index] for index in (0, 1, 2, 31, 150)] == [
      0, 0.9773, 1, 0.9773, 1.024]


@pytest.mark.slow
def test_script_names_flags_in_lists_of_problems(tmp_path):
  folders = Folders(tmp_path / 'train')
  folders.add_pairs(1)
  folders.add_image('z.jpg')
  label = Image.new('P', SIZE)
  label.putpalette([0, 0, 0] * 256)
  label.save(str(folders.labels / 'z.png'))
  line = scripts.refusal(SCRIPT, *(flags_for('train', folders) + [
      '--output_dir={}'.format(folders.output)]))
  assert '(--palette_labels takes the indices as class ids)' in line
  assert line.endswith('; --skip_bad leaves them out')


@pytest.mark.parametrize('arguments, message', [
    ([], '--train_image_folder=./ADE20K/ADEChallengeData2016/images/training: '
     'no such folder'),
    (['--val_image_folder=.', '--val_image_label_folder=gone'],
     '--val_image_label_folder=gone: no such folder'),
])
def test_script_refuses_folders_that_are_missing(tmp_path, arguments, message):
  assert message in scripts.refusal(SCRIPT, *arguments, cwd=str(tmp_path))
  assert os.listdir(str(tmp_path)) == []


def test_script_passes_on_every_flag():
  made = flag_groups.arguments_of(
      SCRIPT,
      '--train_image_folder=a', '--train_image_label_folder=b',
      '--val_image_folder=c', '--val_image_label_folder=d', '--output_dir=e',
      '--image_format=jpg', '--label_format=png', '--shuffle_seed=4',
      '--skip_bad', '--palette_labels', '--num_workers=5')
  train = BuildOptions(
      split='train', image_folder='a', label_folder='b', output_dir='e',
      image_format='jpg', palette_labels=True, skip_bad=True, shuffle_seed=4,
      num_workers=5)
  assert made['splits'] == [
      train, train._replace(split='val', image_folder='c', label_folder='d')]


def test_real_pairs(ade20k_sample_dir, tmp_path):
  summary, = builder.build([BuildOptions(
      split='val', output_dir=str(tmp_path),
      image_folder=os.path.join(ade20k_sample_dir, 'images', 'validation'),
      label_folder=os.path.join(ade20k_sample_dir, 'annotations',
                                'validation'))])
  features = {feature['image/filename']: feature
              for feature in read(summary.shards)}
  assert sorted(features) == [b'ADE_val_00000001.jpg', b'ADE_val_00000002.jpg']
  sizes = {name: (feature['image/width'], feature['image/height'])
           for name, feature in features.items()}
  assert sizes == {b'ADE_val_00000001.jpg': (683, 512),
                   b'ADE_val_00000002.jpg': (500, 364)}
  # Most pixels of these two pictures are sky, building and grass.
  shares = summary.class_shares()
  assert sorted(range(32), key=shares.__getitem__)[-3:] == [10, 2, 3]
