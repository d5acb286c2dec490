"""Tests the whole chain with unusual names of files and folders."""
import json
import os

import numpy as np
from PIL import Image
import pytest

from deeplab import constants
from deeplab.cli import runner
from deeplab.cli import script_flags
from deeplab.config import fields
from deeplab.config import options as options_lib
from deeplab.data import builder
from deeplab.data import dataset
from deeplab.data import png_folder
from deeplab.data import png_folder_writer
from deeplab.errors import InputError
from deeplab.evaluation import evaluate as evaluate_lib
from deeplab.evaluation import report
from deeplab.evaluation import tflite as lite_evaluation
from deeplab.export import tflite_conversion
from tests import flag_groups
from tests import names
from tests import scripts
from tests.test_security import make_graph

pytestmark = pytest.mark.slow

SIDE = 8
CROP = options_lib.PreprocessOptions(crop_size=(SIDE, SIDE))
NODES = {'input_node': 'in', 'output_node': 'out'}


def save_pair(folder, name):
  pixels = np.resize(np.arange(256, dtype=np.uint8), [SIDE, SIDE, 3])
  for part, array in (('images', pixels), ('labels', pixels[..., 0] % 32)):
    os.makedirs(os.path.join(folder, part), exist_ok=True)
    Image.fromarray(array).save(os.path.join(folder, part, name), 'PNG')


@pytest.mark.tf1
@pytest.mark.modern
@pytest.mark.parametrize('name', names.ANY, ids=['utf-8', 'no encoding'])
def test_the_chain_accepts_any_name(tmp_path, monkeypatch, name):
  # Relative paths, so that a leading dash comes first.
  monkeypatch.chdir(tmp_path)
  folder = os.path.join(name, name)
  save_pair(folder, name + '.png')
  save_pair(folder, 'other.png')
  builder.build([options_lib.BuildOptions(
      split='val', image_folder=os.path.join(folder, 'images'),
      label_folder=os.path.join(folder, 'labels'), output_dir=folder)])

  data = options_lib.DatasetOptions(dataset_dir=folder, split='val')
  found = [batch['filename'][0] for batch in dataset.Batches(data, CROP)]
  assert sorted(found) == sorted([name + '.png', 'other.png'])
  wanted = [found[1]]
  if '\n' not in name:  # a line break ends a name in a list
    path = os.path.join(folder, 'list')
    with open(path, 'wb') as content:
      content.write(constants.bytes_of_name(name + '.png\n'))
    wanted = png_folder_writer.read_image_list(path)
    assert wanted == [name + '.png']

  prepared = os.path.join(folder, 'prepared')
  png_folder_writer.write(
      dataset.Batches(data, CROP, names=wanted), names=wanted, split='val',
      preprocess_options=CROP, options=options_lib.PreprocessedOptions(
          output_dir=prepared))
  assert [image['source'] for image in png_folder.read_manifest(
      prepared)['images']] == wanted

  graph = os.path.join(folder, 'x.pb')
  with open(graph, 'wb') as content:
    content.write(make_graph().SerializeToString())
  assert report.read(evaluate(folder, graph, data)).images == 2

  model = os.path.join(folder, 'x.tflite')
  tflite_conversion.convert(options_lib.ConversionOptions(
      graph_def=graph, out_tflite=model, mode='float', **NODES))
  result = lite_evaluation.evaluate(
      options_lib.TfliteEvalOptions(
          net_file=model, test_dir=prepared, num_workers=1),
      options_lib.EvalOptions(report_json=os.path.join(folder, 'x.json')))
  assert result.images == 1
  with open(os.path.join(folder, 'x.json')) as content:
    assert json.load(content)['path'] == model


def evaluate(folder, graph, data):
  """Evaluates a graph; returns the report's path."""
  path = os.path.join(folder, 'pb.json')
  evaluate_lib.evaluate_frozen_graph(
      graph_options=options_lib.GraphEvalOptions(path=graph, **NODES),
      dataset_options=data, preprocess_options=CROP,
      options=options_lib.EvalOptions(
          report_json=path, eval_logdir=os.path.join(folder, 'events'),
          vis_dir=os.path.join(folder, 'pictures')))
  assert os.listdir(os.path.join(folder, 'pictures'))
  return path


def test_names_that_the_locale_cannot_encode_are_kept(tmp_path):
  """All messages about them are printed too."""
  save_pair(str(tmp_path), 'é\n.png')
  save_pair(str(tmp_path), '木.png')
  (tmp_path / 'labels' / '木.png').write_bytes(b'')
  arguments = [
      '--val_image_folder={}/images'.format(tmp_path),
      '--val_image_label_folder={}/labels'.format(tmp_path),
      '--output_dir={}/ü'.format(tmp_path)]
  line = scripts.refusal('build_ade20k_data.py', *arguments,
                         env=names.ASCII_ENVIRONMENT)
  assert '\\udce6\\udc9c\\udca8.png: empty file' in line
  scripts.run('build_ade20k_data.py', '--skip_bad', *arguments,
              env=names.ASCII_ENVIRONMENT)
  batch, = dataset.Batches(options_lib.DatasetOptions(
      dataset_dir=str(tmp_path / 'ü'), split='val'), CROP)
  assert batch['filename'] == ['é\n.png']


def folders_of_checkpoints():
  for script in sorted(script_flags.SCRIPTS):
    values = flag_groups.parsed(script)
    for name in values:
      for cls, field in getattr(values[name], 'sets', ()):
        if fields.definitions(cls)[field].in_utf8:
          yield script, name


def test_names_of_checkpoint_folders_must_be_utf8():
  """TensorFlow accepts only such names."""
  found = sorted(folders_of_checkpoints())
  assert found == [
      ('eval.py', 'checkpoint_dir'), ('export_model.py', 'checkpoint_path'),
      ('scripts/rebuild_checkpoint.py', 'output_dir'),
      ('train.py', 'tf_initial_checkpoint'), ('train.py', 'train_logdir')]
  for script, flag in found:
    values = flag_groups.parsed(
        script, *flag_groups.REQUIRED[script] + [
            '--{}={}'.format(flag, names.ANY[1])])
    with pytest.raises(InputError) as caught:
      script_flags.SCRIPTS[script].arguments(values)
    assert runner.in_flags(caught.value, values) == (
        '--{}=x\udcff: expected a name in UTF-8, in a locale that has it (such '
        'as C.UTF-8)'.format(flag))


def test_a_zero_byte_in_a_name_is_refused():
  with pytest.raises(InputError, match='dataset_dir=a\0b: expected text'):
    options_lib.DatasetOptions(dataset_dir='a\0b', split='val')
