"""Parts that write to one folder: what all leave is what one run leaves."""
import io
import json
import os
import shutil

import numpy as np
from PIL import Image
import pytest

from deeplab import contract
from deeplab import files
from deeplab import options as options_lib
from deeplab import parts
from deeplab.data import builder
from deeplab.data import dataset
from deeplab.data import pairs
from deeplab.data import png_folder
from deeplab.data import png_folder_writer
from deeplab.data import records
from deeplab.data import splits
from deeplab.errors import InputError
from tests import record_sets

SIZE = (4, 5)
CROP = options_lib.PreprocessOptions(crop_size=SIZE)


def contents_of(folder):
  """Returns a dict from path to bytes, or pixels, of all files in a folder."""
  found = {}
  for parent, _, names in os.walk(str(folder)):
    for name in names:
      path = os.path.join(parent, name)
      with open(path, 'rb') as content:
        data = content.read()
      if name.endswith('.png'):
        # ISA-L, which deflates them, has been seen to give equal pixels other
        # bytes.
        data = np.array(Image.open(io.BytesIO(data))).tolist()
      found[os.path.relpath(path, str(folder))] = data
  return found


# --- Preprocessed images ---------------------------------------------------


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Five images in three shards."""
  folder = tmp_path_factory.mktemp('data')
  examples = [records.make_example(
      image_bytes=record_sets.encode(np.full(SIZE + (3,), number, np.uint8)),
      label_bytes=record_sets.label(1 + number, SIZE),
      filename='image_{}.png'.format(number), image_format='png',
      label_format='png', height=SIZE[0], width=SIZE[1])
              for number in range(5)]
  records.write_shards(output_dir=str(folder), split='val', shards=[
      examples[:2], examples[2:3], examples[3:]])
  return str(folder)


def generate(data, folder, number=None, of=1, crop=CROP, names=None, **more):
  options = options_lib.PreprocessedOptions(
      output_dir=str(folder), num_shards=of, shard_index=number, **more)
  return png_folder_writer.write(
      dataset.batches(options_lib.DatasetOptions(data, 'val'), crop,
                      names=names, part=options.part),
      names=names, split='val', preprocess_options=crop, options=options)


@pytest.mark.parametrize('names', [
    None, ['image_4.png', 'image_0.png', 'image_3.png']])
def test_images_of_all_parts_are_those_of_one_run(data, tmp_path, names):
  whole = generate(data, tmp_path / 'whole', names=names)
  lines = []
  for number in (2, 0, 1):
    summary = generate(data, tmp_path / 'out', number, 3, names=names,
                       manifest=str(tmp_path / 'copy.json'))
    lines.append(png_folder_writer.summary_line(summary))
    if number != 1:
      with pytest.raises(InputError, match='did not finish writing it; part'):
        png_folder.list_pairs(str(tmp_path / 'out'))
  found = contents_of(tmp_path / 'out')
  assert found == contents_of(tmp_path / 'whole')
  assert len(found) == 2 * whole.pairs + 1
  assert (tmp_path / 'copy.json').read_bytes() == found['manifest.json']
  assert [line.split('; ')[-1] for line in lines] == [
      'parts 0, 1 of 3 missing', 'part 1 of 3 missing', 'all parts are there']
  assert lines[0].startswith('val, part 2 of 3: {} pairs in '.format(
      1 if names else 2))


def test_a_part_that_was_killed_is_run_again(data, tmp_path, monkeypatch):
  folder = tmp_path / 'out'
  generate(data, folder, 0, 2)
  keep = parts.keep

  def killed(*unused):
    raise KeyboardInterrupt

  monkeypatch.setattr(parts, 'keep', killed)
  with pytest.raises(KeyboardInterrupt):
    generate(data, folder, 1, 2)
  monkeypatch.setattr(parts, 'keep', keep)
  with pytest.raises(InputError, match='writing it; part 1 of 2 missing'):
    png_folder.list_pairs(str(folder))
  # Another one is run twice, to no harm.
  assert generate(data, folder, 0, 2).missing == 'part 1 of 2'
  assert generate(data, folder, 1, 2).missing == ''
  generate(data, tmp_path / 'whole')
  assert contents_of(folder) == contents_of(tmp_path / 'whole')


def test_two_parts_that_come_last_both_complete(data, tmp_path, monkeypatch):
  """The other one does so between this one's last file and its look."""
  folder = tmp_path / 'out'
  generate(data, folder, 0, 2)
  kept = parts.kept

  def kept_after(*arguments):
    monkeypatch.setattr(parts, 'kept', kept)
    generate(data, folder, 0, 2)
    return kept(*arguments)

  monkeypatch.setattr(parts, 'kept', kept_after)
  assert generate(data, folder, 1, 2).missing == ''
  generate(data, tmp_path / 'whole')
  assert contents_of(folder) == contents_of(tmp_path / 'whole')


