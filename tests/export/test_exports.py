"""Tests SavedModels and ONNX files: export, loading, evaluation, refusals."""
import json
import os
import re
import subprocess

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import saved_model_pb2

from deeplab import constants
from deeplab.config import label_map
from deeplab.config import options
from deeplab.data import pictures
from deeplab.data import records
from deeplab.errors import InputError
from deeplab.evaluation import evaluate as evaluate_lib
from deeplab.evaluation import model_card
from deeplab.evaluation import report as report_lib
from deeplab.export import freeze
from deeplab.export import tflite_conversion
from deeplab.models import interface
from deeplab.models import metadata
from deeplab.models import onnx_file
from deeplab.models import open_model
from deeplab.models import predictors
from deeplab.models import saved_model_file
from deeplab.storage import files
from deeplab.system import environment
from tests import readme
from tests import record_sets
from tests import scripts
from tests.export import test_export

TF1, MODERN = pytest.mark.tf1, pytest.mark.modern
CROP = test_export.CROP
# A narrow network, which converts quickly.
MODEL = test_export.MODEL._replace(
    depth_multiplier=0.25, aspp_convs_filters=16, decoder_filters=16)
deep = test_export.deep
make_checkpoint = test_export.make_checkpoint
images = test_export.images


@pytest.fixture(scope='module')
def checkpoint(shallow_module, tmp_path_factory):
  return make_checkpoint(tmp_path_factory.mktemp('checkpoint'), MODEL)


def run_export(checkpoint, path, *formats, model=MODEL, **changes):
  return test_export.run_export(
      checkpoint, path, model, formats=formats, **changes)


FORMATS = (options.FROZEN_GRAPH, options.SAVED_MODEL, options.ONNX) if (
    environment.installed_version('tf2onnx')) else (
        options.FROZEN_GRAPH, options.SAVED_MODEL)


@pytest.fixture(scope='module')
def exported(checkpoint, tmp_path_factory):
  """The ExportResult with all formats that this environment can write."""
  return run_export(
      checkpoint, tmp_path_factory.mktemp('exported'), *FORMATS)


def labels_of(path, batch):
  with open_model.open_predictor(open_model.find(path)) as predictor:
    return predictor.predict(batch)


def names_in(folder):
  return sorted(os.listdir(str(folder)))


# --- SavedModel ------------------------------------------------------------


@TF1
@MODERN
@pytest.mark.slow
def test_a_saved_model_has_the_frozen_graph_and_a_signature(exported):
  graph, folder = exported.paths[:2]
  assert (exported.path, folder) == (
      graph, graph.replace('.pb', '_saved_model'))
  assert names_in(folder) == ['saved_model.pb']
  found = saved_model_file.read(folder)
  with open(graph, 'rb') as content:
    assert found.graph_def == tf.GraphDef.FromString(content.read())
  batch = images()
  labels = labels_of(folder, batch)
  np.testing.assert_array_equal(labels, labels_of(graph, batch))
  assert len(np.unique(labels)) > 3
  # The file in the folder can be given too.
  assert open_model.find(os.path.join(folder, 'saved_model.pb')) == (
      open_model.ModelFile(interface.SAVED_MODEL, folder))


@TF1
@MODERN
@pytest.mark.slow
def test_tensorflow_loads_a_saved_model(exported):
  graph, folder = exported.paths[:2]
  batch = images(count=1)
  with tf.Session(graph=tf.Graph()) as session:
    loaded = tf.saved_model.loader.load(session, ['serve'], folder)
    signature = loaded.signature_def['serving_default']
    assert list(signature.inputs) == ['images']
    assert list(signature.outputs) == ['labels']
    labels = session.run(
        signature.outputs['labels'].name,
        {signature.inputs['images'].name: batch / 127.5 - 1})
    assert signature.method_name == 'tensorflow/serving/predict'
    assert [side.size for side in signature.inputs[
        'images'].tensor_shape.dim] == [1, 33, 33, 3]
  assert labels.dtype == np.int32
  assert (labels == labels_of(graph, batch)).mean() > 0.999


def content_in(path):
  with open(os.path.join(path, 'saved_model.pb') if os.path.isdir(path)
            else path, 'rb') as content:
    return content.read()


