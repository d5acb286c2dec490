"""Replicas on several devices and hosts compute what one device computes.

Hosts are servers in this process; each has a thread that runs its session.
"""
import concurrent.futures

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab.config import options as options_lib
from deeplab.distribution import collectives
from deeplab.distribution import hosts as hosts_lib
from deeplab.nets import batch_norm
from deeplab.nets import layers
from deeplab.nets import mobilenet_v2
from deeplab.training import losses
from deeplab.training import step as step_lib
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
# The number of valid pixels differs between replicas; one has almost none.
LABELS[0, :16] = LABELS[1, 4:] = LABELS[2, :, 1:] = LABELS[3, 2:] = 0


def of_all_hosts(build, hosts=1, clones=1):
  """Returns the results of all hosts, in order.

  Args:
    build: function of a SingleHost or MultiHost that builds a graph, and
      returns a function of a session.
    hosts: number of hosts.
    clones: number of replicas on each host.
  """
  addresses = ports.free_addresses(hosts) if hosts > 1 else ()

  def of_host(task):
    with hosts_lib.joined(options_lib.DistributionOptions(
        cluster=addresses, task=task, num_clones=clones)) as host, (
            tf.Graph().as_default()):
      run = build(host)
      with tf.Session(host.target, config=host.config) as session:
        found = run(session)
      host.barrier()
      return found

  with concurrent.futures.ThreadPoolExecutor(hosts) as executor:
    return list(executor.map(of_host, range(hosts)))


def rows_of(host, values):
  rows = len(values) // host.hosts
  return tf.constant(values[host.task * rows:(host.task + 1) * rows])


def steps(model, options):
  """Returns a `build` that gives (losses, variables) after some steps."""
  def build(host):
    step = step_lib.build_step(
        rows_of(host, PICTURES), rows_of(host, LABELS), model, options, host)

    def run(session):
      session.run(tf.global_variables_initializer())
      golden_weights.load(session, tf.model_variables())
      found = [session.run(step.train_op) for _ in range(STEPS)]
      return found, session.run({v.op.name: v for v in tf.global_variables()})

    return run
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
def test_replicas_match_one_device_with_the_whole_batch(
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
    # All hosts have the same weights, to the last bit.
    for name in whole:
      np.testing.assert_array_equal(
          results[0][1][name], results[-1][1][name], err_msg=name)


def test_replicas_are_weighted_by_their_valid_pixels():
  logits = np.zeros([2, 1, 4, 3], np.float32)
  logits[1, ..., 1] = 5
  labels = np.array([[[[1], [0], [0], [0]]], [[[2], [2], [2], [2]]]], np.int32)
  with tf.Graph().as_default(), tf.Session() as session:
    whole = losses.mean([losses.sum_over_pixels(
        tf.constant(logits), tf.constant(labels))])
    halves = losses.mean([losses.sum_over_pixels(
        tf.constant(logits[row:row + 1]), tf.constant(labels[row:row + 1]))
                          for row in range(2)])
    whole, halves = session.run([whole, halves])
  assert halves == pytest.approx(whole, rel=1e-6)
  assert halves == pytest.approx(
      (np.log(3) + 4 * np.log(np.exp(5) + 2)) / 5, rel=1e-6)


@pytest.mark.parametrize('hosts, clones', [(1, 2), (2, 1)])
def test_batch_statistics_are_averaged_over_replicas(hosts, clones):
  """So the moving averages of all hosts are equal."""
  inputs = np.arange(4, dtype=np.float32).reshape([4, 1, 1, 1])
  decay = 0.75

  def build(host):
    replicas = host.replicas()
    rows = rows_of(host, inputs)
    for replica, images in zip(replicas, tf.split(rows, len(replicas))):
      with replica.scope():
        layers._batch_norm(images, batch_norm.BatchNorm(
            decay, 1e-3, is_training=True), replica)
    [(average, change), _] = replicas[0].changes()
    [change] = host.all_reduce_mean([change], instance_key=1)
    moved = tf.assign_sub(average, change)

    def run(session):
      session.run(tf.global_variables_initializer())
      return session.run(moved)

    return run

  for found in of_all_hosts(build, hosts, clones):
    assert found == pytest.approx((1 - decay) * np.mean([0.5, 2.5]))


def test_replicas_share_the_dropout_of_the_whole_batch():
  def draws(host):
    replicas = host.replicas()
    drawn = [replica.random_uniform(
        tf.constant([4 // len(replicas), 3]), tf.constant([5, 6]))
             for replica in replicas]
    return lambda session: session.run(drawn)

  [[whole]] = of_all_hosts(draws)
  assert len(np.unique(whole)) == whole.size
  [halves] = of_all_hosts(draws, clones=2)
  np.testing.assert_array_equal(np.concatenate(halves), whole)


def test_all_reduce_sums_keep_shapes_and_types():
  def build(unused_host):
    sums = []
    for member in range(2):
      with tf.device('/cpu:{}'.format(member)):
        sums.append([collectives.all_reduce_sum(
            [tf.constant(value, dtype) * 10 ** member for value in values],
            members=2, group=collectives.REPLICAS, instance_key=key)
                     for key, (dtype, values) in enumerate((
                         (tf.float32, ([[1.5, 2]], 3.0)),
                         # A float32 cannot represent this.
                         (tf.int64, ([2 ** 55 + 1], [[0]]))), start=1)])
    return lambda session: session.run(sums)

  [[first, second]] = of_all_hosts(build, clones=2)
  for member in first, second:
    (matrix, scalar), (large, zero) = member
    np.testing.assert_array_equal(matrix, np.float32([[16.5, 22]]))
    assert scalar == 33 and scalar.shape == ()
    np.testing.assert_array_equal(large, np.int64([11 * (2 ** 55 + 1)]))
    assert zero.shape == (1, 1)


def test_a_single_replica_adds_nothing_to_the_graph(few_blocks):
  with tf.Graph().as_default() as graph:
    step_lib.build_step(
        tf.constant(PICTURES), tf.constant(LABELS), MODEL, OPTIONS)
  assert not [op.name for op in graph.get_operations()
              if op.device or op.type.startswith('Collective')]