def test_a_completion_that_was_killed_is_done_again(
    data, tmp_path, monkeypatch):
  folder = tmp_path / 'out'
  generate(data, folder, 0, 2)
  write_json = files.write_json

  def killed(path, *content):
    if os.path.basename(path) == contract.PREPROCESSED_MANIFEST:
      raise KeyboardInterrupt
    write_json(path, *content)

  monkeypatch.setattr(files, 'write_json', killed)
  with pytest.raises(KeyboardInterrupt):
    generate(data, folder, 1, 2)
  monkeypatch.setattr(files, 'write_json', write_json)
  with pytest.raises(InputError, match='did not finish writing'):
    png_folder.list_pairs(str(folder))
  assert generate(data, folder, 0, 2).missing == ''
  generate(data, tmp_path / 'whole')
  assert contents_of(folder) == contents_of(tmp_path / 'whole')


def test_images_of_other_work_are_not_mixed(data, tmp_path):
  folder = tmp_path / 'out'
  generate(data, folder, 0, 2)
  before = contents_of(folder)
  for arguments, expected in (
      ({'of': 3}, 'is of another work: parts 2, and 3; give another folder'),
      ({'crop': CROP._replace(crop_size=(5, 5))},
       r'is of another work: geometry .* crop_size \[4, 5\], and \[5, 5\]'),
      ({'names': ['image_0.png', 'image_1.png']},
       'is of another work: images 5, and 2; names None, and ')):
    with pytest.raises(InputError, match=expected):
      generate(data, folder, **dict({'number': 1, 'of': 2}, **arguments))
  with pytest.raises(InputError, match='holds 4 files from an unfinished run'):
    generate(data, folder)
  assert contents_of(folder) == before
  # Where they came together all the same, as by copying.
  generate(data, tmp_path / 'other', 1, 2, CROP._replace(crop_size=(5, 5)))
  shutil.copy(str(tmp_path / 'other' / 'part-1-of-2.json'), str(folder))
  with pytest.raises(InputError, match='part-1-of-2.json is of another work'):
    generate(data, folder, 0, 2)
  with pytest.raises(InputError, match='did not finish writing'):
    png_folder.list_pairs(str(folder))


def test_parts_replace_nothing(data, tmp_path):
  with pytest.raises(InputError, match=(
      'overwrite=true with num_shards=2: parts add to one folder')):
    generate(data, tmp_path / 'out', 0, 2, overwrite=True)
  generate(data, tmp_path / 'whole')
  with pytest.raises(InputError, match='holds 10 files already; give another'):
    generate(data, tmp_path / 'whole', 0, 2)
  # A run without parts does replace them.
  generate(data, tmp_path / 'out', 0, 2)
  with pytest.raises(InputError, match='holds 4 files from an unfinished run;'):
    generate(data, tmp_path / 'out')
  generate(data, tmp_path / 'out', overwrite=True)
  assert contents_of(tmp_path / 'out') == contents_of(tmp_path / 'whole')


