"""Evaluation in parts: the sum of all is the whole, and nothing else is."""
import json
import os

import numpy as np
import pytest

from deeplab import counting
from deeplab import evaluated
from deeplab import evaluation
from deeplab import merging
from deeplab import options as options_lib
from deeplab import parts
from deeplab import report as report_lib
from deeplab.data import dataset
from deeplab.data import records
from deeplab.errors import InputError
from tests import record_sets
from tests import scripts

SIZE = (6, 8)
CROP = options_lib.PreprocessOptions(crop_size=SIZE)
# Images of each shard.
SHARDS = (2, 3, 1, 2)
IMAGES = sum(SHARDS)


def write_records(folder, shards=SHARDS, shift=0):
  """Writes shards of images with labels and pixels of many classes."""
  folder.mkdir()
  examples = []
  for number in range(sum(shards)):
    draw = np.random.RandomState(number + shift)
    examples.append(records.make_example(
        image_bytes=record_sets.encode(
            draw.randint(0, 32, SIZE + (3,)).astype(np.uint8)),
        label_bytes=record_sets.encode(
            draw.randint(0, 5, SIZE).astype(np.uint8)),
        filename='image_{}.png'.format(number), image_format='png',
        label_format='png', height=SIZE[0], width=SIZE[1]))
  left = iter(examples)
  records.write_shards(output_dir=str(folder), split='val', shards=[
      [next(left) for _ in range(count)] for count in shards])
  return str(folder)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return write_records(tmp_path_factory.mktemp('parts') / 'data')


class Pixels(counting.Predictor):
  """Takes the red of a pixel for its class, and notes how images come."""

  description = 'log/model.ckpt-3'

  def __init__(self):
    self.batches = []

  def predict(self, images):
    self.batches.append(images[:, :, :, 0].astype(np.int32))
    return self.batches[-1]


def split_options(data, batch_size=1, **more):
  return options_lib.DatasetOptions(
      dataset_dir=data, split='val', batch_size=batch_size, **more)


def evaluate(data, path, number=None, of=1, batch_size=1, model='a', **more):
  """Evaluates a part, or all, into a report; returns (batches, report)."""
  options = options_lib.EvalOptions(
      report_json=str(path), num_shards=of, shard_index=number)
  data_options = split_options(data, batch_size, **more)
  predictor = Pixels()
  batches = dataset.batches(data_options, CROP, part=options.part)
  report = evaluation.evaluate(
      predictor, batches, CROP, options, kind=report_lib.CHECKPOINT, step=3,
      part=options.part and evaluated.part_of(
          options.part, {'checkpoint': model}, batches,
          dataset_options=data_options, preprocess_options=CROP,
          runtime='here'))
  return predictor.batches, report


def merge(tmp_path, *paths):
  return merging.merge([str(path) for path in paths], options_lib.MergeOptions(
      report_json=str(tmp_path / 'sum.json')))


def numbers_in(path):
  """Returns what a report says but for times."""
  with open(str(path)) as content:
    found = json.load(content)
  assert found.pop('seconds') > 0 and found.pop('images_per_second') > 0
  return found


# --- The sum ---------------------------------------------------------------


@pytest.mark.parametrize('of, batch_size', [(3, 3), (5, 1)])
def test_the_sum_of_parts_is_the_whole(data, tmp_path, capsys, of, batch_size):
  batches, _ = evaluate(data, tmp_path / 'all.json', batch_size=batch_size)
  found, paths = [], []
  for number in reversed(range(of)):
    paths.append(tmp_path / '{}.json'.format(number))
    own, _ = evaluate(data, paths[-1], number, of, batch_size)
    found = own + found
  # Every batch as it was: no image has others beside it.
  assert len(found) == len(batches)
  for one, other in zip(found, batches):
    np.testing.assert_array_equal(one, other)
  merge(tmp_path, *paths)
  assert numbers_in(tmp_path / 'sum.json') == numbers_in(tmp_path / 'all.json')
  assert capsys.readouterr().out.count('RESULT {') == 1


