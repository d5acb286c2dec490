"""One batch in parts, on devices and hosts: what parts compute, the whole does.

Hosts are servers of this process, each with a thread that runs its session.
"""
import concurrent.futures

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab import cluster
from deeplab import collectives
from deeplab import losses
from deeplab import options as options_lib
from deeplab import training
from deeplab.nets import batch_norm
from deeplab.nets import batch_parts
from deeplab.nets import layers
from deeplab.nets import mobilenet_v2
from tests import golden_weights
from tests import ports
from tests import resuming

pytestmark = [pytest.mark.tf1, pytest.mark.modern]

IMAGES = 4
CROP = 33
STEPS = 3
MODEL = options_lib.ModelOptions(
    crop_size=(CROP, CROP), depth_multiplier=0.25, aspp_convs_filters=16)
OPTIONS = options_lib.TrainOptions(
    train_logdir='', fine_tune_batch_norm=False, base_learning_rate=0.05,
    last_layer_gradient_multiplier=3.0, weight_decay=1e-3, seed=3)
RANDOM = np.random.RandomState(5)
PICTURES = RANDOM.uniform(0, 255, [IMAGES, CROP, CROP, 3]).astype(np.float32)
LABELS = RANDOM.randint(1, 32, [IMAGES, CROP, CROP, 1], np.int32)
# Parts have other numbers of pixels that count, one of them nearly none.
LABELS[0, :16] = LABELS[1, 4:] = LABELS[2, :, 1:] = LABELS[3, 2:] = 0


def of_host(split, run, target='', config=None):
  """Calls a function of a session, a graph of its own being the default one."""
  config = config or tf.ConfigProto()
  config.device_count['CPU'] = split.clones
  with tf.Graph().as_default():
    fetches, prepare = run(split)
    with tf.Session(target, config=config) as session:
      return prepare(session, fetches)


def of_all_hosts(run, hosts=1, clones=1):
  """Returns what every host gives, in their order."""
  if hosts == 1:
    return [of_host(batch_parts.Split(clones=clones), run)]
  addresses = ports.free_addresses(hosts)
  configs = [tf.ConfigProto() for _ in addresses]
  servers = []
  for task, config in enumerate(configs):
    config.device_count['CPU'] = clones
    collectives.join(config, task)
    servers.append(cluster._start_server(addresses, task, config))
  with concurrent.futures.ThreadPoolExecutor(hosts) as executor:
    return list(executor.map(
        lambda task: of_host(
            batch_parts.Split(hosts=hosts, host=task, clones=clones), run,
            servers[task].target, configs[task]), range(hosts)))


def rows_of(split, values):
  rows = len(values) // split.hosts
  return tf.constant(values[split.host * rows:(split.host + 1) * rows])


def steps(model, options):
  """Returns a function for of_host: (losses, variables) after some steps."""
  def build(split):
    step = training.build_step(
        rows_of(split, PICTURES), rows_of(split, LABELS), model, options, split)

    def run(session, step):
      session.run(tf.global_variables_initializer())
      golden_weights.load(session, tf.model_variables())
      found = [session.run(step.train_op) for _ in range(STEPS)]
      return found, session.run({v.op.name: v for v in tf.global_variables()})

    return step, run
  return build


@pytest.fixture
def few_blocks(monkeypatch):
  monkeypatch.setattr(mobilenet_v2, 'BLOCKS', resuming.BLOCKS)


@pytest.mark.parametrize('model, options, splits', [
    pytest.param(MODEL, OPTIONS._replace(
        label_weights=(0.5,), fused_step=True), ((1, 2), (2, 1)),
                 marks=pytest.mark.slow, id='float'),
    pytest.param(MODEL._replace(
        quantize_delay_step=0, fake_quant=options_lib.LAYERS), OPTIONS,
                 ((2, 2),), marks=pytest.mark.extended, id='qat'),
])  # splits: pairs of hosts and clones
def test_parts_compute_what_the_whole_batch_does(
    model, options, splits, few_blocks):
  [(whole_losses, whole)] = of_all_hosts(steps(model, options))
  assert len(set(whole_losses)) == STEPS
  for hosts, clones in splits:
    results = of_all_hosts(steps(model, options), hosts, clones)
    for found, variables in results:
      np.testing.assert_allclose(found, whole_losses, rtol=1e-5)
      assert set(variables) == set(whole)
      for name, expected in whole.items():
        np.testing.assert_allclose(
            variables[name], expected, rtol=0, err_msg=name,
            atol=1e-5 * max(1, np.abs(expected).max()))
    # All hosts go on from the same weights, to the last bit.
    for name in whole:
      np.testing.assert_array_equal(
          results[0][1][name], results[-1][1][name], err_msg=name)