def test_what_a_part_left_may_be_damaged(data, tmp_path):
  generate(data, tmp_path / 'out', 0, 2)
  for content in ('{', '[]', json.dumps({'work': 1, 'content': []})):
    (tmp_path / 'out' / 'part-0-of-2.json').write_text(content)
    with pytest.raises(InputError, match='part-0-of-2.json: '):
      generate(data, tmp_path / 'out', 1, 2)


# --- Records ---------------------------------------------------------------


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """Pairs of both splits: 9 and 3, so that a shard of val is empty."""
  folder = tmp_path_factory.mktemp('source')
  for split, count in (('train', 9), ('val', 3)):
    for kind in ('images', 'labels'):
      (folder / split / kind).mkdir(parents=True)
    for number in range(count):
      (folder / split / 'images' / 'p{}.jpg'.format(number)).write_bytes(
          record_sets.picture(number))
      (folder / split / 'labels' / 'p{}.png'.format(number)).write_bytes(
          record_sets.label(1 + number))
  return folder


def build(source, output, number=None, of=1, **more):
  return builder.build([options_lib.BuildOptions(
      split=split, image_folder=str(source / split / 'images'),
      label_folder=str(source / split / 'labels'), output_dir=str(output),
      num_workers=1, num_shards=of, shard_index=number, **more)
                        for split in contract.SPLITS])


def number_of_records(folder):
  return len(splits.open_split(options_lib.DatasetOptions(
      str(folder), 'train')).records)


@pytest.mark.parametrize('of', [2, 3, 4])
def test_shards_of_all_parts_are_those_of_one_run(source, tmp_path, of):
  build(source, tmp_path / 'whole')
  lines = []
  for number in reversed(range(of)):
    if lines:
      with pytest.raises(InputError, match='no train-'):
        number_of_records(tmp_path / 'out')
    summary = build(source, tmp_path / 'out', number, of)[0]
    lines.append(builder.summary_line(summary, options_lib.BuildOptions(
        'train', 'i', 'l', str(tmp_path / 'out'))))
  assert contents_of(tmp_path / 'out') == contents_of(tmp_path / 'whole')
  assert sorted(os.listdir(str(tmp_path / 'out'))) == sorted(
      os.listdir(str(tmp_path / 'whole')))
  assert lines[0].startswith('train, part {} of {}: '.format(of - 1, of))
  assert 'part 0 of {} missing'.format(of) in lines[-2]
  assert lines[-1].endswith('; all parts are there')


def test_a_part_decodes_its_own_pairs_alone(source, tmp_path, monkeypatch):
  decoded = []
  check_pair = pairs.check_pair

  def noted(pair, **more):
    decoded.append(pair.name)
    return check_pair(pair, **more)

  monkeypatch.setattr(pairs, 'check_pair', noted)
  build(source, tmp_path / 'out', 0, 4)
  assert len(decoded) == 2
  build(source, tmp_path / 'out', 1, 4)
  assert len(decoded) == 2 + 3


def test_an_older_set_is_there_until_all_parts_are(source, tmp_path):
  out = tmp_path / 'out'
  build(source, out, shuffle_seed=1)
  older = contents_of(out)
  build(source, out, 0, 2)
  assert number_of_records(out) == 9
  assert {path: content for path, content in contents_of(out).items()
          if os.sep not in path} == older
  build(source, out, 1, 2)
  build(source, tmp_path / 'whole')
  assert contents_of(out) == contents_of(tmp_path / 'whole')


def copy_with(source, folder, bad):
  shutil.copytree(str(source), str(folder))
  for name in bad:
    (folder / 'train' / 'labels' / name).write_bytes(b'')
  return folder


