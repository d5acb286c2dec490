"""Options of training, on one host or many."""
from typing import NamedTuple, Optional, Tuple

from deeplab import errors
from deeplab.config.fields import field
from deeplab.config.fields import options
from deeplab.config.fields import required
from deeplab.config.options.common import ADDRESS
from deeplab.config.options.common import MOST_WORKERS
from deeplab.config.options.common import STRICT_CHECKPOINT
from deeplab.config.options.common import TRAINING_SEED
from deeplab.config.options.common import expect
from deeplab.config.options.common import given
from deeplab.config.options.model import ModelOptions


@options
class TrainOptions(NamedTuple):
  """Options for optimization, initialization and outputs of a training run."""
  train_logdir: str = required(
      'Folder for checkpoints and summaries.', in_utf8=True, remote=True)
  training_number_of_steps: int = field(
      30000, 'Global step to stop at.', least=1)
  tf_initial_checkpoint: Optional[str] = field(
      None, 'Checkpoint to start from: a prefix, any of its files, or a '
      'folder; none: from scratch.', in_utf8=True, remote=True)
  strict_checkpoint: bool = STRICT_CHECKPOINT
  initialize_last_layer: bool = field(
      True, 'Restore the last layers from that checkpoint too.')
  last_layers_contain_logits_only: bool = field(
      False, 'Treat only the logits as last layers.')
  last_layer_gradient_multiplier: float = field(
      1.0, 'Factor of the gradients of the last layers.')
  optimizer: str = field(
      'momentum', 'Which optimizer.', choices=('momentum', 'adam'))
  momentum: float = field(0.9, 'Momentum.', below=1)
  adam_learning_rate: float = field(
      0.001, 'Constant learning rate of Adam; the policy is for momentum.')
  adam_epsilon: float = field(1e-8, 'Epsilon of Adam.', above=0)
  learning_policy: str = field(
      'poly', 'Schedule of the learning rate of momentum.',
      choices=('poly', 'step'))
  base_learning_rate: float = field(1e-4, 'First learning rate of momentum.')
  end_learning_rate: float = field(
      0.0, 'Last learning rate of the poly policy.')
  learning_power: float = field(0.9, 'Power of the poly policy.')
  decay_steps: float = field(0.0, 'Steps of the poly policy; 0: the whole run.')
  learning_rate_decay_step: int = field(
      2000, 'Steps of the step policy between two multiplications by its '
      'factor.', least=1)
  learning_rate_decay_factor: float = field(0.1, 'Factor of the step policy.')
  slow_start_step: int = field(
      0, 'Steps with the learning rate of the slow start.')
  slow_start_learning_rate: float = field(
      1e-4, 'Learning rate of the slow start.')
  weight_decay: float = field(
      4e-5, 'Factor of the L2 regularization of convolutions that are not '
      'depthwise.')
  fine_tune_batch_norm: bool = field(True, 'Run batch norm in training mode.')
  label_weights: Tuple[float, ...] = field(
      (), 'Loss weight of all classes; or one weight per class.')
  fused_step: Optional[bool] = field(
      None, 'Compute a step in fewer passes: fold frozen batch norm into the '
      'weights, and compute loss and gradient together. Results differ only by '
      'rounding. Not given: only with TensorFlow 2, and not with '
      'mixed_precision.')
  mixed_precision: bool = field(
      False, 'Compute in 16 bits on a GPU, in operations that permit it.')
  log_steps: int = field(50, 'Steps between two lines of the log.', least=1)
  save_interval_secs: int = field(1200, 'Seconds between checkpoints.')
  max_checkpoints_to_keep: int = field(
      5, 'Checkpoints that a run keeps; it removes older ones of its own.',
      least=1, most=1000)
  save_summaries_secs: int = field(600, 'Seconds between summaries.')
  save_summaries_images: bool = field(
      False, 'Put input, label and prediction into the summaries.')
  save_predictions_steps: int = field(
      0, 'Steps between pictures of images, labels and predictions side by '
      'side, for TensorBoard; 0: none.')
  profile_logdir: Optional[str] = field(
      None, 'Folder for timelines of a few steps; none: no profile.')
  seed: Optional[int] = TRAINING_SEED

  def check_with(self, model: ModelOptions, *, batch_size: int,
                 replicas: int = 1) -> None:
    """Raises InputError if model or batch do not fit these options.

    Args:
      model: the network to train.
      batch_size: images in a batch, over all replicas.
      replicas: number of replicas of all hosts.
    """
    given = errors.option('batch_size', batch_size)
    expect(batch_size % replicas == 0,
            '{}: expected a multiple of {}, the number of clones of all hosts',
            given, replicas)
    # Quantization from step 0 freezes batch norm for the whole run.
    trains_batch_norm = (
        self.fine_tune_batch_norm and model.quantize_delay_step != 0)
    expect(not trains_batch_norm or batch_size >= 2 * replicas,
            '{}: expected at least {} with {} ({} or more is advised): at one '
            'image the pooled branch has a variance of 0 and the loss becomes '
            'NaN', given, 2 * replicas,
            errors.option('fine_tune_batch_norm', True), 12 * replicas)
    weights = self.label_weights
    expect(len(weights) in (0, 1, model.num_classes),
            '{}: {} weights, expected one, or one for each of the {} classes',
            errors.option('label_weights', weights), len(weights),
            model.num_classes)


@options
class DistributionOptions(NamedTuple):
  """Devices and hosts of a training run."""
  num_clones: int = field(
      1, 'Replicas on this host, each with a shard of the batch and its own '
      'GPU; without a GPU, they share the processor.', least=1, most=64)
  cluster: Tuple[str, ...] = field(
      (), 'HOST:PORT of every host that trains, the same list on all hosts; '
      'none: only this host.')
  task: int = field(
      0, 'Index of this host in the cluster, from 0; task 0 saves.',
      most=MOST_WORKERS)

  @property
  def replicas(self) -> int:
    """Number of replicas of all hosts."""
    return self.num_clones * max(1, len(self.cluster))

  def _check(self):
    cluster, task = given(self, 'cluster', 'task')
    for address in self.cluster:
      expect(ADDRESS.match(address) and
              int(address.rpartition(':')[2]) <= 65535,
              '{}: expected HOST:PORT of each host, got "{}"', cluster, address)
      expect(self.cluster.count(address) == 1, '{}: {} is there twice',
              cluster, address)
    if self.cluster:
      expect(self.task < len(self.cluster),
              '{}: expected 0 to {}, as {} has {} hosts', task,
              len(self.cluster) - 1, errors.option('cluster'),
              len(self.cluster))
    else:
      expect(self.task == 0, '{}: expected 0 without {}', task,
              errors.option('cluster'))


@options
class LaunchOptions(NamedTuple):
  """Starts several tasks on this machine."""
  hosts: int = field(
      2, 'Number of processes; each acts as one host.', least=1, most=64)
