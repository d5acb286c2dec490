"""Tests hostile graphs, images and records."""
import glob
import os
import struct
import tokenize
import zlib

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config.options import BuildOptions
from deeplab.config.options import CalibrationOptions
from deeplab.config.options import DatasetOptions
from deeplab.config.options import PreprocessOptions
from deeplab.data import builder
from deeplab.data import dataset
from deeplab.data import decoding
from deeplab.data import pairs
from deeplab.data import png_folder
from deeplab.data import records
from deeplab.errors import InputError
from deeplab.export import tflite_conversion
from deeplab.models import frozen_graph
from deeplab.models import predictors
from tests import png
from tests import record_sets
from tests import scripts
from tests.record_sets import encode

TF1, TF2, MODERN = pytest.mark.tf1, pytest.mark.tf2, pytest.mark.modern
SIDE = 8
NODES = {'input_node': 'in', 'output_node': 'out'}


def everywhere(test):
  return TF1(TF2(MODERN(test)))


def refusal(function, *arguments, **keywords):
  with pytest.raises(InputError) as caught:
    function(*arguments, **keywords)
  assert '\n' not in str(caught.value)
  return str(caught.value)


# --- Graphs ----------------------------------------------------------------


def make_graph(add=None, shape=(1, SIDE, SIDE, 3)):
  """Makes a small network's GraphDef.

  Args:
    add: function that maps the input to a tensor with which the graph goes on.
    shape: shape of the input.
  """
  with tf.Graph().as_default() as graph:
    net = tf.placeholder(tf.float32, shape, 'in')
    if add:
      net = add(net)
    net = tf.nn.conv2d(net, tf.ones([1, 1, 3, 4]), strides=1, padding='SAME',
                       name='conv')
    tf.argmax(net, 3, output_type=tf.int32, name='out')
  return graph.as_graph_def()


def node_of(graph_def, name):
  return next(node for node in graph_def.node if node.name == name)


def write_graph(path, graph_def):
  path.write_bytes(graph_def.SerializeToString())
  return str(path)


def after(operation):
  """Returns a function that runs an operation and then returns its input."""
  def add(net):
    with tf.control_dependencies([operation(net)]):
      return tf.identity(net)
  return add


def writing(path):
  return make_graph(after(lambda net: tf.raw_ops.WriteFile(
      filename=str(path), contents='harm', name='payload')))


def load(path, graph_def):
  path = write_graph(path, graph_def)
  return frozen_graph.import_graph(path, frozen_graph.read_graph_def(path))


def load_refusal(tmp_path, graph_def):
  path = tmp_path / 'x.pb'
  message = refusal(load, path, graph_def)
  assert message.startswith('{}: '.format(path))
  return message[len(str(path)) + 2:]


@pytest.fixture
def preprocessed_folder(tmp_path):
  folder = tmp_path / 'preprocessed'
  pixels = np.resize(np.arange(256, dtype=np.uint8), [SIDE, SIDE, 3])
  save(folder / 'images' / 'img_0.png', encode(pixels))
  save(folder / 'annotations' / 'img_0.png', encode(pixels[:, :, 0] % 32))
  return folder


@pytest.mark.parametrize('script, arguments', [
    pytest.param('eval_pb.py', [
        '--pb={graph}', '--dataset_dir={records}', '--eval_logdir={out}',
        '--eval_crop_size=8,8'], marks=[TF1, TF2, MODERN]),
    pytest.param('scripts/convert_tflite.py', [
        '--graph_def={graph}', '--out_tflite={out}', '--mode=float'],
                 marks=[TF1, MODERN]),
    pytest.param('post_training_quant.py', [
        '--graph_def={graph}', '--out_tflite={out}', '--input_type=uint8',
        '--dataset_dir={images}', '--sample_num=1'], marks=[TF2, MODERN]),
])
def test_scripts_refuse_an_operator_that_writes_a_file(
    script, arguments, tmp_path, preprocessed_folder):
  write_records(tmp_path, encode(np.ones([SIDE, SIDE, 3], np.uint8)))
  paths = {'graph': tmp_path / 'x.pb', 'records': tmp_path,
           'out': tmp_path / 'out', 'images': preprocessed_folder}
  write_graph(paths['graph'], writing(tmp_path / 'harm'))
  line = scripts.refusal(script, *[
      argument.format(**paths) for argument in arguments + [
          '--{}={}'.format(*item) for item in NODES.items()]])
  assert ('{}: node payload is the operator WriteFile, which no network like '
          'this one has'.format(paths['graph'])) in line
  assert not (tmp_path / 'harm').exists()
  assert not paths['out'].exists()


