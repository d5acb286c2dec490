"""Lists, checks and reads folders of preprocessed pairs.

    FOLDER/images/img_N.png       8-bit RGB, as large as the network's input
    FOLDER/annotations/img_N.png  8-bit gray, class ids 0..31
    FOLDER/manifest.json          which image of the data set each img_N is

Folders of the MLPerf Mobile app are read, too: JPEG images, and annotations as
raw bytes (.raw) with any ids. Ids above 31 are ignored, as in the app.

If the classes are not ADE20K's, the manifest has the label map, and annotations
hold classes, not that map's ids.

png_folder_writer writes the folders. Needs Pillow but not TensorFlow, so that
evaluating a TFLite model requires only an interpreter.
"""
import collections
import logging
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, cast

import numpy as np
from PIL import Image

from deeplab import constants
from deeplab.config import label_map as label_maps
from deeplab.data import pairs as pairs_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_messages
from deeplab.errors import some_of
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.system import parallel
from deeplab.system import progress

_LOG = logging.getLogger(__name__)
_RAW = '.raw'
_VOID = 255
# Fields of a manifest that reports copy.
_TOLD = ('split', 'geometry')


class Listing(NamedTuple):
  """Images and their annotations."""
  # img_2 before img_10.
  pairs: Tuple[pairs_lib.Pair, ...]
  # Files in the folder of images that are not images.
  ignored: int
  # Annotations without an image.
  unused: int


# --- Listing ---------------------------------------------------------------


def image_folder(folder: str, name: str) -> str:
  """Finds the folder of images.

  Args:
    folder: FOLDER/images or FOLDER.
    name: the option with this value, such as 'test_dir', for messages.

  Raises:
    InputError: there is no such folder, or it is incomplete.
  """
  if not os.path.isdir(folder):
    raise InputError('{}: no such folder; gen_preprocessed_data.py makes one',
                     option(name, folder))
  inner = os.path.join(folder, constants.PREPROCESSED_IMAGES)
  if os.path.isdir(inner):
    folder = inner
  marker = os.path.join(parent_of(folder), constants.INCOMPLETE)
  if os.path.exists(marker):
    raise InputError(
        '{}: gen_preprocessed_data.py did not finish writing it; run that '
        'again with {}', option(name, folder), option('overwrite'))
  return folder


def parent_of(folder: str) -> str:
  """Returns FOLDER of any spelling of FOLDER/images."""
  return os.path.dirname(os.path.abspath(folder))


def folder_of(pairs: Sequence[pairs_lib.Pair]) -> str:
  """Returns the FOLDER of some pairs."""
  return parent_of(os.path.dirname(pairs[0].image_path))


def folders_in(pairs: Sequence[pairs_lib.Pair]) -> List[str]:
  """Returns the folders of some pairs' images and annotations."""
  return [os.path.dirname(path) for path in (
      pairs[0].image_path, pairs[0].label_path) if path]


def image_paths(folder: str, name: str) -> List[str]:
  """Lists the images of a folder, img_2 before img_10.

  Args:
    folder: FOLDER/images or FOLDER.
    name: the option with this value, such as 'dataset_dir', for messages.

  Returns:
    List of paths, at least one.

  Raises:
    InputError: there is no such folder, no image in it, or it is incomplete.
  """
  return _list_images(folder, name)[0]


def _list_images(folder, name):
  """Returns (paths, number of other files)."""
  folder = image_folder(folder, name)
  names = pairs_lib.visible_files(folder)
  images = [file for file in names if pairs_lib.has_image_name(file)]
  if not images:
    raise InputError('no images in {} ({} other files)', option(name, folder),
                     len(names))
  return ([os.path.join(folder, file) for file in sorted(images, key=_natural)],
          len(names) - len(images))


def _natural(name):
  """Returns a sort key that compares numbers in names by value."""
  parts = re.split(r'(\d+)', name)
  parts[1::2] = map(int, parts[1::2])
  return parts, name


def list_pairs(test_dir: str, val_label_dir: Optional[str] = None) -> Listing:
  """Lists images with the annotations of the same name.

  Args:
    test_dir: FOLDER/images or FOLDER.
    val_label_dir: folder with *.png or *.raw; None: `annotations` beside the
      images.

  Returns:
    A Listing.

  Raises:
    InputError: no such folder, no image, or images without an annotation.
  """
  paths, ignored = _list_images(test_dir, 'test_dir')
  check_manifest(paths)
  if val_label_dir is None:
    val_label_dir = os.path.join(
        parent_of(os.path.dirname(paths[0])),
        constants.PREPROCESSED_ANNOTATIONS)
  if not os.path.isdir(val_label_dir):
    raise InputError(
        '{}: no such folder', option('val_label_dir', val_label_dir))
  if os.path.samefile(os.path.dirname(paths[0]), val_label_dir):
    raise InputError(
        '{}: annotations are expected in another folder than the images',
        option('val_label_dir', val_label_dir))
  annotations = {
      os.path.splitext(name)[0]: os.path.join(val_label_dir, name)
      # The order is reversed so that a .png overrides a .raw.
      for name in reversed(pairs_lib.visible_files(val_label_dir))
      if name.lower().endswith(('.png', _RAW))}
  found = [pairs_lib.Pair(
      os.path.basename(path), path, annotations.get(_stem(path)))
           for path in paths]
  _check_names(found, val_label_dir)
  return Listing(tuple(found), ignored, len(annotations) - len(found))


