"""Options of evaluation."""
from typing import NamedTuple, Optional

from deeplab import errors
from deeplab.config.fields import field
from deeplab.config.fields import options
from deeplab.config.fields import required
from deeplab.config.options.common import INPUT_NODE
from deeplab.config.options.common import NUM_THREADS
from deeplab.config.options.common import OUTPUT_NODE
from deeplab.config.options.common import STRICT_CHECKPOINT
from deeplab.config.options.common import TEST_DIR
from deeplab.config.options.common import VAL_LABEL_DIR
from deeplab.config.options.common import expect
from deeplab.config.options.common import given
from deeplab.config.options.common import workers_field


@options
class EvalOptions(NamedTuple):
  """Outputs of an evaluation."""
  eval_logdir: Optional[str] = field(
      None, 'Folder for TensorBoard events.', remote=True)
  report_json: Optional[str] = field(
      None, 'File for the report: scores, confusion matrix, circumstances.',
      remote=True)
  vis_dir: Optional[str] = field(
      None, 'Folder for a picture of images, labels and predictions.')
  # The picture is made in memory.
  vis_images: int = field(
      8, 'Number of images on that picture.', least=1, most=1000)


@options
class CheckpointEvalOptions(NamedTuple):
  """Checkpoints to evaluate, and the times between evaluations."""
  checkpoint_dir: str = required(
      'Folder to watch for checkpoints; or one checkpoint.', in_utf8=True,
      remote=True)
  interval_secs: int = field(
      300, 'Least number of seconds between two evaluations.')
  max_evaluations: int = field(0, 'Evaluations to stop after; 0: never.')
  timeout_secs: Optional[int] = field(
      None, 'Seconds without a new checkpoint to stop after; none: never.')
  reevaluate: bool = field(
      False, 'Evaluate a checkpoint again if it was evaluated into the same '
      'folder of events with the same options, instead of reusing its report. '
      'A single checkpoint, not a folder, is always evaluated.')
  keep_best: bool = field(
      False, 'Copy the checkpoint with the highest mIoU so far and its report '
      'to the subfolder `best` of the watched folder.')
  strict_checkpoint: bool = STRICT_CHECKPOINT


@options
class GraphEvalOptions(NamedTuple):
  """Exported graph to evaluate."""
  path: str = required(
      'Frozen graph to evaluate; or a SavedModel, which is a folder; or an '
      'ONNX file.')
  input_node: str = INPUT_NODE
  output_node: str = OUTPUT_NODE


@options
class TfliteEvalOptions(NamedTuple):
  """TFLite file to evaluate, its images and its interpreters."""
  net_file: str = required('TFLite file to evaluate.')
  test_dir: str = TEST_DIR
  val_label_dir: Optional[str] = VAL_LABEL_DIR
  is_float_input: Optional[bool] = field(
      None, 'Whether the input should be float; a file with another input is '
      'refused. Not given: either.')
  is_input_0_255: Optional[bool] = field(
      None, 'Range of the input. A float input gets [-1, 1] unless this is '
      'true; a quantized one always gets pixels of 0 to 255.')
  num_threads: int = NUM_THREADS
  num_workers: int = workers_field('Processes with an interpreter each')
  num_shards: int = field(
      1, 'Number of shards of the images; each is evaluated by its own run, '
      'on any machine.', least=1)
  shard_index: Optional[int] = field(
      None, 'Index of the shard that this run evaluates, from 0.')

  def _check(self):
    shards, index = given(self, 'num_shards', 'shard_index')
    if self.shard_index is None:
      expect(self.num_shards == 1, '{}: which of them is this run? Add {}',
              shards, errors.option('shard_index', 0))
    else:
      expect(self.shard_index < self.num_shards, '{}: expected less than {}',
              index, shards)


@options
class MergeOptions(NamedTuple):
  """Merges the reports of shards."""
  report_json: str = required(
      'File for the report of all shards together.', remote=True)