@everywhere
@pytest.mark.parametrize('operator, operation', [
    ('ReadFile', lambda net: tf.raw_ops.ReadFile(
        filename='/etc/passwd', name='payload')),
    ('PyFunc', lambda net: tf.py_func(
        lambda x: x, [net], tf.float32, name='payload')),
    ('ShardedFilename', lambda net: tf.raw_ops.ShardedFilename(
        basename='a', shard=1, num_shards=2, name='payload')),
    ('Fill', lambda net: tf.raw_ops.Fill(
        dims=[2 ** 20, 2 ** 20], value=1.0, name='payload')),
])
def test_foreign_operators_are_refused(
    tmp_path, operator, operation):
  message = load_refusal(tmp_path, make_graph(after(operation)))
  assert message == (
      'node payload is the operator {}, which no network like this one has; '
      'refused, as operators can write files and run programs'.format(operator))


@everywhere
def test_functions_and_calls_are_refused(tmp_path):
  graph_def = make_graph(lambda net: tf.identity(net, name='payload'))
  for operator in ('StatefulPartitionedCall', 'f', 'While'):
    node_of(graph_def, 'payload').op = operator
    assert 'node payload is the operator {}, '.format(
        operator) in load_refusal(tmp_path, graph_def)
  for add in (lambda library: library.function.add(),
              lambda library: library.gradient.add(function_name='f')):
    graph_def = make_graph()
    add(graph_def.library)
    assert load_refusal(tmp_path, graph_def) == (
        'holds functions; a frozen graph has none; refused')


@everywhere
def test_foreign_attributes_are_refused(tmp_path):
  kind = ', of a kind that no network like this one has; refused'
  for name, spoil, words in (
      ('g', lambda attribute: setattr(attribute.func, 'name', 'f'), kind),
      ('g', lambda attribute: attribute.list.func.add(name='f'), kind),
      ('g', lambda attribute: setattr(attribute, 'placeholder', 'f'), kind),
      ('g', lambda attribute: attribute.tensor.CopyFrom(
          tf.make_tensor_proto(1)), kind),
      ('g', lambda attribute: attribute.list.tensor.add(), kind),
      ('_XlaCompile', lambda attribute: setattr(attribute, 'b', True), kind),
      ('T', lambda attribute: setattr(
          attribute, 'type', tf.string.as_datatype_enum),
       ' of type 7; expected numbers: bool, float32, int32, int64, uint8')):
    graph_def = make_graph()
    spoil(node_of(graph_def, 'conv').attr[name])
    assert load_refusal(tmp_path, graph_def) == (
        'node conv (Conv2D) has the attribute ' + name + words)


@TF1
def test_an_attribute_of_a_newer_tensorflow_is_named(tmp_path):
  graph_def = make_graph()
  node_of(graph_def, 'conv').attr['of_the_future'].i = 1
  message = load_refusal(tmp_path, graph_def)
  assert "attr 'of_the_future'" in message and 'conv' in message
  assert 'TensorFlow ' + tf.__version__ in message


@everywhere
def test_node_names_with_control_characters_are_refused(tmp_path):
  graph_def = make_graph()
  node_of(graph_def, 'conv').name = 'conv\x1b[2J\n'
  assert load_refusal(tmp_path, graph_def) == (
      "a node is called 'conv\\x1b[2J\\n'; expected letters, digits and _.-/")


def constant(shape, dtype=tf.float32, **fields):
  """Returns a GraphDef with a constant stored in this way."""
  graph_def = make_graph(lambda net: net * tf.constant(1.0, name='payload'))
  node = node_of(graph_def, 'payload')
  tensor = node.attr['value'].tensor
  tensor.Clear()
  node.attr['dtype'].type = tf.float32.as_datatype_enum
  tensor.dtype = dtype.as_datatype_enum
  if shape is None:
    tensor.tensor_shape.unknown_rank = True
  for side in shape or ():
    tensor.tensor_shape.dim.add(size=side)
  tensor.tensor_content = fields.get('content', b'')
  tensor.float_val.extend(fields.get('values', ()))
  return graph_def


