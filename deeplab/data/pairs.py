"""Lists pairs of image and label files, and decodes them as a check.

Needs Pillow but not TensorFlow. Images are decoded as TensorFlow decodes them
later: by content, not by file name, and without applying the EXIF orientation.
Every problem is an InputError whose message starts with the file's name.
Nothing else in the suite opens an image: `decode` uses only Pillow's decoders
of JPEG and PNG, and checks the size in the header before it allocates memory.
"""
import contextlib
import io
import os
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple
import zlib

from PIL import Image
from PIL import JpegImagePlugin
from PIL import PngImagePlugin

from deeplab import constants
from deeplab.config import label_map as label_maps
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.storage import checked_read

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png')

JPEG = 'jpeg'
PNG = 'png'
# First bytes of files.
SIGNATURES = {JPEG: b'\xff\xd8\xff', PNG: b'\x89PNG\r\n\x1a\n'}
# Image.open would try other decoders first, and only warns about large images.
_DECODERS = {JPEG: JpegImagePlugin.JpegImageFile,
             PNG: PngImagePlugin.PngImageFile}
# The last chunk of a PNG file, which is always the same.
_PNG_END = b'\x00\x00\x00\x00IEND\xaeB`\x82'
# Colour types of a PNG header, and the number of samples of a pixel.
_PNG_GRAY = 0
_PNG_PALETTE = 3
_PNG_SAMPLES = {_PNG_GRAY: 1, 2: 3, _PNG_PALETTE: 1, 4: 2, 6: 4}
_READ_BYTES = 2 ** 20
_PNG_COLOR_TYPES = {
    _PNG_GRAY: 'gray', 2: 'RGB', _PNG_PALETTE: 'a palette image',
    4: 'gray with alpha', 6: 'RGB with alpha'}
# Pillow's modes for 16-bit gray.
SIXTEEN_BITS = ('I', 'I;16', 'I;16B', 'I;16L')
_ORIENTATION = 0x0112  # number of the field in EXIF
_TURN = 'turn the image files first, such as by `mogrify -auto-orient`'
_LARGEST_ID = constants.LARGEST_LABEL_ON_DISK


class Pair(NamedTuple):
  """An image file and its label file."""
  # File name of the image without its folder.
  name: str
  image_path: str
  # None: the image has no label.
  label_path: Optional[str]


class ImageFacts(NamedTuple):
  """Properties of a decoded image."""
  format: str  # JPEG or PNG, by content
  # (width, height) in pixels, as stored.
  size: Tuple[int, int]
  # EXIF orientation; 1: viewers show the image as stored.
  orientation: int
  # Smallest and largest value of the upper 8 bits of a 16-bit image; None: it
  # has 8 bits or fewer.
  upper_bits: Optional[Tuple[int, int]]


class PairFacts(NamedTuple):
  """Properties of a decoded pair."""
  image: ImageFacts
  # Pixels of each class; index 0 counts the labels that are no class.
  class_pixels: Tuple[int, ...]