@TF1
@MODERN
@pytest.mark.slow
def test_chosen_formats_replace_older_files(
    checkpoint, exported, tmp_path, monkeypatch):
  monkeypatch.setattr(onnx_file, 'check_converter', lambda given: None)
  monkeypatch.setattr(onnx_file, 'convert', lambda *_, **__: b'onnx')
  folder = tmp_path / 'x_saved_model'
  (folder / 'variables').mkdir(parents=True)
  (folder / 'saved_model.pb').write_bytes(b'old')
  result = run_export(checkpoint, tmp_path / 'x.pb', options.SAVED_MODEL,
                      options.SAVED_MODEL, options.ONNX)
  assert result.paths == (str(folder), str(tmp_path / 'x.onnx'))
  assert names_in(folder) == ['saved_model.pb']
  assert names_in(tmp_path) == ['x.json', 'x.onnx', 'x_saved_model']
  with open(str(tmp_path / 'x.json')) as text:
    described = json.load(text)
  content = content_in(str(folder))
  assert described['sha1'] == {
      'x_saved_model/saved_model.pb': metadata.sha1(content),
      'x.onnx': metadata.sha1(b'onnx')}
  for path in (str(folder) + os.sep,) + exported.paths:
    assert metadata.label_map_beside(path) == label_map.ADE20K
  assert content == content_in(exported.paths[1])


def test_a_folder_is_replaced_atomically(tmp_path, monkeypatch):
  def write(text):
    files.write_all({str(tmp_path / 'a'): {'x': text, 'y': text},
                     str(tmp_path / 'b'): text})

  write_one, replace = files._write, os.replace

  def fail_at_b(path, content):
    assert not path.endswith('b')
    write_one(path, content)

  def fail_at_a(source, target):
    assert target != str(tmp_path / 'a') or source.endswith('.former')
    replace(source, target)

  write(b'old')
  (tmp_path / 'a' / 'z').write_bytes(b'of the caller')
  for module, name, broken in (
      (files, '_write', fail_at_b), (os, 'replace', fail_at_a)):
    with monkeypatch.context() as patch:
      patch.setattr(module, name, broken)
      with pytest.raises(AssertionError):
        write(b'new')
    assert names_in(tmp_path) == ['a', 'b']
    assert (tmp_path / 'b').read_bytes() == b'old'
    assert names_in(tmp_path / 'a') == ['x', 'y', 'z']
  write(b'new')
  assert names_in(tmp_path) == ['a', 'b']
  assert names_in(tmp_path / 'a') == ['x', 'y']
  assert (tmp_path / 'a' / 'x').read_bytes() == b'new'


@TF1
@MODERN
def test_foreign_files_are_not_replaced(checkpoint, tmp_path, monkeypatch):
  monkeypatch.setattr(freeze, '_build', None)  # not called
  folder = tmp_path / 'freeze_saved_model'
  folder.write_text('a file')
  with pytest.raises(InputError, match='freeze_saved_model: is a file; expect'):
    run_export(checkpoint, tmp_path, options.SAVED_MODEL)
  folder.unlink()
  folder.mkdir()
  (folder / 'thesis.tex').write_text('years')
  with pytest.raises(InputError, match='freeze_saved_model holds thesis.tex, '
                     'which is no part of a SavedModel'):
    run_export(checkpoint, tmp_path, options.SAVED_MODEL)
  assert names_in(tmp_path) == ['freeze_saved_model']
  assert (folder / 'thesis.tex').exists()


@TF1
def test_bad_formats_are_refused(tmp_path):
  line = scripts.refusal(
      'export_model.py', '--checkpoint_path=x', '--export_path=y',
      '--train_crop_size=33,33', '--format=onnx,savedmodel')
  assert line.endswith('--format=onnx,savedmodel: expected a list, each '
                       'frozen_graph, saved_model or onnx')


# --- Foreign SavedModels ---------------------------------------------------


def small_graph(add=None):
  with tf.Graph().as_default() as graph:
    net = tf.placeholder(tf.float32, (1,) + CROP + (3,), 'in')
    net = add(net) if add else net
    tf.argmax(net, 3, output_type=tf.int32, name='out')
  return graph.as_graph_def()


def saved(folder, change=None):
  """Writes a SavedModel of a small graph after a change."""
  content = saved_model_pb2.SavedModel.FromString(
      saved_model_file.content_of(small_graph(), 'in', 'out'))
  if change:
    change(content, content.meta_graphs[0])
  (folder / 'saved_model.pb').write_bytes(content.SerializeToString())
  return str(folder)


