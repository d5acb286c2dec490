"""Makes pictures, records and preprocessed images, and measures this."""
import itertools
import os
import shutil

import numpy as np
from PIL import Image
import tensorflow.compat.v1 as tf

from deeplab.config import options as options_lib
from deeplab.data import builder
from deeplab.data import dataset
from deeplab.data import decoding
from deeplab.data import png_folder_writer
from deeplab.data import preprocess as preprocess_lib
from deeplab.data import records
from deeplab.data import synthetic
from deeplab.tools.benchmark import cases
from deeplab.tools.benchmark import network

# Splits for preprocessing and for evaluation.
_MANY, _FEW = 'train', 'val'
# PNG compression of gen_preprocessed_data.py.
_COMPRESSION = 1


def paint(sizes: cases.Sizes, paths: cases.Paths) -> None:
  """Makes the file 'pictures'."""
  synthetic.make_dataset(options_lib.SyntheticOptions(
      output_dir=paths('pictures'), train_images=sizes.pictures,
      val_images=sizes.evaluated, long_side=sizes.picture_side))


def build(unused_sizes: cases.Sizes, paths: cases.Paths) -> None:
  """Makes the file 'records'."""
  for split in (_MANY, _FEW):
    _build(paths('pictures'), paths('records'), split)


def build_few(sizes: cases.Sizes, paths: cases.Paths) -> None:
  """Makes the file 'few records': a batch, and two images to evaluate."""
  synthetic.make_dataset(options_lib.SyntheticOptions(
      output_dir=paths('few pictures'), train_images=sizes.batch,
      val_images=2, long_side=sizes.picture_side))
  for split in (_MANY, _FEW):
    _build(paths('few pictures'), paths('few records'), split)


def build_again(sizes: cases.Sizes, paths: cases.Paths) -> cases.Measured:
  """Measures build_ade20k_data.py, for each picture."""
  return _measured(sizes, paths('built'), lambda folder: _build(
      paths('pictures'), folder, _MANY))


def _measured(sizes, folder, write_to):
  """Measures a function that writes a folder from all pictures."""
  def make():
    write_to(folder)

  def remove():
    shutil.rmtree(folder, ignore_errors=True)

  remove()
  make()
  return cases.seconds_each(
      make, sizes.seconds, sizes.pictures, before=remove), ''


def _build(pictures, output_dir, split):
  source = os.path.join(pictures, synthetic.DATASET_FOLDER)
  name = {_MANY: 'training', _FEW: 'validation'}[split]
  builder.build([options_lib.BuildOptions(
      split=split, output_dir=output_dir,
      image_folder=os.path.join(source, 'images', name),
      label_folder=os.path.join(source, 'annotations', name))])


def write(sizes: cases.Sizes, paths: cases.Paths) -> None:
  """Makes the file 'preprocessed'."""
  _write(paths, paths('preprocessed'), _preprocess_options(sizes))


def preprocess(sizes: cases.Sizes, paths: cases.Paths) -> cases.Measured:
  """Measures gen_preprocessed_data.py, for each picture."""
  return _measured(sizes, paths('written'), lambda folder: _write(
      paths, folder, _preprocess_options(sizes)))


def _write(paths, folder, options):
  png_folder_writer.write(
      dataset.Batches(
          options_lib.DatasetOptions(paths('records'), _MANY), options),
      split=_MANY, preprocess_options=options,
      options=options_lib.PreprocessedOptions(folder))


def _preprocess_options(sizes):
  return network.preprocess_options(sizes)._replace(resize_factor=1)


def preprocess_one_by_one(
    sizes: cases.Sizes, paths: cases.Paths) -> cases.Measured:
  """Measures preprocessing in a loop, without parallel work."""
  return _measured(sizes, paths('written'), lambda folder: _write_one_by_one(
      paths, folder, _preprocess_options(sizes)))


def _write_one_by_one(paths, folder, options):
  os.makedirs(folder)
  with tf.Graph().as_default():
    serialized = tf.placeholder(tf.string, [])
    example = decoding.parse_example(serialized)
    image = tf.image.decode_jpeg(example['image_encoded'], channels=3)
    label = tf.image.decode_png(example['label_encoded'], channels=1)
    # research/deeplab casts first, too.
    pair = preprocess_lib.for_evaluation(
        tf.cast(image, tf.float32), tf.cast(label, tf.int32), options)
    with tf.Session() as session:
      for number, record in enumerate(itertools.chain.from_iterable(
          tf.io.tf_record_iterator(path)
          for path in records.find_shards(paths('records'), _MANY))):
        image, label = session.run(pair, {serialized: record})
        for kind, array in (('image', image), ('label', label[:, :, 0])):
          Image.fromarray(array.astype(np.uint8)).save(
              os.path.join(folder, '{}_{}.png'.format(kind, number)),
              compress_level=_COMPRESSION)
