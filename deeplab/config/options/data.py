"""Options of records and folders of images."""
from typing import NamedTuple, Optional

from deeplab import constants
from deeplab import errors
from deeplab.config.fields import check_local
from deeplab.config.fields import field
from deeplab.config.fields import options
from deeplab.config.fields import required
from deeplab.config.options.common import LARGEST_SIDE
from deeplab.config.options.common import TRAINING_SEED
from deeplab.config.options.common import label_map_field
from deeplab.config.options.common import seed_field
from deeplab.config.options.common import workers_field

# Naming schemes of preprocessed images.
NUMBERED = 'numbered'
MLPERF_APP = 'mlperf_app'
# Treatment of a record that cannot be used.
FAIL = 'fail'
SKIP = 'skip'


@options
class DatasetOptions(NamedTuple):
  """Records to read, and their batches."""
  dataset_dir: str = required('Folder with the TFRecord shards.', remote=True)
  split: str = required('Split to read.', choices=constants.SPLITS)
  batch_size: int = field(1, 'Images in a batch.', least=1, most=4096)
  seed: Optional[int] = TRAINING_SEED
  verify_records: bool = field(
      False, 'Verify the checksums of the shards, and decode every record, '
      'before any is used.')
  on_bad_record: str = field(
      FAIL, 'Treatment of records that cannot be used: fail names the record; '
      'skip leaves them out and logs their number. With skip, all records are '
      'decoded once before any is used.', choices=(FAIL, SKIP))
  label_map: Optional[str] = label_map_field(
      'the map of the records, or else of the trained network, or else '
      "ADE20K's first 31 ids.")


@options
class BuildOptions(NamedTuple):
  """Builds the shards of one split from folders of images and labels."""
  split: str = required('Split to write.', choices=constants.SPLITS)
  # Checked below, under the names that include the split.
  image_folder: str = required('Folder with the images.', remote=True)
  label_folder: str = required('Folder with their labels.', remote=True)
  output_dir: str = required(
      'Folder for the TFRecord shards; made if missing.', remote=True)
  image_format: Optional[str] = field(
      None, 'Refuse images of another format. Not given: accept all.',
      choices=('jpg', 'jpeg', 'png'))
  palette_labels: bool = field(
      False, 'Take the indices of palette labels as class ids.')
  label_map: Optional[str] = label_map_field("ADE20K's first 31 ids.")
  skip_bad: bool = field(
      False, 'Leave out pairs that cannot be used, instead of refusing them '
      'all.')
  shuffle_seed: int = seed_field(
      0, 'Seed of the order in which pairs are stored.')
  num_workers: int = workers_field('Threads that check pairs')

  def _check(self):
    for name in ('image_folder', 'label_folder'):
      path = getattr(self, name)
      check_local(errors.option('{}_{}'.format(self.split, name), path), path)


@options
class PreprocessedOptions(NamedTuple):
  """Writes preprocessed images and annotations of records to a folder."""
  output_dir: str = required(
      'Folder in which images/ and annotations/ are made.')
  image_list: Optional[str] = field(
      None, 'File with the names of the only images to take, one a line, such '
      'as checkpoints/post_train_quant/ptq.txt; img_N is the one on line N, '
      'counted from 0.')
  layout: str = field(
      NUMBERED, 'Names of the files: numbered for img_7.png, as in the '
      'reference; mlperf_app for img_00000007.png. The MLPerf Mobile app pairs '
      'images and labels by their sorted paths.',
      choices=(NUMBERED, MLPERF_APP))
  manifest: Optional[str] = field(
      None, 'File for another copy of manifest.json, which maps each img_N to '
      'an image of the data set.')
  overwrite: bool = field(
      False, 'Replace the images that an earlier run wrote there.')
  num_workers: int = workers_field('Threads that write images')


@options
class SyntheticOptions(NamedTuple):
  """A painted data set."""
  output_dir: str = field(
      './synthetic', 'Folder in which ADEChallengeData2016 is made.')
  train_images: int = field(40, 'Number of training pairs.', least=1)
  val_images: int = field(8, 'Number of validation pairs.', least=1)
  long_side: int = field(
      320, 'Longer side of the images, in pixels.', least=64,
      most=LARGEST_SIDE)
  seed: int = seed_field(0, 'Seed; the same seed makes the same pictures.')