def _stem(path):
  return os.path.splitext(os.path.basename(path))[0]


def _check_names(found, val_label_dir):
  """Raises InputError unless every image has its own annotation."""
  missing = [pair.name for pair in found if pair.label_path is None]
  if missing:
    raise InputError(
        '{} of {} images without annotation in {}: {}', len(missing),
        len(found), option('val_label_dir', val_label_dir), some_of(missing))
  users = collections.Counter(_stem(pair.name) for pair in found)
  shared = [pair.name for pair in found if users[_stem(pair.name)] > 1]
  if shared:
    raise InputError('{} images share an annotation with another one: '
                     '{}'.format(len(shared), some_of(shared)))


def manifest_path(folder: str) -> str:
  """Returns the path of FOLDER's manifest."""
  return os.path.join(folder, constants.PREPROCESSED_MANIFEST)


def read_label_map(folder: str) -> Optional[label_maps.LabelMap]:
  """Returns the label map of FOLDER; None: there is no manifest.

  Raises:
    InputError: the manifest is damaged.
  """
  manifest = read_manifest(folder)
  found = label_maps.optional_from_json(manifest, manifest_path(folder))
  # A manifest without a label map has ADE20K's classes.
  return found or (label_maps.ADE20K if manifest else None)


def read_manifest(folder: str) -> Dict[str, Any]:
  """Returns the manifest of FOLDER as a dict; {}: there is none."""
  path = manifest_path(folder)
  if not os.path.exists(path):
    return {}
  kind = 'the manifest that gen_preprocessed_data.py writes'
  content = checked_read.read_json(path, path, kind)
  if not isinstance(content, dict) or not all(
      isinstance(content.get(name, ''), str) for name in _TOLD
  ) or not _is_listing(content.get('images', [])):
    raise InputError('{}: damaged; expected {}'.format(path, kind))
  return content


def _is_listing(images):
  return isinstance(images, list) and all(
      isinstance(image, dict) and isinstance(image.get('name'), str)
      for image in images)


def check_manifest(paths: Sequence[str]) -> None:
  """Checks that FOLDER/images has exactly the images in its manifest.

  Args:
    paths: paths from `image_paths`; folders not named images are not checked.

  Raises:
    InputError: names the first few images that are missing or not listed.
  """
  images = os.path.dirname(paths[0])
  folder = parent_of(images)
  listed = read_manifest(folder).get('images')
  if listed is None or not os.path.basename(
      os.path.abspath(images)) == constants.PREPROCESSED_IMAGES:
    return
  wanted = [entry['name'] for entry in listed]
  found = list(map(os.path.basename, paths))
  problems = [
      '{} {}'.format(what, some_of(names)) for what, names in (
          ('lacks', sorted(set(wanted) - set(found), key=_natural)),
          ('has also', sorted(set(found) - set(wanted), key=_natural)))
      if names]
  if problems:
    raise InputError(
        '{}: lists {} images, but the folder {}; run gen_preprocessed_data.py '
        'again, or remove {} if this is on purpose'.format(
            manifest_path(folder), len(wanted), ' and '.join(problems),
            constants.PREPROCESSED_MANIFEST))


def origin(pairs: Sequence[pairs_lib.Pair],
           size: Tuple[int, int]) -> Dict[str, Any]:
  """Returns the 'split' and 'geometry' of pairs for a report.

  They come from the manifest, or else from the folder and from `size`, the
  (height, width) of the images in pixels.
  """
  images = os.path.dirname(pairs[0].image_path)
  manifest = read_manifest(folder_of(pairs))
  return {
      'split': manifest.get('split', images),
      'geometry': manifest.get('geometry', '{}x{}, no {}'.format(
          size[0], size[1], constants.PREPROCESSED_MANIFEST))}


def identity(pairs: Sequence[pairs_lib.Pair]) -> str:
  """Returns a checksum of names, images and annotations, in their order."""
  return files.digest([
      (pair.name, files.sha256_of(pair.image_path),
       files.sha256_of(cast(str, pair.label_path))) for pair in pairs])


# --- Checking and reading --------------------------------------------------