@pytest.mark.slow
def test_what_is_bad_is_left_out_of_all_parts_alike(tmp_path):
  folder = write_records(tmp_path / 'data')
  shard = os.path.join(folder, 'val-00001-of-00004.tfrecord')
  record_sets.flip(shard, record_sets.spans(shard)[1][0] + 40)
  skips = {'on_bad_record': 'skip'}
  evaluate(folder, tmp_path / 'all.json', **skips)
  paths = [tmp_path / '{}.json'.format(number) for number in range(2)]
  for number, path in enumerate(paths):
    evaluate(folder, path, number, 2, **skips)
  merge(tmp_path, *paths)
  found = numbers_in(tmp_path / 'sum.json')
  assert found == numbers_in(tmp_path / 'all.json')
  assert (found['images'], found['skipped']) == (IMAGES - 1, 1)


def test_a_part_says_which_it_is(data, tmp_path, capsys):
  _, report = evaluate(data, tmp_path / '1.json', 1, 3)
  report_lib.show(report, None)
  printed = capsys.readouterr().out
  assert '\nimages           3 of val, part 1 of 3, ' in printed
  assert '"part"' not in printed
  with open(str(tmp_path / '1.json')) as content:
    again = report_lib.from_json(json.load(content))
  assert again.part[:-1] == (1, 3, 2, IMAGES)
  assert again.part.evaluation == json.loads(
      json.dumps(report.part.evaluation))


def test_a_part_reads_no_shard_of_others(data):
  batches = dataset.batches(split_options(data), CROP, part=parts.Part(3, 4))
  assert [os.path.basename(path) for path in batches._read.paths] == [
      'val-00003-of-00004.tfrecord']
  assert (batches.first_image, batches.num_images) == (6, 2)
  assert batches.total_images == IMAGES


def test_parts_without_an_image_are_refused(data):
  with pytest.raises(InputError, match=(
      'num_shards=5: expected at most 4, as 8 images are in 4 batches of '
      'batch_size=2')):
    dataset.batches(split_options(data, 2), CROP, part=parts.Part(0, 5))


# --- What is not the sum of anything ---------------------------------------


@pytest.fixture(scope='module')
def reports(data, tmp_path_factory):
  """Function from part, parts and what else to a report's path."""
  folder = tmp_path_factory.mktemp('reports')

  def path_of(number=None, of=1, name=None, data=data, **more):
    path = folder / (name or '{}-{}.json'.format(number, of))
    if not path.exists():
      evaluate(data, path, number, of, **more)
    return path

  return path_of


def refusal(tmp_path, *paths):
  with pytest.raises(InputError) as refused:
    merge(tmp_path, *paths)
  assert not (tmp_path / 'sum.json').exists()
  message = str(refused.value)
  assert '\n' not in message
  for path in paths:
    message = message.replace(str(path), path.name)
  return message


def test_missing_and_repeated_parts_are_named(tmp_path, reports):
  one, two = reports(1, 4), reports(2, 4)
  assert refusal(tmp_path, two, one) == (
      'parts 0, 3 of 4 missing (given: 1-4.json, 2-4.json)')
  copy = tmp_path / 'copy.json'
  copy.write_bytes(one.read_bytes())
  assert refusal(tmp_path, one, two, copy) == (
      '1-4.json and copy.json are both part 1 of 4; expected each part once')


@pytest.mark.parametrize('more, expected', [
    ({'of': 2}, 'number of parts 3, and 2'),
    ({'model': 'b'}, 'checkpoint a, and b'),
    ({'batch_size': 2}, 'data batch_size 1, and 2'),
    ({'on_bad_record': 'skip'}, 'data on_bad_record fail, and skip'),
])
def test_parts_of_another_evaluation_are_refused(
    tmp_path, reports, more, expected):
  name = '-'.join(map(str, more.items())) + '.json'
  other = reports(name=name, **dict({'number': 1, 'of': 3}, **more))
  assert refusal(tmp_path, reports(0, 3), other, reports(2, 3)) in (
      '{} and {} are not of one evaluation: {}'.format(one, two, text)
      for one, two, text in (('0-3.json', name, expected),))


def test_parts_of_other_records_are_refused(tmp_path, reports):
  for shift, shards in ((9, SHARDS), (0, (2, 2, 2, 2))):
    other = reports(1, 2, '{}.json'.format(shift), write_records(
        tmp_path / str(shift), shards, shift))
    assert 'not of one evaluation: records ' in refusal(
        tmp_path, reports(0, 2), other)