def test_a_part_with_few_pixels_has_little_weight():
  logits = np.zeros([2, 1, 4, 3], np.float32)
  logits[1, ..., 1] = 5
  labels = np.array([[[[1], [0], [0], [0]]], [[[2], [2], [2], [2]]]], np.int32)
  with tf.Graph().as_default(), tf.Session() as session:
    whole = losses.softmax_cross_entropy(
        tf.constant(logits), tf.constant(labels))
    halves = losses.mean([losses.sum_over_pixels(
        tf.constant(logits[row:row + 1]), tf.constant(labels[row:row + 1]))
                          for row in range(2)])
    whole, halves = session.run([whole, halves])
  assert halves == pytest.approx(whole, rel=1e-6)
  assert halves == pytest.approx(
      (np.log(3) + 4 * np.log(np.exp(5) + 2)) / 5, rel=1e-6)


@pytest.mark.parametrize('hosts, clones', [(1, 2), (2, 1)])
def test_statistics_of_a_batch_are_the_mean_of_its_parts(hosts, clones):
  """And so the moving averages of all hosts are the same."""
  inputs = np.arange(4, dtype=np.float32).reshape([4, 1, 1, 1])
  decay = 0.75

  def build(split):
    together = batch_parts.Parts(split)
    for part, images in zip(together, together.of(rows_of(split, inputs))):
      with part.scope():
        layers._batch_norm(images, batch_norm.BatchNorm(
            decay, 1e-3, is_training=True, part=part))
    [(average, change), _] = together.changes_of_host()
    [change] = split.over_hosts([change], exchange=1)
    moved = tf.assign_sub(average, change)

    def run(session, moved):
      session.run(tf.global_variables_initializer())
      return session.run(moved)

    return moved, run

  for found in of_all_hosts(build, hosts, clones):
    assert found == pytest.approx((1 - decay) * np.mean([0.5, 2.5]))


def test_dropout_draws_for_the_whole_batch():
  seed = tf.constant

  def draws(split):
    together = batch_parts.Parts(split)
    return [part.draws(tf.constant([4 // split.parts, 3]), seed([5, 6]))
            for part in together], lambda session, draws: session.run(draws)

  [[whole]] = of_all_hosts(draws)
  assert len(np.unique(whole)) == whole.size
  [halves] = of_all_hosts(draws, clones=2)
  np.testing.assert_array_equal(np.concatenate(halves), whole)


def test_sums_have_all_members_and_keep_shapes_and_types():
  def build(split):
    sums = []
    for member in range(2):
      with tf.device('/cpu:{}'.format(member)):
        sums.append([collectives.sums(
            [tf.constant(value, dtype) * 10 ** member for value in values],
            members=2, group=collectives.PARTS, exchange=exchange)
                     for exchange, (dtype, values) in enumerate((
                         (tf.float32, ([[1.5, 2]], 3.0)),
                         # Beyond what a float32 holds.
                         (tf.int64, ([2 ** 55 + 1], [[0]]))), start=1)])
    return sums, lambda session, sums: session.run(sums)

  [[first, second]] = of_all_hosts(build, clones=2)
  for member in first, second:
    (matrix, scalar), (large, zero) = member
    np.testing.assert_array_equal(matrix, np.float32([[16.5, 22]]))
    assert scalar == 33 and scalar.shape == ()
    np.testing.assert_array_equal(large, np.int64([11 * (2 ** 55 + 1)]))
    assert zero.shape == (1, 1)


def test_an_only_part_leaves_the_graph_as_it_is(few_blocks):
  with tf.Graph().as_default() as graph:
    training.build_step(
        tf.constant(PICTURES), tf.constant(LABELS), MODEL, OPTIONS)
  assert not [op.name for op in graph.get_operations()
              if op.device or op.type.startswith('Collective')]