def check(found: Sequence[pairs_lib.Pair], size: Tuple[int, int],
          label_map: label_maps.LabelMap = label_maps.ADE20K) -> int:
  """Decodes pairs and checks that a model can be evaluated on them.

  Labels above the last class are ignored, and their number is logged.

  Args:
    found: the pairs.
    size: (height, width) of the model's input, in pixels.
    label_map: the label map of the classes.

  Returns:
    Number of pixels with a label above the last class.

  Raises:
    InputError: pairs cannot be used (names the first few with the reason), no
      annotation has a class, or the manifest has other classes.
  """
  folder = folder_of(found)
  label_maps.agreed((manifest_path(folder), read_label_map(folder)),
                    ('what they are read for', label_map))
  facts, problems = parallel.check_all(
      lambda pair: _check_pair(pair, size, label_map), found,
      title='checking', unit='pair')
  if problems:
    raise InputError('{} of {} pairs cannot be used: {}', len(problems),
                     len(found), some_messages(problems))
  labelled, above = zip(*facts)
  last = label_map.num_classes - 1
  if not any(labelled):
    raise InputError('no annotation of {} holds a class id of 1..{}'.format(
        len(found), last))
  if any(above):
    _LOG.info(
        'labels above %d are ignored, as in the MLPerf Mobile app: %s of %s',
        last, progress.counted(sum(above), 'pixel'),
        progress.counted(np.count_nonzero(above), 'annotation'))
  return sum(above)


def _check_pair(pair, size, label_map):
  """Counts the pixels of an annotation with a class, and above the last."""
  image = read_image_file(pair.image_path, pair.name)
  if (image.height, image.width) != tuple(size):
    raise InputError('{} is {}x{}; the model takes {}x{} (height x '
                     'width)'.format(pair.name, image.height, image.width,
                                     *size))
  if image.mode != 'RGB':
    raise InputError('{} is {}; expected RGB'.format(pair.name, image.mode))
  # The folder is included because the image has the same name.
  name = os.path.join(constants.PREPROCESSED_ANNOTATIONS,
                      os.path.basename(pair.label_path))
  label = _read_label_file(pair.label_path, name, image.size)
  pairs_lib.check_sizes(pair.name, image.size, label.size)
  last = label_map.num_classes - 1
  if label.mode != 'L':
    raise InputError('{} is {}; expected one channel of class ids '
                     '0..{}'.format(name, label.mode, last))
  counts = label.histogram()
  if label_map != label_maps.ADE20K and any(counts[last + 1:_VOID]):
    largest = max(value for value in range(_VOID) if counts[value])
    raise InputError('{} holds {}; expected class ids 0..{}, or {} for no '
                     'label'.format(name, largest, last, _VOID))
  return sum(counts[1:last + 1]), sum(counts[last + 1:])


def size_of(pairs: Sequence[pairs_lib.Pair]) -> Tuple[int, int]:
  """Returns (height, width) of the first image."""
  image = read_image_file(pairs[0].image_path, pairs[0].name)
  return image.height, image.width


def read_image_file(path: str, name: str) -> Image.Image:
  """Returns a loaded PIL.Image of a JPEG or PNG file."""
  return pairs_lib.decode(pairs_lib.read_file(path), name)


def _read_label_file(path, name, size):
  """Loads a PNG, or raw bytes of (width, height), as a PIL.Image."""
  content = pairs_lib.read_file(path)
  if not path.lower().endswith(_RAW):
    return pairs_lib.decode(content, name, formats=(pairs_lib.PNG,))
  if len(content) != size[0] * size[1]:
    raise InputError('{} has {} bytes; expected {}, one for each pixel of its '
                     'image'.format(name, len(content), size[0] * size[1]))
  return Image.frombytes('L', size, content)


def read_pair(pair: pairs_lib.Pair, num_classes: int = constants.NUM_CLASSES
              ) -> Tuple[np.ndarray, np.ndarray]:
  """Reads an image and its annotation that `check` accepted.

  Returns:
    (image, label): uint8 [height, width, 3] RGB, and int32 [height, width] in
    [0, num_classes), where 0 is the ignored class.
  """
  image = read_image(pair)
  return image, read_label(pair, image.shape[:2], num_classes)


def read_image(pair: pairs_lib.Pair) -> np.ndarray:
  """Reads only the image; see read_pair."""
  return np.array(read_image_file(pair.image_path, pair.name))


def read_label(pair: pairs_lib.Pair, size: Tuple[int, int],
               num_classes: int = constants.NUM_CLASSES) -> np.ndarray:
  """Reads only the annotation, of (height, width); see read_pair."""
  path = cast(str, pair.label_path)  # list_pairs requires one
  label = np.array(_read_label_file(path, path, size[::-1]), np.int32)
  label[label >= num_classes] = constants.IGNORE_LABEL
  return label
