"""Pictures, records and preprocessed images: made, and measured."""
import itertools
import os
import shutil

import numpy as np
from PIL import Image
import tensorflow.compat.v1 as tf

from deeplab import options as options_lib
from deeplab.benchmark import cases
from deeplab.benchmark import network
from deeplab.data import builder
from deeplab.data import dataset
from deeplab.data import png_folder_writer
from deeplab.data import preprocess as preprocess_lib
from deeplab.data import records
from deeplab.data import synthetic

# The splits that are preprocessed, and evaluated.
_MANY = 'train'
_FEW = 'val'
# As gen_preprocessed_data.py compresses.
_COMPRESSION = 1


def paint(sizes: cases.Sizes, files: cases.Files) -> None:
  """Makes the file 'pictures'."""
  synthetic.make_dataset(options_lib.SyntheticOptions(
      output_dir=files('pictures'), train_images=sizes.pictures,
      val_images=sizes.evaluated, long_side=sizes.picture_side))


def build(unused_sizes: cases.Sizes, files: cases.Files) -> None:
  """Makes the file 'records'."""
  for split in (_MANY, _FEW):
    _build(files, files('records'), split)


def build_again(sizes: cases.Sizes, files: cases.Files) -> cases.Measurement:
  """Measures the building of records, for each picture."""
  # Of this process alone: another environment's has its turns in between.
  folder = files('records-{}'.format(os.getpid()))
  return _measured(lambda: _build(files, folder, _MANY), sizes)


def _measured(function, sizes, folder=None):
  """What a worker is given to measure a function of all pictures.

  Args:
    function: what is measured.
    sizes: cases.Sizes.
    folder: what it makes, and is to find missing; None: nothing.
  """
  def make_way():
    if folder:
      shutil.rmtree(folder, ignore_errors=True)

  make_way()
  function()
  return (lambda: cases.seconds_each(
      function, sizes.seconds, sizes.pictures, before=make_way), '')


def _build(files, output_dir, split):
  source = files('pictures', synthetic.DATASET_FOLDER)
  name = {_MANY: 'training', _FEW: 'validation'}[split]
  builder.build([options_lib.BuildOptions(
      split=split, output_dir=output_dir,
      image_folder=os.path.join(source, 'images', name),
      label_folder=os.path.join(source, 'annotations', name))])


def write(sizes: cases.Sizes, files: cases.Files) -> None:
  """Makes the file 'preprocessed'."""
  _write(sizes, files, files('preprocessed'))


def preprocess(sizes: cases.Sizes, files: cases.Files) -> cases.Measurement:
  """Measures what gen_preprocessed_data.py does, for each picture."""
  folder = files('preprocessed-{}'.format(os.getpid()))
  return _measured(lambda: _write(sizes, files, folder), sizes, folder)


def _write(sizes, files, folder):
  options = _preprocess_options(sizes)
  png_folder_writer.write(
      dataset.batches(
          options_lib.DatasetOptions(files('records'), _MANY), options),
      split=_MANY, preprocess_options=options,
      options=options_lib.PreprocessedOptions(folder))


def _preprocess_options(sizes):
  return network.preprocess_options(sizes)._replace(resize_factor=1)


def preprocess_one_by_one(sizes: cases.Sizes,
                          files: cases.Files) -> cases.Measurement:
  """Measures the same, in a loop that does one thing after the other."""
  folder = files('one-by-one-{}'.format(os.getpid()))
  return _measured(
      lambda: _write_one_by_one(sizes, files, folder), sizes, folder)


def _write_one_by_one(sizes, files, folder):
  os.makedirs(folder)
  with tf.Graph().as_default():
    serialized = tf.placeholder(tf.string, [])
    example = records.parse_example(serialized)
    image = tf.image.decode_jpeg(example['image_encoded'], channels=3)
    label = tf.image.decode_png(example['label_encoded'], channels=1)
    # As research/deeplab does, before anything else.
    pair = preprocess_lib.for_evaluation(
        tf.cast(image, tf.float32), tf.cast(label, tf.int32),
        _preprocess_options(sizes))
    with tf.Session() as session:
      for number, record in enumerate(itertools.chain.from_iterable(
          tf.io.tf_record_iterator(path)
          for path in records.find_shards(files('records'), _MANY))):
        image, label = session.run(pair, {serialized: record})
        for kind, array in (('image', image), ('label', label[:, :, 0])):
          Image.fromarray(array.astype(np.uint8)).save(
              os.path.join(folder, '{}_{}.png'.format(kind, number)),
              compress_level=_COMPRESSION)