@everywhere
@pytest.mark.parametrize('written, words', [
    ([[2 ** 15, 2 ** 15], {'values': [1]}],
     'has a tensor of 1073741824 values, (32768, 32768); expected 1 to '
     '268435456'),
    ([[2 ** 62, 2 ** 62], {}], 'has a tensor of 2126764793255865396'),
    ([[2, 0], {}], 'has a tensor of 0 values, (2, 0); expected 1 to'),
    ([[2 ** 28], {'values': [1]}],
     'brings the constants to 1073741'),
    ([[2, -1], {'values': [1]}], 'has the shape (2, ?)'),
    ([None, {'values': [1]}], 'has the shape '),
    ([[1], {'content': b'1234', 'values': [1]}],
     'holds 4 bytes and 1 values for the shape (1,)'),
    ([[1], {'dtype': tf.int32}], 'holds type 3, its dtype is 1'),
], ids=str)
def test_inconsistent_constants_are_refused(
    tmp_path, written, words):
  shape, fields = written
  message = load_refusal(tmp_path, constant(shape, **fields))
  # TensorFlow 2.21 prints an unknown side differently.
  assert message.replace('None', '?').startswith(
      'node payload (Const) ' + words)


def doubled(net):
  for _ in range(30):
    net = tf.concat([net, net], 1)
  return net


@everywhere
@pytest.mark.parametrize('add, words', [
    (doubled, '(ConcatV2) gives a tensor of 402653184 values'),
    (lambda net: tf.image.resize_bilinear(net, [10 ** 5] * 2),
     '(ResizeBilinear) gives a tensor of 30000000000 values'),
    (lambda net: tf.pad(net, [[0, 0], [10 ** 5] * 2, [10 ** 5] * 2, [0, 0]]),
     '(Pad) gives a tensor of '),
    (lambda net: net[:, :1, :1] + tf.constant(1.0, shape=[20000, 1, 1, 3]) *
     tf.constant(1.0, shape=[1, 20000, 1, 3]),
     '(Mul) gives a tensor of 1200000000 values'),
])
def test_huge_intermediate_tensors_are_refused(tmp_path, add, words):
  assert words in load_refusal(tmp_path, make_graph(add))


@everywhere
def test_sizes_and_axes_must_be_constants(tmp_path):
  message = load_refusal(tmp_path, make_graph(
      lambda net: tf.image.resize_bilinear(
          net, tf.constant([4, 4]) + tf.constant([4, 4]), name='payload')))
  assert message == ('node payload (ResizeBilinear) takes a size or an axis '
                     'that is not a constant; refused')
  # A missing input is not a constant either.
  graph_def = make_graph()
  del node_of(graph_def, 'out').input[1:]
  assert 'node out (ArgMax) takes a size' in load_refusal(tmp_path, graph_def)


@everywhere
def test_numbers_at_which_tensorflow_crashes_are_refused(tmp_path):
  """Found by fuzzing: TensorFlow 1.15 crashes while it loads either graph."""
  graph_def = make_graph()
  node_of(graph_def, 'conv').attr['strides'].list.i[0] = 2 ** 62
  assert load_refusal(tmp_path, graph_def) == (
      'node conv (Conv2D) has the attribute strides of 4611686018427387904; '
      'expected at most 65536')
  for axis in (2 ** 31 - 1, -9):
    graph_def = make_graph()
    node_of(graph_def, 'out/dimension').attr['value'].tensor.int_val[0] = axis
    assert load_refusal(tmp_path, graph_def) == (
        'node out (ArgMax) takes out/dimension as its axis; expected at most '
        '8')


@everywhere
def test_only_the_batch_size_may_be_unknown(tmp_path):
  message = load_refusal(tmp_path, make_graph(shape=(1, None, SIDE, 3)))
  assert message.startswith('node in (Placeholder) gives a tensor of no fixed ')
  path = write_graph(tmp_path / 'x.pb', make_graph(shape=(None, SIDE, SIDE, 3)))
  predictor = predictors.open_frozen_graph(
      path, input_node='in', output_node='out')
  assert predictor.predict(np.zeros([3, SIDE, SIDE, 3], np.float32)).shape == (
      3, SIDE, SIDE)
  predictor.close()


@everywhere
def test_device_names_in_a_graph_are_ignored(tmp_path):
  graph_def = make_graph()
  node_of(graph_def, 'conv').device = '/job:worker/task:7/device:GPU:3'
  predictor = predictors.open_frozen_graph(
      write_graph(tmp_path / 'x.pb', graph_def),
      input_node='in', output_node='out')
  assert not predictor.predict(np.ones([1, SIDE, SIDE, 3], np.float32)).any()
  predictor.close()