WRITER = small_graph(lambda net: tf.raw_ops.WriteFile(
    filename='/tmp/harm', contents='harm', name='payload') and net)


def signature(meta_graph):
  return meta_graph.signature_def['serving_default']


def rename_output(name):
  return lambda content, meta_graph: setattr(
      signature(meta_graph).outputs['labels'], 'name', name)


@pytest.mark.parametrize('change, words', [
    (lambda content, meta_graph: meta_graph.graph_def.CopyFrom(WRITER),
     'node payload is the operator WriteFile, which no network'),
    (lambda content, meta_graph: meta_graph.graph_def.library.function.add(),
     'holds functions; a frozen graph has none'),
    (lambda content, meta_graph: content.meta_graphs.add().CopyFrom(
        meta_graph), '2 graphs to serve; expected 1'),
    (lambda content, meta_graph: meta_graph.meta_info_def.ClearField('tags'),
     '0 graphs to serve; expected 1'),
    (lambda content, meta_graph: meta_graph.signature_def.clear(),
     'signature serving_default has the inputs none and outputs none'),
    (lambda content, meta_graph: signature(meta_graph).inputs['more'].CopyFrom(
        signature(meta_graph).inputs['images']), "the inputs 'in:0', 'in:0' "),
    (lambda content, meta_graph: signature(meta_graph).outputs.clear(),
     'outputs none; expected one of each'),
    (rename_output('nowhere:0'), "and outputs 'nowhere:0'; expected one of"),
    (rename_output('out:1'), "and outputs 'out:1'; expected one of each"),
    (rename_output('out'), "and outputs 'out'; expected one of each"),
    (lambda content, meta_graph: meta_graph.graph_def.Clear(), 'no nodes'),
])
def test_unsafe_saved_models_are_refused(tmp_path, change, words):
  folder = saved(tmp_path, change)
  with pytest.raises(InputError, match=words) as caught:
    predictors.open_saved_model(folder)
  assert str(caught.value).startswith(folder + '/saved_model.pb: ')


def test_a_saved_model_may_have_more_tags(tmp_path):
  folder = saved(
      tmp_path, lambda content, graph: graph.meta_info_def.tags.append('gpu'))
  assert saved_model_file.read(folder).output_node == 'out'


def test_a_saved_model_with_variables_is_refused(tmp_path):
  folder = str(tmp_path / 'out')
  with tf.Graph().as_default(), tf.Session() as session:
    net = tf.placeholder(tf.float32, (1,) + CROP + (3,), 'in')
    labels = tf.argmax(net * tf.get_variable('scale', initializer=1.0), 3)
    session.run(tf.global_variables_initializer())
    tf.saved_model.simple_save(
        session, folder, {'images': net}, {'labels': labels})
  with pytest.raises(InputError, match='is the operator .*Var'):
    saved_model_file.read(folder)


def test_files_that_are_not_saved_models_are_refused(tmp_path):
  # TensorFlow 1.15's protobuf accepts some text as an empty message.
  (tmp_path / 'saved_model.pb').write_bytes(b'text of no use')
  with pytest.raises(InputError, match='not a SavedModel|0 graphs to serve'):
    saved_model_file.read(str(tmp_path))
  with pytest.raises(InputError, match='no such file; expected a SavedModel'):
    saved_model_file.read(str(tmp_path / 'none'))


# --- Evaluation ------------------------------------------------------------


def write_data(folder):
  folder.mkdir(exist_ok=True)
  record_sets.write_shards(output_dir=str(folder), split='val', shards=[[
      records.make_example(
          image_bytes=record_sets.picture(number, CROP),
          label_bytes=record_sets.label(3 + number, CROP),
          filename='{}.jpg'.format(number), image_format='jpeg',
          label_format='png', height=CROP[0], width=CROP[1])
      for number in (1, 2)]])
  return str(folder)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return write_data(tmp_path_factory.mktemp('data'))


def evaluate(path, data, **nodes):
  return evaluate_lib.evaluate_frozen_graph(
      graph_options=options.GraphEvalOptions(path=path, **nodes),
      dataset_options=options.DatasetOptions(dataset_dir=data, split='val'),
      preprocess_options=options.PreprocessOptions(crop_size=CROP),
      options=options.EvalOptions())


