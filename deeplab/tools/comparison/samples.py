"""Reads images to compare models on: records, PNG folders, or any pictures."""
import os
from typing import Iterator, NamedTuple, Optional, Tuple

import numpy as np

from deeplab import constants
from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.data import dataset
from deeplab.data import pictures
from deeplab.data import png_folder
from deeplab.errors import InputError
from deeplab.errors import Message
from deeplab.errors import joined
from deeplab.errors import option
from deeplab.evaluation import visualize


class Sample(NamedTuple):
  """One preprocessed image."""
  name: str
  # [height, width, 3] float32 RGB in [0, 255], of the models' input size.
  image: np.ndarray
  # (height, width) without padding, which is on the right and below.
  size: Tuple[int, int]
  # int32 [height, width], classes; None: no labels.
  label: Optional[np.ndarray]


class Samples(NamedTuple):
  """All samples; `images` can be iterated once."""
  images: Iterator[Sample]
  number: int
  has_labels: bool
  # Human-readable source and resizing.
  source: str
  geometry: str
  label_map: label_maps.LabelMap = label_maps.ADE20K


def check(options: options_lib.ComparisonOptions) -> None:
  """Raises InputError unless options name one source of images."""
  places = ('dataset_dir', 'test_dir', 'pictures')
  given = [option(name) for name in places if getattr(options, name)]
  if len(given) != 1:
    raise InputError(
        'images from {}; expected one of {}, {} and {}',
        joined(' and ', [Message('{}', place) for place in given])
        if given else 'nowhere', *map(option, places))


def read(options: options_lib.ComparisonOptions,
         input_size: Tuple[int, int],
         model_map: Optional[label_maps.LabelMap] = None) -> Samples:
  """Opens the images that options name.

  Args:
    options: the source.
    input_size: (height, width) of the models' input.
    model_map: label map of the models; None: unknown.

  Raises:
    InputError: there is no image, or one is unusable or has other classes.
  """
  if options.dataset_dir:
    found = _of_records(options, input_size, model_map)
  elif options.test_dir:
    found = _of_png_folder(options, input_size, model_map)
  else:
    found = _of_pictures(options, input_size, model_map)
  if options.max_images and options.max_images < found.number:
    found = found._replace(
        number=options.max_images,
        source='{}, the first {} of {} images'.format(
            found.source, options.max_images, found.number))
  return found


def _of_records(options, input_size, model_map):
  geometry = pictures.geometry(input_size, options.resize_factor)
  batches = dataset.Batches(
      options_lib.DatasetOptions(
          dataset_dir=options.dataset_dir, split=options.split), geometry,
      model_map=model_map)

  def images():
    for batch in batches:
      sizes = batch['size'].tolist()
      for index, name in enumerate(batch['filename']):
        yield Sample(
            constants.image_name(name), batch['image'][index],
            (sizes[index][0], sizes[index][1]), batch['label'][index])

  return Samples(
      images(), batches.num_images, True,
      '{} of {}'.format(options.split, options.dataset_dir),
      geometry.geometry(), batches.label_map)


def _of_png_folder(options, input_size, model_map):
  pairs = png_folder.list_pairs(options.test_dir).pairs
  folder = png_folder.folder_of(pairs)
  label_map = label_maps.agreed(
      (png_folder.manifest_path(folder), png_folder.read_label_map(folder)),
      ('the models', model_map))
  png_folder.check(pairs, input_size, label_map)
  manifest = png_folder.read_manifest(folder)

  def images():
    for pair in pairs:
      image, label = png_folder.read_pair(pair, label_map.num_classes)
      yield Sample(pair.name, image.astype(np.float32),
                   visualize.unpadded_size(image), label)

  return Samples(
      images(), len(pairs), True, options.test_dir,
      manifest.get('geometry', '{}x{} pixels'.format(*input_size)), label_map)


def _of_pictures(options, input_size, model_map):
  paths, _ = pictures.check(pictures.list_pictures(options.pictures))

  def images():
    with pictures.Fitter(input_size, options.resize_factor) as fitter:
      for path in paths:
        fitted = fitter.fit(
            pictures.read(path, exif_rotation=options.exif_rotation))
        yield Sample(os.path.basename(path), fitted.image, fitted.size, None)

  return Samples(
      images(), len(paths), False, options.pictures,
      pictures.geometry(input_size, options.resize_factor).geometry(),
      model_map or label_maps.ADE20K)