def list_pairs(*, split: str, image_folder: str,
               label_folder: str) -> Tuple[List[Pair], int]:
  """Lists the pairs of two folders by name; opens no file.

  The label of `a.b.jpg` is `a.b.png`. Hidden files and files that are not
  images are ignored. Anything with the name of an image, such as a broken link,
  is listed; check_pair refuses it.

  Args:
    split: 'train' or 'val', for messages that name the options.
    image_folder: folder with *.jpg, *.jpeg and *.png in any letter case.
    label_folder: folder with *.png.

  Returns:
    (pairs, ignored): a list of Pair sorted by name, and the number of files
    in the image folder that are not images.

  Raises:
    InputError: a folder is missing, holds no image, or is the full ADE20K; or
      no image has a label.
  """
  images_given = option(split + '_image_folder', image_folder)
  labels_given = option(split + '_label_folder', label_folder)
  found = _files(image_folder, images_given)
  labels = {os.path.splitext(name)[0]: os.path.join(label_folder, name)
            for name in _files(label_folder, labels_given)
            if name.lower().endswith('.png')}
  # If they were the same, each PNG would be its own label.
  if os.path.samefile(image_folder, label_folder):
    raise InputError(
        '{}: the labels are expected in another folder', images_given)
  images = [name for name in found if has_image_name(name)]
  if not images:
    inner = sorted(entry.name for entry in os.scandir(image_folder)
                   if entry.is_dir() and not entry.name.startswith('.'))
    raise InputError(
        'no *.jpg, *.jpeg or *.png in {} ({} other files{})', images_given,
        len(found), '; folders inside it are not searched: ' + some_of(inner)
        if inner else '')
  pairs = [Pair(name, os.path.join(image_folder, name),
                labels.get(os.path.splitext(name)[0])) for name in images]
  if not any(pair.label_path for pair in pairs):
    raise InputError(
        '{}: no label has the name of an image; expected {} for {}, found {}',
        labels_given, os.path.splitext(images[0])[0] + '.png', images[0],
        some_of(sorted(map(os.path.basename, labels.values()))) or 'no *.png')
  return pairs, len(found) - len(images)


def _files(folder, given):
  """Returns visible_files, or refuses a folder."""
  if not os.path.isdir(folder):
    raise InputError('{}: no such folder (./download_and_convert_ade20k.sh '
                     'gets ADE20K)', given)
  names = visible_files(folder)
  for name in names:
    if name.endswith('_seg.png'):
      raise InputError(
          '{} holds {}: this is the full ADE20K; use ADEChallengeData2016, '
          'which ./download_and_convert_ade20k.sh gets', given, name)
  return names


def visible_files(folder: str) -> List[str]:
  """Returns the visible files and image names in a folder, sorted."""
  return sorted(entry.name for entry in os.scandir(folder)
                if not entry.name.startswith('.') and (
                    entry.is_file() or has_image_name(entry.name)))


def has_image_name(name: str) -> bool:
  """Returns whether a file name has an image's extension."""
  return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def check_pair(pair: Pair, *, image_format: Optional[str] = None,
               palette_labels: bool = False,
               label_map: label_maps.LabelMap = label_maps.ADE20K
               ) -> PairFacts:
  """Decodes an image and its label completely.

  Args:
    pair: a Pair.
    image_format: the format to accept, 'jpeg' or 'png'; None: both.
    palette_labels: use the indices of a palette label as class ids.
    label_map: maps ids to classes.

  Raises:
    InputError: the pair cannot be used; the message starts with a file name.
  """
  if pair.label_path is None:
    raise InputError('{}: no label {}.png'.format(
        pair.name, os.path.splitext(pair.name)[0]))
  image = image_facts(read_file(pair.image_path), pair.name)
  if image_format and image.format != image_format:
    raise InputError('{} is a {}; expected {} by {}', pair.name,
                     image.format.upper(), image_format.upper(),
                     option('image_format'))
  label = decode_label(
      read_file(pair.label_path), os.path.basename(pair.label_path),
      palette_labels, label_map.largest_id)
  check_sizes(pair.name, image.size, label.size, image.orientation)
  return PairFacts(image, label_map.counts(label.histogram()))


def read_file(path: str) -> bytes:
  """Returns the bytes of an image file.

  Raises:
    InputError: there is no file, or it is larger than any image.
  """
  return checked_read.read(path, os.path.basename(path), 'an image')


def check_sizes(name: str, image_size: Tuple[int, int],
                label_size: Tuple[int, int], orientation: int = 1) -> None:
  """Raises InputError if the sizes of an image and its label differ.

  Sizes are (width, height) as stored; the orientation is the image's in EXIF.
  """
  if image_size != label_size:
    raise InputError('{}: image {}x{}, label {}x{}{}'.format(
        os.path.splitext(name)[0], *image_size, *label_size,
        '; {} has EXIF orientation {} and is stored unturned; {}'.format(
            name, orientation, _TURN) if orientation != 1 else ''))