@TF1
@MODERN
@pytest.mark.slow
def test_all_formats_give_the_same_report(exported, data):
  results = [evaluate(path, data) for path in exported.paths]
  kinds = [interface.FROZEN_GRAPH, interface.SAVED_MODEL, interface.ONNX]
  assert [result.kind for result in results] == kinds[:len(FORMATS)]
  for result in results[1:]:
    np.testing.assert_array_equal(result.matrix, results[0].matrix)
    assert result.geometry == results[0].geometry
  assert [result.runtime.split()[0] for result in results] == [
      'TensorFlow', 'TensorFlow', 'onnxruntime'][:len(results)]
  for path in exported.paths:
    with pytest.raises(InputError, match='{} takes images of 33x33, but '
                       'crop_size=65,65'.format(path)):
      open_model.open_predictor(open_model.find(path), crop_size=(65, 65))


def test_a_saved_model_needs_no_nodes(exported, data):
  with pytest.raises(InputError, match='input_node=ImageTensor: .*_saved_model '
                     'names its input and output itself; drop it'):
    evaluate(exported.paths[1], data, input_node='ImageTensor')


# --- ONNX ------------------------------------------------------------------


@TF1
def test_a_missing_onnx_package_is_named(
    checkpoint, data, tmp_path, monkeypatch):
  monkeypatch.setattr(freeze, '_build', None)  # not called
  with pytest.raises(InputError) as caught:
    run_export(checkpoint, tmp_path, options.FROZEN_GRAPH, options.ONNX)
  assert str(caught.value) == (
      'formats=onnx: needs onnx and tf2onnx; use .venvs/modern/bin/python, or, '
      'with Python 3.10 or newer, python -m pip install onnx==1.23.2 '
      'tf2onnx==1.17.0')
  (tmp_path / 'x.onnx').write_bytes(b'\x08\x08\x12')
  with pytest.raises(InputError, match='x.onnx: needs onnx and onnxruntime; '):
    evaluate(str(tmp_path / 'x.onnx'), data)
  assert names_in(tmp_path) == ['x.onnx']


@TF1
def test_named_packages_are_those_of_the_environment():
  with open(os.path.join(
      scripts.REPOSITORY, 'requirements-modern.txt')) as pinned:
    lines = pinned.read().splitlines()
  for package in (onnx_file._FORMAT, onnx_file._CONVERTER, onnx_file._RUNTIME):
    # For an older Python, one package has another version too.
    assert '{}=={}'.format(*package) in [line.split(';')[0] for line in lines]


@MODERN
def test_an_onnx_file_predicts_like_the_graph_and_has_metadata(exported):
  import onnx
  path = exported.paths[2]
  batch = images(count=3)
  labels = labels_of(path, batch)
  assert labels.dtype == np.int32 and len(np.unique(labels)) > 3
  np.testing.assert_array_equal(labels, labels_of(exported.path, batch))
  model = onnx.load(path)
  assert [(one.name, one.type.tensor_type.elem_type,
           [side.dim_value for side in one.type.tensor_type.shape.dim])
          for one in list(model.graph.input) + list(model.graph.output)] == [
              ('images', onnx.TensorProto.FLOAT, [1, 33, 33, 3]),
              ('labels', onnx.TensorProto.INT32, [1, 33, 33])]
  assert [(one.domain, one.version) for one in model.opset_import] == [
      ('', 17)]
  said = {one.key: one.value for one in model.metadata_props}
  assert said['input_range'] == '[-1, 1]'
  assert json.loads(said['classes']) == list(label_map.ADE20K.names)
  assert open_model.find(path).kind == interface.ONNX


@MODERN
@pytest.mark.extended
@pytest.mark.parametrize('changes, exports', [
    ({'output_stride': 8, 'atrous_rates': (2,), 'use_bounded_activation': True},
     {'add_flipped_images': True}),
    ({'decoder_use_sum_merge': True,
      'prediction_with_upsampled_logits': False},
     {'inference_scales': (1.0, 2.0)})])
def test_other_network_structures_can_be_exported_to_onnx(
    shallow_module, tmp_path, changes, exports):
  model = MODEL._replace(**changes)
  graph, path = run_export(
      make_checkpoint(tmp_path, model), tmp_path, options.FROZEN_GRAPH,
      options.ONNX, model=model, **exports).paths
  batch = images(count=1)
  assert (labels_of(graph, batch) == labels_of(path, batch)).mean() > 0.999


