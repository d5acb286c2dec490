"""Options of LoadGen, its log, and the reproduction."""
from typing import NamedTuple, Optional

from deeplab import errors
from deeplab.config.fields import field
from deeplab.config.fields import options
from deeplab.config.fields import required
from deeplab.config.options.common import LARGEST_LOADGEN_SEED
from deeplab.config.options.common import NUM_THREADS
from deeplab.config.options.common import TEST_DIR
from deeplab.config.options.common import VAL_LABEL_DIR
from deeplab.config.options.common import expect
from deeplab.config.options.common import given
from deeplab.config.options.common import loadgen_seed_field

# LoadGen's scenarios, numbers of queries, and runs.
SINGLE_STREAM = 'SingleStream'
OFFLINE = 'Offline'
QUICK = 'quick'
FULL = 'full'
BOTH = 'both'
PERFORMANCE = 'performance'
ACCURACY = 'accuracy'
# MLPerf Mobile's target for DeepLabv3+: 97 % of the float model's mIoU in the
# app.
DEEPLAB_QUALITY_TARGET = 0.97 * 0.548
# Environments to reproduce the published numbers in.
TENSORFLOW_1_2 = 'tf'
MODERN = 'modern'


@options
class LoadgenOptions(NamedTuple):
  """Model, images and rules of LoadGen's runs."""
  model: str = required(
      'Model to run: a TFLite file, a frozen graph or a checkpoint.')
  output_dir: str = required(
      "Folder for LoadGen's logs and the summary; new, or empty.")
  test_dir: str = TEST_DIR
  val_label_dir: Optional[str] = VAL_LABEL_DIR
  scenario: str = field(
      SINGLE_STREAM, 'How queries are issued: SingleStream, one after the '
      'other, as MLPerf Mobile has it for this model; Offline, all at once.',
      choices=(SINGLE_STREAM, OFFLINE))
  mode: str = field(
      FULL, 'full: at least 1024 queries and 60 s, as the rules have it; '
      'quick: 128 queries and 10 s.', choices=(QUICK, FULL))
  run: str = field(
      BOTH, 'The runs to make; a result needs both.',
      choices=(BOTH, PERFORMANCE, ACCURACY))
  test01: bool = field(
      False, 'Make another performance run that logs some responses, and '
      'compare all their bytes with the accuracy run.')
  quality_target: float = field(
      DEEPLAB_QUALITY_TARGET, 'Least "mIoU, app" of the accuracy run. The '
      'default is that of DeepLabv3+: 97 % of 0.548; MOSAIC has 96 % of 0.598.',
      above=0, most=1)
  num_threads: int = NUM_THREADS
  samples_in_memory: int = field(
      256, 'Images that LoadGen loads at a time; the rules require 256.',
      least=1)
  qsl_rng_seed: int = loadgen_seed_field(
      2085463073848966840, 'Seed of the choice of images to load')
  sample_index_rng_seed: int = loadgen_seed_field(
      2747215439041700203, 'Seed of the order of queries')
  schedule_rng_seed: int = loadgen_seed_field(
      16159082839903944936, 'Seed of the times of queries')
  accuracy_log_rng_seed: int = field(
      1, 'Seed of the choice of responses to log for the comparison.',
      most=LARGEST_LOADGEN_SEED)
  min_queries: Optional[int] = field(
      None, "Least number of queries; none: the mode's.", least=1)
  min_seconds: Optional[float] = field(
      None, "Least duration in seconds; none: the mode's.", above=0)

  def _check(self):
    expect(not self.test01 or self.run == BOTH,
            '{}: expected {}, as it compares the two',
            errors.option('run', self.run), errors.option('run', BOTH))


@options
class ReproduceOptions(NamedTuple):
  """Reproduces the published numbers from downloads."""
  output_dir: str = field(
      './reproduced', 'Folder for downloads, records, models, reports and '
      'RESULTS.md. The same command resumes an interrupted run.')
  environment: str = field(
      TENSORFLOW_1_2, 'tf: TensorFlow 1.15 and 2.2, which the published '
      'numbers were made with; modern: 2.21.', choices=(TENSORFLOW_1_2, MODERN))
  zip: Optional[str] = field(
      None, 'Copy of ADEChallengeData2016.zip, instead of a download.')
  sample: Optional[str] = field(
      None, 'Folder with images/ and annotations/, training/ and validation/ '
      'in each: a few pairs, instead of ADE20K.')
  published: Optional[str] = field(
      None, 'Folder of the published files, as scripts/fetch_checkpoints.sh '
      'makes it. With a sample, its files are used unchanged; otherwise it is '
      'completed and verified.')

  def _check(self):
    expect(not (self.zip and self.sample), '{} and {}: expected one of them',
            *given(self, 'zip', 'sample'))


@options
class AccuracyLogOptions(NamedTuple):
  """A log of LoadGen or of the MLPerf Mobile app, and its images."""
  accuracy_log: str = required('The mlperf_log_accuracy.json to score.')
  test_dir: str = TEST_DIR
  val_label_dir: Optional[str] = VAL_LABEL_DIR