def image_facts(data: bytes, name: str) -> ImageFacts:
  """Decodes an encoded image of any colour type completely.

  Args:
    data: bytes of a JPEG or PNG file.
    name: the file's name, for messages.

  Raises:
    InputError: it is no JPEG or PNG, is damaged, or has too many pixels.
  """
  image = decode(data, name)
  image_format = PNG if data.startswith(SIGNATURES[PNG]) else JPEG
  upper_bits = None
  if image_format == PNG and _png_type(data)[0] == 16:
    extrema: Any = image.getextrema()
    # Pillow keeps 16 bits of gray, and the upper 8 of other colour types.
    upper_bits = (extrema[0] >> 8, extrema[1] >> 8) if (
        image.mode in SIXTEEN_BITS) else (
            min(map(min, extrema)), max(map(max, extrema)))
  return ImageFacts(image_format, image.size, orientation_of(image), upper_bits)


def orientation_of(image: Image.Image) -> int:
  """Returns the EXIF orientation; 1: viewers do not turn the image."""
  # EXIF may hold any bytes; Pillow raises errors of several classes.
  with contextlib.suppress(Exception):
    return image.getexif().get(_ORIENTATION, 1)
  return 1


def warnings(facts: Mapping[str, ImageFacts], *,
             orientation: bool = True) -> List[str]:
  """Returns warnings about images that are usable but will look different.

  Args:
    facts: ImageFacts by file name.
    orientation: also warn about images that viewers turn.
  """
  found = []
  deep = ['{} ({}..{} of 255)'.format(name, *fact.upper_bits)
          for name, fact in facts.items() if fact.upper_bits]
  if deep:
    found.append(
        '16-bit images ({} of {}): only the upper 8 bits are used, which are '
        '{}; scale them to 8 bits first'.format(
            len(deep), len(facts), some_of(deep)))
  turned = ['{} ({})'.format(name, fact.orientation)
            for name, fact in facts.items() if fact.orientation != 1]
  if turned and orientation:
    found.append(
        'EXIF orientations ({} of {} images) are not applied: {}; a label must '
        'match its image as stored; if it matches the image as viewers show '
        'it, {}'.format(
            len(turned), len(facts), some_of(turned), _TURN))
  return found


def decode(data: bytes, name: str, *, formats: Sequence[str] = (JPEG, PNG),
           wanted: Optional[str] = None) -> Image.Image:
  """Decodes an image completely.

  Args:
    data: bytes of an image file.
    name: the file's name, for messages.
    formats: formats to accept, by content.
    wanted: 'expected ...', for the message about another format.

  Returns:
    A loaded PIL.Image.

  Raises:
    InputError: it has another format, is damaged, or has too many pixels.
  """
  image_format = next((found for found, signature in SIGNATURES.items()
                       if data.startswith(signature)), None)
  if not image_format:
    raise InputError('{}: {}'.format(
        name, 'is neither JPEG nor PNG' if data else 'empty file'))
  if image_format not in formats:
    raise InputError('{} is a {}; {}'.format(
        name, image_format.upper(), wanted or 'expected {}'.format(
            ' or '.join(formats).upper())))
  kind = '{} ({} bytes)'.format(image_format.upper(), len(data))
  # Pillow accepts a PNG without the last chunk; TensorFlow does not.
  if image_format == PNG and _PNG_END not in data:
    raise InputError('{}: truncated {}'.format(name, kind))
  with _explained(name, kind):
    image = _DECODERS[image_format](io.BytesIO(data))
  if image.width * image.height > constants.MAX_PIXELS:
    raise InputError('{}: {} of {}x{} pixels; expected at most {}'.format(
        name, kind, image.width, image.height, constants.MAX_PIXELS))
  with _explained(name, kind):
    if image_format == PNG:
      # verify() checks the PNG chunks' checksums, which load() ignores. An
      # image cannot be loaded after verify().
      _DECODERS[image_format](io.BytesIO(data)).verify()
      _check_png_rows(_DECODERS[image_format](io.BytesIO(data)), data)
    image.load()
  return image