def test_bad_pairs_of_a_part_are_refused_or_left_out(source, tmp_path):
  folder = copy_with(source, tmp_path / 'bad', ['p3.png', 'p5.png'])
  out, whole = tmp_path / 'out', tmp_path / 'whole'
  refused = 0
  for number in range(4):
    try:
      build(folder, out, number, 4)
    except InputError as error:
      refused += 1
      name = 'train-problems-part-{}-of-4.txt'.format(number)
      assert name in str(error)
      assert 'empty file' in (out / name).read_text()
  assert 1 <= refused <= 2
  with pytest.raises(InputError, match='no train-'):
    number_of_records(out)
  shutil.rmtree(str(out))
  build(folder, whole, skip_bad=True)
  for number in range(3):
    build(folder, out, number, 3, skip_bad=True)
  assert contents_of(out) == contents_of(whole)
  assert json.loads((out / 'train.json').read_text())['skipped'] == 2


def seen_by_a_reader(folder):
  """Returns which set a folder has; 'refused' where a reader refuses it."""
  try:
    return splits.identity(splits.open_split(options_lib.DatasetOptions(
        str(folder), 'train')))
  except InputError as error:
    assert 'build_ade20k_data.py' in str(error)
    return 'refused'


@pytest.mark.parametrize('change', ['replace', 'remove', 'rmdir'])
def test_a_publication_that_was_killed_is_done_again(
    source, tmp_path, monkeypatch, change):
  monkeypatch.setattr(files, 'sync', lambda path: None)
  build(source, tmp_path / 'whole')
  build(source, tmp_path / 'older', shuffle_seed=1)
  new = seen_by_a_reader(tmp_path / 'whole')
  older = seen_by_a_reader(tmp_path / 'older')
  act, publish = getattr(os, change), records.publish
  seen = set()
  for number in range(1, 30):
    out = tmp_path / str(number)
    shutil.copytree(str(tmp_path / 'older'), str(out))
    build(source, out, 0, 2)
    left = [number]

    def killed(*arguments, left=left, **options):
      left[0] -= 1
      if not left[0]:
        raise KeyboardInterrupt
      return act(*arguments, **options)

    def publish_killed(*arguments, killed=killed):
      with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, change, killed)
        publish(*arguments)

    monkeypatch.setattr(records, 'publish', publish_killed)
    try:
      build(source, out, 1, 2)
      break
    except KeyboardInterrupt:
      seen.add(seen_by_a_reader(out))
    finally:
      monkeypatch.setattr(records, 'publish', publish)
    build(source, out, number % 2, 2)
    assert contents_of(out) == contents_of(tmp_path / 'whole')
  assert left[0] > 0 and number > 1
  assert seen <= {older, 'refused', new}


def test_shards_of_other_work_are_not_mixed(source, tmp_path):
  out = tmp_path / 'out'
  build(source, out, 0, 2)
  other = copy_with(source, tmp_path / 'other', [])
  (other / 'train' / 'labels' / 'p0.png').write_bytes(
      record_sets.label(7, size=(6, 8)) + b' ')
  for given, more, expected in (
      (source, {'of': 3}, '0-of-2.json is of another work: parts 2, and 3'),
      (source, {'shuffle_seed': 5}, 'train shuffle_seed 0, and 5'),
      (other, {}, 'train pairs ')):
    with pytest.raises(InputError, match=expected):
      build(given, out, **dict({'number': 1, 'of': 2}, **more))
  assert sorted(os.listdir(str(out))) == ['parts']


def test_a_shard_that_is_lost_is_not_published(source, tmp_path):
  out = tmp_path / 'out'
  build(source, out, 0, 2)
  shard = out / 'parts' / 'val-00001-of-00004.tfrecord'
  content = shard.read_bytes()
  for change in (content[:-1] + b'x', None):
    shard.unlink()
    if change:
      shard.write_bytes(change)
    with pytest.raises(InputError, match='val-00001-of-00004.tfrecord: missin'):
      build(source, out, 1, 2)
    with pytest.raises(InputError, match='no train-'):
      number_of_records(out)
  build(source, out, 0, 2)
  assert number_of_records(out) == 9


def test_no_more_parts_than_shards():
  with pytest.raises(InputError, match='num_shards=5: expected .* from 1 to 4'):
    options_lib.BuildOptions('val', 'i', 'l', 'o', num_shards=5, shard_index=0)