def test_a_copy_of_the_records_is_the_same_data_set(tmp_path, data, reports):
  folder = tmp_path / 'copy'
  folder.mkdir()
  for name in os.listdir(data):
    with open(os.path.join(data, name), 'rb') as source:
      (folder / name).write_bytes(source.read())
  merge(tmp_path, reports(0, 2), reports(1, 2, 'copy.json', str(folder)))


def test_what_is_no_report_of_a_part_is_refused(tmp_path, reports):
  assert refusal(tmp_path, reports(name='all.json')).startswith(
      'all.json: a report of all 8 images, not of a part; expected ')
  for content in ('{', '{"part": {}}', '[]'):
    path = tmp_path / 'no.json'
    path.write_text(content)
    assert 'no.json: ' in refusal(tmp_path, path)
  with pytest.raises(InputError, match='no report given'):
    merge(tmp_path)


@pytest.mark.parametrize('change', [
    {'number': 4}, {'number': -1}, {'first': 7}, {'of': None}, {'of': True},
    {'evaluation': []}, {'more': 1}])
def test_a_part_that_cannot_be_is_no_report(tmp_path, reports, change):
  content = json.loads(reports(2, 4).read_text())
  content['part'].update(change)
  path = tmp_path / 'changed.json'
  path.write_text(json.dumps(content))
  assert 'changed.json: expected the report of a part' in refusal(
      tmp_path, path)


@pytest.mark.parametrize('moved, first, expected', [
    (1, 3, '0-2.json and moved.json: images 3 to 3 are in both'),
    (0, 1, 'the beginning and moved.json: images 0 to 0 are in neither')])
def test_images_in_two_parts_or_in_none_are_refused(
    tmp_path, reports, moved, first, expected):
  content = json.loads(reports(moved, 2).read_text())
  content['part']['first'] = first
  path = tmp_path / 'moved.json'
  path.write_text(json.dumps(content))
  assert refusal(tmp_path, reports(1 - moved, 2), path) == expected


# --- Options and script ----------------------------------------------------


@pytest.mark.parametrize('given, expected', [
    ({'num_shards': 4}, 'num_shards=4: which of them is this run? Add '
                        'shard_index=0'),
    ({'shard_index': 1}, 'shard_index=1: expected less than num_shards=1'),
    ({'num_shards': 2, 'shard_index': 2},
     'shard_index=2: expected less than num_shards=2'),
    ({'num_shards': 2, 'shard_index': 1},
     'num_shards=2 without report_json: the reports of the parts are what '
     'scripts/merge_reports.py adds up'),
])
def test_options_that_say_no_part_are_refused(given, expected):
  with pytest.raises(InputError) as refused:
    options_lib.EvalOptions(**given)
  assert str(refused.value) == expected


def test_one_part_of_one_is_the_whole():
  assert options_lib.EvalOptions(num_shards=1, shard_index=0).part is None


def test_a_folder_that_is_watched_has_no_parts(tmp_path, data):
  for times in (0, 2):
    with pytest.raises(InputError, match=(
        'num_shards=2: parts are of one evaluation; name a checkpoint with '
        'checkpoint_dir, or add max_evaluations=1')):
      evaluation.evaluate_checkpoints(
          watch_options=options_lib.CheckpointEvalOptions(
              checkpoint_dir=str(tmp_path), max_evaluations=times),
          model_options=options_lib.ModelOptions(crop_size=(33, 33)),
          dataset_options=split_options(data), preprocess_options=CROP,
          options=options_lib.EvalOptions(
              report_json=str(tmp_path / 'r.json'), num_shards=2,
              shard_index=0))


def test_the_script_takes_words(tmp_path, reports):
  paths = [str(reports(number, 2)) for number in (1, 0)]
  out = str(tmp_path / 'sum.json')
  done = scripts.run('scripts/merge_reports.py', paths[0],
                     '--report_json=' + out, paths[1])
  assert done.stdout.splitlines()[-1].startswith('RESULT {')
  assert numbers_in(out)['images'] == IMAGES
  assert 'part 1 of 2 missing' in scripts.refusal(
      'scripts/merge_reports.py', paths[1], '--report_json=' + out)