@contextlib.contextmanager
def _explained(name, kind):
  """Turns Pillow's exceptions on bad data into InputError."""
  try:
    yield
  # Pillow's decoders raise exceptions of a dozen classes.
  except Exception as error:
    if 'truncated' in str(error).lower():
      raise InputError('{}: truncated {}'.format(name, kind))
    raise InputError('{}: damaged {}: {}'.format(name, kind, error))


def _check_png_rows(image, data):
  """Raises ValueError if a PNG's compressed data end before its last row.

  Pillow fills missing rows with 0; TensorFlow refuses the image. Interlaced
  images have some more bytes, which are not counted.
  """
  image.load_prepare()
  compressed = b''.join(iter(lambda: image.load_read(_READ_BYTES), b''))
  depth, color_type = _png_type(data)
  row_bits = image.width * depth * _PNG_SAMPLES[color_type]
  wanted = image.height * (1 + -(-row_bits // 8))  # 1 is the row's filter
  # The output is limited because a few bytes can expand to any size.
  rows = zlib.decompressobj().decompress(compressed, wanted)
  if len(rows) < wanted:
    raise ValueError('{} of {} bytes of pixels'.format(len(rows), wanted))


def label_bytes(pair: Pair) -> bytes:
  """Returns a label that check_pair accepted as 8-bit gray PNG."""
  label_path = pair.label_path or ''  # check_pair requires one
  data = read_file(label_path)
  if _png_type(data) == (8, _PNG_GRAY):
    return data
  label = decode_label(data, label_path, True, largest_id=255)
  # These are the indices; convert('L') would give the palette's luma.
  indices = Image.frombytes('L', label.size, label.tobytes())
  out = io.BytesIO()
  indices.save(out, 'PNG')
  return out.getvalue()


def _png_type(data):
  """Returns (bit depth, colour type) from a PNG file's header."""
  # They follow the signature, the chunk's length and type, and the size.
  return data[24], data[25]


def decode_label(
    data: bytes, name: str, palette_labels: bool = False,
    largest_id: int = _LARGEST_ID) -> Image.Image:
  """Decodes a label completely.

  Args:
    data: bytes of a file.
    name: the file's name, for messages.
    palette_labels: use the indices of a palette as class ids.
    largest_id: largest id that it may hold; a label map may use all 8-bit ids.

  Returns:
    A loaded PIL.Image of mode L, or of mode P with palette_labels.

  Raises:
    InputError: it is no 8-bit gray PNG, is damaged, or has a value that is no
      class.
  """
  wanted = 'expected 8-bit gray, ' + (
      '0 = other, 1..{}'.format(largest_id) if largest_id == _LARGEST_ID
      else 'with ids of the label map')
  label = decode(data, name, formats=(PNG,), wanted=wanted)
  depth, color_type = _png_type(data)
  if color_type == _PNG_PALETTE and not palette_labels:
    raise InputError(
        '{} is a palette image; {} ({} takes the indices as class ids)',
        name, wanted, option('palette_labels'))
  if color_type != _PNG_PALETTE and (depth, color_type) != (8, _PNG_GRAY):
    raise InputError('{} is {}{}; {}'.format(
        name, '' if depth == 8 else '{}-bit '.format(depth),
        _PNG_COLOR_TYPES[color_type], wanted))
  values = [value for value, count in enumerate(label.histogram()) if count]
  problem = ''
  if values in ([0, 255], [255]):
    problem = 'only {}: a mask, not class ids'.format(
        ' and '.join(map(str, values)))
  elif values[-1] > largest_id:
    problem = 'label {}'.format(values[-1])
  if problem and largest_id == _LARGEST_ID:
    raise InputError('{} holds {}; {} (other ids: {}, see docs/own_data.md)',
                     name, problem, wanted, option('label_map'))
  return label