@everywhere
def test_files_that_are_too_large_are_not_read(tmp_path, monkeypatch):
  path = write_graph(tmp_path / 'x.pb', make_graph())
  monkeypatch.setattr(constants, 'MAX_FILE_BYTES', 10)
  size = os.path.getsize(path)
  assert refusal(frozen_graph.read_graph_def, path) == (
      '{}: {} bytes; expected a frozen graph of at most 10'.format(path, size))
  assert refusal(pairs.read_file, path) == (
      'x.pb: {} bytes; expected an image of at most 10'.format(size))


# --- Images ----------------------------------------------------------------


def save(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


def picture(file_format):
  return encode(np.full([SIDE, SIDE, 3], 9, np.uint8), file_format)


def png_bomb(width=60000, height=60000, color_type=2):
  """Returns a PNG that holds fewer pixels than its header says."""
  header = struct.pack('>IIBBBBB', width, height, 8, color_type, 0, 0, 0)
  return (b'\x89PNG\r\n\x1a\n' + png.chunk(b'IHDR', header) +
          png.chunk(b'IDAT', zlib.compress(bytes(1000))) +
          png.chunk(b'IEND', b''))


def jpeg_bomb(side=60000):
  content = bytearray(picture('JPEG'))
  start = content.index(b'\xff\xc0')  # marker, length, depth, height, width
  content[start + 5:start + 9] = struct.pack('>HH', side, side)
  return bytes(content)


LABEL = encode(np.full([SIDE, SIDE], 1, np.uint8))
# File contents, and a part of the error message.
OTHER_FORMATS = [(picture(name), 'is neither JPEG nor PNG')
                 for name in ('WEBP', 'BMP', 'GIF', 'TIFF', 'PPM', 'ICO')]
BOMBS = [(png_bomb(), 'of 60000x60000 pixels; expected at most 67108864'),
         # Pillow would only warn about this one.
         (png_bomb(9000, 8000), 'of 9000x8000 pixels; expected at most'),
         (png_bomb(2 ** 31 - 1, 2 ** 31 - 1), 'of 2147483647x2147483647 pix'),
         (jpeg_bomb(), 'of 60000x60000 pixels; expected at most 67108864')]
BAD_IMAGES = pytest.mark.parametrize(
    'content, words', OTHER_FORMATS + BOMBS,
    ids=['webp', 'bmp', 'gif', 'tiff', 'ppm', 'ico', 'png-bomb', 'small-bomb',
         'large-bomb', 'jpeg-bomb'])


def build_refusal(tmp_path, image, label):
  save(tmp_path / 'images' / 'a.jpg', image)
  save(tmp_path / 'labels' / 'a.png', label)
  return refusal(builder.build, [BuildOptions(
      split='train', image_folder=str(tmp_path / 'images'),
      label_folder=str(tmp_path / 'labels'), output_dir=str(tmp_path / 'out'))])


@TF1
@MODERN
@BAD_IMAGES
def test_build_refuses(tmp_path, content, words):
  message = build_refusal(tmp_path, content, LABEL)
  assert 'cannot be used: a.jpg: ' in message and words in message
  message = build_refusal(tmp_path, picture('JPEG'), content)
  assert 'cannot be used: a.png' in message
  assert words in message or 'a.png is a JPEG; expected 8-bit gray' in message


@TF1
@MODERN
@BAD_IMAGES
@pytest.mark.parametrize('kind', ['images', 'annotations'])
def test_preprocessed_evaluation_refuses(
    preprocessed_folder, kind, content, words):
  save(preprocessed_folder / kind / 'img_0.png', content)
  found = png_folder.list_pairs(str(preprocessed_folder)).pairs
  message = refusal(png_folder.check, found, (SIDE, SIDE))
  assert 'img_0.png' in message
  assert words in message or 'img_0.png is a JPEG; expected PNG' in message


@TF2
@MODERN
def test_calibration_refuses(preprocessed_folder, tmp_path):
  path = preprocessed_folder / 'images' / 'img_0.png'
  save(path, png_bomb())
  message = refusal(
      tflite_conversion.post_training_quantize, CalibrationOptions(
          dataset_dir=str(preprocessed_folder),
          graph_def=write_graph(tmp_path / 'x.pb', make_graph()), sample_num=1,
          out_tflite=str(tmp_path / 'x.tflite'), input_type='uint8',
          input_node='in', output_node='out'))
  assert message.startswith(str(path)) and 'of 60000x60000 pixels' in message


def example(image, label):
  return records.make_example(
      image_bytes=image, label_bytes=label, filename='a.png',
      image_format='png', label_format='png', height=SIDE, width=SIDE)


def write_records(folder, image, label=LABEL):
  """Writes a valid record and this one to both splits; returns val's shard."""
  for split in ('train', 'val'):
    shard, = record_sets.write_shards(
        output_dir=str(folder), split=split,
        shards=[[example(picture('PNG'), LABEL), example(image, label)]])
  return shard


def read_val(folder):
  return list(dataset.Batches(
      DatasetOptions(dataset_dir=str(folder), split='val', batch_size=1),
      PreprocessOptions(crop_size=(SIDE, SIDE))))


def read_train(folder):
  options = DatasetOptions(
      dataset_dir=str(folder), split='train', batch_size=2)
  with tf.Graph().as_default(), tf.Session() as session:
    tensors = dataset.training_batches(
        options, PreprocessOptions(crop_size=(SIDE, SIDE)))
    session.run(tf.tables_initializer())
    with dataset.explaining_read_errors(
        records.find_shards(str(folder), 'train')):
      session.run(tensors)


@everywhere
def test_bad_images_in_records_are_not_decoded():
  with decoding.Decoder() as decoder:
    decoder.check(example(picture('PNG'), LABEL).SerializeToString())
    for content, words in OTHER_FORMATS + BOMBS:
      for key, record in (
          ('image/encoded', example(content, LABEL)),
          ('image/segmentation/class/encoded',
           example(picture('PNG'), content))):
        message = refusal(decoder.check, record.SerializeToString())
        assert message.startswith('(a.png): ' + key)
        assert words in message or (
            key + ' is a JPEG; expected 8-bit gray' in message)


@everywhere
@pytest.mark.slow
def test_bad_images_in_records_are_refused(tmp_path):
  for read, split, image, label, key, words in (
      (read_val, 'val', picture('GIF'), LABEL, 'image/encoded',
       'is neither JPEG nor PNG'),
      (read_train, 'train', picture('PNG'), png_bomb(),
       'image/segmentation/class/encoded', 'of 60000x60000 pixels')):
    shard = write_records(tmp_path, image, label).replace('val', split)
    message = refusal(read, tmp_path)
    assert message.startswith('{}: record 1 (a.png): {}'.format(shard, key))
    assert words in message


@everywhere
def test_the_largest_allowed_image_is_read(monkeypatch):
  for most in (SIDE * SIDE, SIDE * SIDE - 1):
    monkeypatch.setattr(constants, 'MAX_PIXELS', most)
    with decoding.Decoder() as decoder:
      for file_format in ('PNG', 'JPEG'):
        record = example(picture(file_format), LABEL).SerializeToString()
        if most == SIDE * SIDE:
          decoder.check(record)
        else:
          assert 'of 8x8 pixels; expected at most 63' in refusal(
              decoder.check, record)


# --- The source ------------------------------------------------------------

# Names, and the only files that may use them.
RESERVED = dict(
    {'JpegImageFile': ['data/pairs.py'], 'PngImageFile': ['data/pairs.py'],
     'import_graph_def': ['models/frozen_graph.py'],
     'saved_model_pb2': ['models/saved_model_file.py'],
     'InferenceSession': ['models/onnx_file.py'],
     'ModelProto': ['models/onnx_file.py']},
    **dict.fromkeys((
        'ImageFile', 'import_meta_graph', 'MetaGraphDef', 'saved_model',
        'decode_image', 'decode_gif', 'decode_bmp', 'decode_webp', 'py_func',
        'load_op_library', 'pickle', 'eval', 'exec', 'allow_pickle'), []))


def test_each_dangerous_function_is_used_in_one_file():
  library = os.path.join(scripts.REPOSITORY, 'deeplab')
  users = {name: [] for name in RESERVED}
  for path in sorted(glob.glob(library + '/**/*.py', recursive=True)):
    with open(path, encoding='utf-8') as source:
      names = {token.string for token in tokenize.generate_tokens(
          source.readline) if token.type == tokenize.NAME}
    for name in names & set(RESERVED):
      users[name].append(os.path.relpath(path, library))
  assert users == RESERVED
