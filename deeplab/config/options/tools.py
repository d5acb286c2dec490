"""Options of overlays, comparisons and inspections."""
from typing import NamedTuple, Optional, Tuple

from deeplab import constants
from deeplab.config.fields import field
from deeplab.config.fields import options
from deeplab.config.fields import required
from deeplab.config.options.common import ALL_THREADS
from deeplab.config.options.common import EXIF_ROTATION
from deeplab.config.options.common import INPUT_SIZE
from deeplab.config.options.common import LARGEST_RESIZE
from deeplab.config.options.common import MODEL
from deeplab.config.options.common import NAMES_OF_CLASSES
from deeplab.config.options.common import seed_field


@options
class OverlayOptions(NamedTuple):
  """Lays predicted labels over pictures of any shape."""
  model: str = MODEL
  pictures: str = required('A picture, or a folder of pictures: JPEG or PNG.')
  output_dir: str = required('Folder for the results; made if missing.')
  opacity: float = field(
      0.6, 'Weight of the colours of classes over the picture.', most=1)
  legend: bool = field(True, 'Put the legend below the picture.')
  save_labels: bool = field(
      False, 'Write class ids too, as a gray PNG of the same size.')
  label_map: Optional[str] = NAMES_OF_CLASSES
  exif_rotation: bool = EXIF_ROTATION
  skip_bad: bool = field(
      False, 'Leave out pictures that cannot be used, instead of refusing them '
      'all.')
  crop_size: Optional[Tuple[int, int]] = INPUT_SIZE
  num_threads: int = ALL_THREADS


@options
class ComparisonOptions(NamedTuple):
  """Compares models on the same images."""
  output_dir: str = required(
      'Folder for the page index.html, its charts and pictures as PNG, and '
      'comparison.json; that of an earlier comparison is replaced.')
  dataset_dir: Optional[str] = field(
      None, 'Folder with TFRecord shards to compare on.')
  split: str = field('val', 'Split of these.', choices=constants.SPLITS)
  test_dir: Optional[str] = field(
      None, 'Or: folder with images and annotations, as '
      'gen_preprocessed_data.py writes it.')
  pictures: Optional[str] = field(
      None, 'Or: a picture or a folder of pictures, without labels.')
  resize_factor: int = field(
      1, 'Resized sides are multiples of this, plus one: 1 as in the app, 16 '
      'as eval.py is documented. Folders of PNG files are as they are.',
      least=1, most=LARGEST_RESIZE)
  label_map: Optional[str] = NAMES_OF_CLASSES
  exif_rotation: bool = EXIF_ROTATION
  max_images: int = field(
      0, 'Number of images to take, the first ones; 0: all.')
  most_different: int = field(
      12, 'Number of images to show: those on which the models differ most.',
      most=200)
  resamples: int = field(
      1000, 'Number of bootstrap samples of images for intervals.', least=10,
      most=10 ** 5)
  seed: int = seed_field(0, 'Seed of the bootstrap.')
  crop_size: Optional[Tuple[int, int]] = INPUT_SIZE
  num_threads: int = ALL_THREADS


@options
class InspectionOptions(NamedTuple):
  """Inspects a model."""
  model: str = MODEL
  other: Optional[str] = field(
      None, 'Another model, to be compared with it tensor by tensor.')
  report_json: Optional[str] = field(None, 'File for all numbers.')
  test_dir: Optional[str] = field(
      None, 'Folder with images, as gen_preprocessed_data.py writes it, on '
      'which the share of clipped values is measured (LiteRT).')
  sample_num: int = field(
      8, 'Number of these images; the first ones are taken.', least=1)
  crop_size: Optional[Tuple[int, int]] = INPUT_SIZE