@MODERN
@pytest.mark.extended
@pytest.mark.parametrize('name, delay, least', [
    # ONNX rounds to 8 bits differently; see docs/exports.md.
    ('checkpoint_float', -1, 1.0), ('checkpoint_qat', 0, 0.95)])
def test_onnx_of_published_checkpoints_predicts_like_the_graph(
    deep, reference_dir, ade20k_sample_dir, tmp_path, name, delay, least):
  model = options.ModelOptions(
      crop_size=(512, 512), decoder_output_stride=(4,),
      quantize_delay_step=delay)
  graph, path = run_export(
      os.path.join(reference_dir, name), tmp_path, options.FROZEN_GRAPH,
      options.ONNX, model=model).paths
  folder = os.path.join(ade20k_sample_dir, 'images', 'validation')
  batch = np.stack([
      np.asarray(Image.open(os.path.join(folder, image)).convert('RGB').resize(
          (512, 512)), np.float32) for image in sorted(os.listdir(folder))])
  assert len(batch) >= 2
  assert (labels_of(graph, batch) == labels_of(path, batch)).mean() >= least


@TF1
@pytest.mark.extended
def test_every_tensorflow_loads_a_saved_model(exported):
  """Loads a SavedModel of tf1 with tf.saved_model.load, without this suite."""
  snippet = """
import sys
import numpy as np
import tensorflow as tf
with open(sys.argv[1], 'rb') as content:
  graph_def = tf.compat.v1.GraphDef.FromString(content.read())
images = np.random.RandomState(0).uniform(-1, 1, (1, 33, 33, 3)).astype('f')
with tf.compat.v1.Session(graph=tf.Graph()) as session:
  tf.compat.v1.import_graph_def(graph_def, name='')
  expected = session.run('ArgMax:0', {'ImageTensor:0': images})
model = tf.saved_model.load(sys.argv[2])
labels = model.signatures['serving_default'](
    images=tf.constant(images))['labels'].numpy()
assert labels.dtype == np.int32 and (labels == expected).all()
print('same', labels.shape)
"""
  for name in ('tf2', 'modern'):
    done = subprocess.run(
        [scripts.python_of(name), '-c', snippet] + list(exported.paths[:2]),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert done.stdout == 'same (1, 33, 33)\n', done.stderr


@MODERN
@pytest.mark.extended
def test_commands_of_exports_md_run(shallow_module, tmp_path):
  write_data(tmp_path / 'data')
  checkpoint = make_checkpoint(tmp_path, options.ModelOptions(crop_size=CROP))
  shell = readme.Shell(tmp_path, is_shallow=True)
  changes = (('512,512', '33,33'),)
  # This checkpoint has no decoder.
  without_decoder = changes + ((' --decoder_output_stride=4', ''),)
  shell.run_documented(
      'exports.md', 'python export_model.py \\\n  '
      '--checkpoint_path=${CKPT_DIR} --export_path=exported',
      changes=without_decoder, CKPT_DIR=os.path.dirname(checkpoint))
  shell.run_documented(
      'exports.md', 'python export_model.py \\\n  '
      '--checkpoint_path=${CKPT_DIR} --export_path=scales',
      changes=without_decoder, CKPT_DIR=os.path.dirname(checkpoint))
  changes += (('=512', '=33'),)
  kinds = [json.loads(output[output.index('RESULT ') + 7:])['kind']
           for output in (
               shell.run_documented(
                   'exports.md', 'python eval_pb.py \\\n  '
                   '--pb=exported/freeze_saved_model',
                   changes=changes, DATA_DIR='data'),
               shell.run_documented(
                   'exports.md', 'python eval_pb.py \\\n  '
                   '--pb=exported/freeze.onnx',
                   changes=changes, DATA_DIR='data'),
               shell.run_documented(
                   'exports.md', 'python eval_pb.py \\\n  '
                   '--pb=scales/freeze.pb', changes=changes, DATA_DIR='data'))]
  assert kinds == [
      interface.SAVED_MODEL, interface.ONNX, interface.FROZEN_GRAPH]
  shell.run_documented(
      'exports.md', 'python scripts/convert_tflite.py \\\n  '
      '--graph_def=exported/freeze.pb --out_tflite=model.tflite')
  shell.run_documented(
      'exports.md', 'python scripts/convert_tflite.py \\\n  '
      '--graph_def=exported/freeze.pb --out_tflite=logits.tflite')


def save_photo():
  random = np.random.RandomState(3)
  Image.fromarray(random.randint(0, 256, [9, 7, 3], np.uint8)).resize(
      (70, 93)).save('photo.jpg')


@MODERN
@pytest.mark.slow
def test_a_picture_becomes_the_documented_names(
    checkpoint, tmp_path, monkeypatch):
  prepare, *examples = [block.content for block in readme.fenced(
      readme.read('docs', 'exports.md')) if block.language == 'python']
  assert len(examples) == 3
  (tmp_path / 'picture.py').write_text(prepare)
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(str(tmp_path))
  save_photo()
  run_export(checkpoint, tmp_path / 'exported', *FORMATS)
  tflite_conversion.convert(options.ConversionOptions(
      graph_def='exported/freeze.pb', out_tflite='model.tflite', mode='float'))
  with pictures.Fitter(CROP) as fitter:
    fitted = fitter.fit(pictures.read('photo.jpg'))
  pixels = fitted.image.astype(np.uint8)  # as gen_preprocessed_data.py
  height, width = fitted.size
  for example, path in zip(examples, (
      'model.tflite', 'exported/freeze.onnx', 'exported/freeze_saved_model')):
    found = {}
    exec(example.replace('512', str(CROP[0])), found)
    np.testing.assert_array_equal(found['picture'].read(
        'photo.jpg', CROP[0])[0], pixels)
    labels = labels_of(path, pixels[np.newaxis])[0, :height, :width]
    np.testing.assert_array_equal(found['labels'], labels)
    assert len(np.unique(labels)) > 2
    if 'names' in found:
      assert found['names'] == list(constants.CLASS_NAMES)


@TF1
@MODERN
def test_the_page_on_python_runs(exported, tmp_path, monkeypatch, capsys):
  label, evaluate = [block.content for block in readme.fenced(
      readme.read('docs', 'python.md')) if block.language == 'python']
  monkeypatch.chdir(tmp_path)
  save_photo()
  os.symlink(os.path.dirname(exported.path), 'exported')
  write_data(tmp_path / 'records')
  found = {}
  exec(label, found)
  assert found['labels'].shape == (93, 70)
  shares = re.findall(r'([\d.]+)% (\w+)', capsys.readouterr().out)
  assert sum(float(share) for share, _ in shares) == pytest.approx(100, abs=0.1)
  assert {name for _, name in shares} == {
      constants.CLASS_NAMES[index] for index in np.unique(found['labels'])}
  exec(evaluate.replace('512', '33'), found)
  read = report_lib.read('report.json')
  assert read.scores.miou == found['report'].scores.miou
  rows = model_card.rows(read)
  assert str(rows) in capsys.readouterr().out
  assert rows['SHA-256'] == files.sha256_of('exported/freeze.pb')
  assert rows['precision'] == interface.FLOAT32


# --- Foreign ONNX files ----------------------------------------------------


def onnx_of(change):
  """Returns the content of a small ONNX file after a change."""
  import onnx
  helper, types = onnx.helper, onnx.TensorProto
  weights = helper.make_tensor('weights', types.FLOAT, [1, 1, 1, 1], [2.0])
  model = helper.make_model(helper.make_graph(
      [helper.make_node('Mul', ['images', 'weights'], ['scaled'], 'scale'),
       helper.make_node('ArgMax', ['scaled'], ['labels'], 'argmax', axis=3,
                        keepdims=0)], 'g',
      [helper.make_tensor_value_info(
          'images', types.FLOAT, (1,) + CROP + (3,))],
      [helper.make_tensor_value_info('labels', types.INT64, (1,) + CROP)],
      [weights]), opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
  change(onnx, model)
  return model.SerializeToString()


def external(onnx, model):
  weights = model.graph.initializer[0]
  weights.ClearField('float_data')
  weights.data_location = onnx.TensorProto.EXTERNAL
  entry = weights.external_data.add()
  entry.key, entry.value = 'location', '/etc/passwd'


def operator(name, domain=''):
  def change(onnx, model):
    model.graph.node[0].op_type, model.graph.node[0].domain = name, domain
  return change


def subgraph(onnx, model):
  attribute = model.graph.node[0].attribute.add()
  attribute.name, attribute.type = 'body', onnx.AttributeProto.GRAPH
  attribute.g.name = 'harm'


def constant(dims, **content):
  """Changes fields of the weights: a list extends a field, a value sets it."""
  def change(onnx, model):
    weights = model.graph.initializer[0]
    weights.ClearField('float_data')
    weights.ClearField('dims')
    for key, value in dict(content, dims=dims).items():
      if isinstance(value, list):
        getattr(weights, key).extend(value)
      else:
        setattr(weights, key, value)
  return change


def enlarge(factor):
  """Resizes the input by this factor in both directions."""
  def change(onnx, model):
    model.graph.initializer.append(onnx.helper.make_tensor(
        'scales', onnx.TensorProto.FLOAT, [4], [1.0, factor, factor, 1.0]))
    model.graph.node[0].CopyFrom(onnx.helper.make_node(
        'Resize', ['images', '', 'scales'], ['scaled'], 'resize'))
    for side in model.graph.output[0].type.tensor_type.shape.dim[1:]:
      side.dim_value = int(33 * factor)
  return change


def unknown_size(onnx, model):
  for value in (model.graph.input[0], model.graph.output[0]):
    value.type.tensor_type.shape.dim[1].ClearField('dim_value')


def second_input(onnx, model):
  model.graph.input.add().CopyFrom(model.graph.input[0])
  model.graph.input[1].name = 'more'


@MODERN
@pytest.mark.parametrize('change, words', [
    (external, 'holds constants in another file; expected nodes and'),
    (operator('NoSuch'), 'not a valid model: No Op registered for NoSuch'),
    (operator('Mul', 'com.microsoft'), 'not a valid model: No opset import'),
    (lambda onnx, model: model.opset_import.add(domain='com.microsoft'),
     'holds operators of another domain'),
    (lambda onnx, model: model.functions.add(), 'holds functions'),
    (lambda onnx, model: model.training_info.add(), 'holds training graphs'),
    (lambda onnx, model: model.graph.sparse_initializer.add(), 'not a valid'),
    (subgraph, 'holds a graph in a node'),
    (lambda onnx, model: setattr(
        model.graph.node[1].attribute[0], 'i', 2 ** 40), 'not a valid model'),
    (constant([2 ** 20, 2 ** 20]), 'not a valid model: .*one value field'),
    (constant([1, 1, 1, 2], float_data=[1.0]), 'not a valid .*too small for'),
    (constant([4], raw_data=b'abc'), 'not a valid model: .*too small for the'),
    (constant([-1, -1], float_data=[1.0]), 'Negative dimension value'),
    (constant([1], data_type=8), 'not a valid model'),
    (enlarge(1e4), r'node resize \(Resize\) gives a tensor of'),
    (unknown_size, 'gives a tensor of no fixed size'),
    (second_input, '2 inputs: .*; expected one, of float32'),
    (lambda onnx, model: model.graph.output.pop(), '0 outputs: ; expected one'),
    (lambda onnx, model: model.graph.ClearField('node'), 'not a valid model'),
    (operator('Conv'), 'not a valid model'),
])
def test_unsafe_onnx_files_are_refused(tmp_path, change, words):
  path = tmp_path / 'x.onnx'
  path.write_bytes(onnx_of(change))
  with pytest.raises(InputError, match=words) as caught:
    onnx_file.OnnxPredictor(str(path))
  assert str(caught.value).startswith('{}: '.format(path))
  assert '\n' not in str(caught.value)


@MODERN
def test_foreign_onnx_files_are_run_or_refused(tmp_path):
  path = tmp_path / 'x.onnx'
  path.write_bytes(onnx_of(lambda onnx, model: None))
  assert labels_of(str(path), images()).min() >= 0
  path.write_bytes(onnx_of(enlarge(2.0)))
  assert onnx_file.read(str(path)).input_shape == (1, 33, 33, 3)
  path.write_bytes(b'\x08\x08text of no use')
  with pytest.raises(InputError, match='not an ONNX file'):
    onnx_file.read(str(path))
  with pytest.raises(InputError, match='no such file; expected an ONNX file'):
    onnx_file.read(str(tmp_path / 'none.onnx'))
  # The runtime's own error becomes one line too.
  path.write_bytes(onnx_of(
      lambda onnx, model: setattr(model, 'ir_version', 9999)))
  with pytest.raises(InputError, match='x.onnx: .*') as caught:
    onnx_file.OnnxPredictor(str(path))
  assert '\n' not in str(caught.value)
