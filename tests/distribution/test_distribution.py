"""Tests options, joining, heartbeat, launcher and end of distributed runs."""
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import tensorflow.compat.v1 as tf

from deeplab.config import options as options_lib
from deeplab.data import dataset
from deeplab.distribution import heartbeat
from deeplab.distribution import hosts as hosts_lib
from deeplab.distribution import launch_local
from deeplab.errors import InputError
from deeplab.system import signals
from deeplab.training import train as train_lib
from tests import ports
from tests import readme
from tests import resuming
from tests import scripts

TWO = ('127.0.0.1:4711', '127.0.0.1:4712')


# --- Refusals --------------------------------------------------------------


@pytest.mark.parametrize('given, words', [
    ({'cluster': ('a:1', 'b:2'), 'task': 2},
     'task=2: expected 0 to 1, as cluster has 2 hosts'),
    ({'task': 1}, 'task=1: expected 0 without cluster'),
    ({'cluster': ('a:1', 'b')},
     'cluster=a:1,b: expected HOST:PORT of each host, got "b"'),
    ({'cluster': ('a:70000',)}, 'HOST:PORT of each host, got "a:70000"'),
    ({'cluster': ('a:1', 'a:1')}, 'cluster=a:1,a:1: a:1 is there twice'),
    ({'num_clones': 0}, 'num_clones=0: expected a whole number from 1 to 64'),
], ids=str)
def test_invalid_clusters_are_refused(given, words):
  with pytest.raises(InputError) as error:
    options_lib.DistributionOptions(**given)
  assert words in str(error.value)


def test_ipv6_addresses_are_accepted():
  given = options_lib.DistributionOptions(
      cluster=('[::1]:4711', 'host-2.local:1'), num_clones=3)
  assert given.replicas == 6


@pytest.mark.tf1
def test_contrib_quantization_with_replicas_is_refused(tmp_path):
  with pytest.raises(InputError, match='quantize_delay_step=0: the rewrite .*'
                     'add fake_quant=layers'):
    train_lib.train(
        dataset_options=options_lib.DatasetOptions('d', 'train', batch_size=4),
        preprocess_options=options_lib.PreprocessOptions(),
        model_options=options_lib.ModelOptions(quantize_delay_step=0),
        options=options_lib.TrainOptions(str(tmp_path / 'log')),
        distribution_options=options_lib.DistributionOptions(num_clones=2))
  assert not (tmp_path / 'log').exists()


def test_a_port_in_use_is_named():
  with socket.socket() as taken:
    taken.bind(('', 0))
    taken.listen(1)
    port = taken.getsockname()[1]
    given = options_lib.DistributionOptions(
        cluster=('127.0.0.1:{}'.format(port), '127.0.0.1:1'))
    with pytest.raises(InputError, match='cluster=.*: port {} of task 0 cannot '
                       'be used here .Address already in use'.format(port)):
      with hosts_lib.joined(given):
        pass


def test_tasks_that_do_not_start_are_named(monkeypatch):
  monkeypatch.setattr(hosts_lib, '_JOIN_SECS', 0.1)
  addresses = ports.free_addresses(2)
  with pytest.raises(InputError, match='{}. did not start within'.format(
      re.escape('task 1 (' + addresses[1]))):
    with hosts_lib.joined(
        options_lib.DistributionOptions(cluster=addresses)):
      pass


def test_a_port_of_another_service_is_refused():
  server = Server(b'SSH-2.0-OpenSSH_9\r\n')
  own, = ports.free_addresses(1)
  with pytest.raises(InputError, match='another service than train.py answers '
                     'at task 1 .{}.; expected'.format(server.address)):
    with hosts_lib.joined(options_lib.DistributionOptions(
        cluster=(own, server.address))):
      pass
  server.close()


@pytest.mark.modern
@pytest.mark.tf1
def test_tasks_with_other_options_are_named():
  """Both servers run in this process, and find the same mismatch."""
  addresses = ports.free_addresses(2)

  def join(task):
    with hosts_lib.joined(options_lib.DistributionOptions(
        cluster=addresses, task=task, num_clones=1 + task)) as joined:
      assert joined.broadcast_from_chief(40 + task) == 40
      joined.check_same_on_all_hosts('options', ['same'])
      try:
        train_lib._check_all_hosts(joined, options_lib.ModelOptions(), {})
      except InputError as error:
        said.append(str(error))
      joined.barrier()

  said = []
  threads = [threading.Thread(target=join, args=(task,)) for task in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert said == ['task 1 ({}) has other num_clones than task 0; expected the '
                  'same in all tasks'.format(addresses[1])] * 2


def test_hosts_compare_options_of_a_step_but_not_folders():
  fields = {name for cls in (
      options_lib.DatasetOptions, options_lib.PreprocessOptions,
      options_lib.TrainOptions) for name in cls._fields}
  assert set(train_lib._OF_ONE_TASK) < fields
  assert not {'seed', 'batch_size', 'base_learning_rate', 'crop_size',
              'training_number_of_steps'} & set(train_lib._OF_ONE_TASK)


# --- Sharing data ----------------------------------------------------------


@pytest.mark.tf1
@pytest.mark.modern
@pytest.mark.slow
def test_hosts_share_the_batches_of_a_single_run(tmp_path):
  """Their batches are disjoint, complete and in order, also after a resume."""
  resuming.make_records(str(tmp_path))
  options = options_lib.DatasetOptions(
      str(tmp_path), 'train', batch_size=4, seed=3)

  def names(share, before):
    with tf.Graph().as_default(), tf.Session() as session:
      batch = dataset.training_batches(
          options, options_lib.PreprocessOptions(crop_size=(33, 33)), before,
          share)
      session.run(tf.tables_initializer())
      batches = [session.run([batch['filename'], batch['image']])
                 for _ in range(4)]
      return [[(name, image.sum()) for name, image in zip(*both)]
              for both in batches]

  whole = names((0, 1), before=3)
  halves = [names((host, 2), before=3) for host in range(2)]
  assert [one + two for one, two in zip(*halves)] == whole


# --- Heartbeat -------------------------------------------------------------


@pytest.fixture
def quick_heartbeat(monkeypatch):
  monkeypatch.setattr(heartbeat, '_INTERVAL_SECS', 0.02)
  monkeypatch.setattr(heartbeat, '_ANSWER_SECS', 0.05)


# HTTP/2's SETTINGS frame, without settings.
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


class Server:
  """Greets every client as TensorFlow's server does, until it is silent."""

  def __init__(self, greeting=SETTINGS, before=lambda: None):
    """Starts it.

    Args:
      greeting: what it sends.
      before: called before each greeting.
    """
    self._greeting, self._before = greeting, before
    self._listener = socket.socket()
    self._listener.bind(('127.0.0.1', 0))
    self._listener.listen(100)
    self.address = '127.0.0.1:{}'.format(self._listener.getsockname()[1])
    self.is_silent = False
    threading.Thread(target=self._greet, daemon=True).start()

  def _greet(self):
    with contextlib.suppress(OSError):  # the socket is closed
      while True:
        connection, _ = self._listener.accept()
        if not self.is_silent:
          self._before()
          connection.send(self._greeting)

  def close(self):
    # close() alone would leave the thread waiting for a connection.
    self._listener.shutdown(socket.SHUT_RDWR)
    self._listener.close()


def test_a_heartbeat_names_the_lost_task(quick_heartbeat):
  listeners = [Server() for _ in range(3)]
  addresses = [one.address for one in listeners]
  losses, called = [], threading.Event()
  watched = heartbeat.Heartbeat(
      addresses, 0, lambda lost: (losses.append(lost), called.set()))
  watched.start(10)
  assert not watched.finds_loss(0.1)
  listeners[2].close()
  assert watched.finds_loss(10) and called.wait(10)
  assert losses == [[2]]
  assert watched.names(losses[0]) == 'task 2 ({})'.format(addresses[2])
  listeners[0].close()
  listeners[1].close()


def test_a_stopped_heartbeat_reports_no_loss(quick_heartbeat):
  listener = Server()
  addresses = ['127.0.0.1:1', listener.address]
  losses = []
  watched = heartbeat.Heartbeat(addresses, 0, losses.append)
  watched.start(10)
  watched.stop()
  listener.close()
  time.sleep(0.2)
  assert not losses


def test_a_silent_task_is_lost_after_a_timeout(quick_heartbeat, monkeypatch):
  server = Server()
  losses, called = [], threading.Event()
  watched = heartbeat.Heartbeat(
      ['127.0.0.1:1', server.address], 0,
      lambda lost: (losses.append(lost), called.set()))
  watched.start(10)
  server.is_silent = True
  assert not called.wait(0.5)
  monkeypatch.setattr(heartbeat, '_SILENCE_SECS', 0.0)
  assert called.wait(10) and losses == [[1]]
  server.close()


def test_all_tasks_are_probed_at_the_same_time():
  """No server answers before every server has been asked."""
  hosts = 20
  all_asked = threading.Barrier(hosts)
  servers = [Server(before=lambda: all_asked.wait(60)) for _ in range(hosts)]
  watched = heartbeat.Heartbeat(
      ['127.0.0.1:1'] + [server.address for server in servers], 0, print)
  watched.start(60)
  watched.stop()
  for server in servers:
    server.close()


# --- The launcher ----------------------------------------------------------


def script(folder, text):
  path = folder / 'script.py'
  path.write_text('import signal, sys, time\ntask = int(sys.argv[-1][-1])\n' +
                  text)
  return str(path)


def test_the_launcher_labels_the_output_of_each_task(tmp_path, capsys):
  path = script(tmp_path, 'print(sys.argv[1:-2], sys.argv[-2], task)\n'
                'sys.stderr.write("warned\\n")\n')
  assert launch_local.run(path, ['--a=1', 'b'], 2) is None
  output, errors = capsys.readouterr()
  assert sorted(errors.splitlines()) == ['[0] warned', '[1] warned']
  lines = sorted(output.splitlines())
  for task, line in enumerate(lines):
    match = re.match(
        r"\[{0}\] \['--a=1', 'b'\] --cluster=(127\.0\.0\.1:\d+),"
        r'(127\.0\.0\.1:\d+) {0}$'.format(task), line)
    assert match and match.group(1) != match.group(2), line


@pytest.mark.parametrize('text, words', [
    ('sys.exit(7 if task else 0)', 'task 1 ended with status 7'),
    ('import os; os.kill(os.getpid(), 9) if task else None',
     'task 1 was ended by SIGKILL'),
    # The launcher also ends the other task, which does not notice.
    ('sys.exit(3) if task else time.sleep(600)', 'task 1 ended with status 3'),
])
def test_the_launcher_ends_all_tasks_after_the_first_failure(
    tmp_path, text, words, monkeypatch):
  monkeypatch.setattr(launch_local, '_NOTICE_SECS', 0.2)
  assert str(launch_local.run(script(tmp_path, text), [], 2)) == words


def test_the_launcher_forwards_a_signal_and_waits(tmp_path, capsys):
  path = script(
      tmp_path, 'def end(*unused):\n'
      '  print("saved"); sys.exit(143)\n'
      'signal.signal(signal.SIGTERM, end)\nprint("ready", flush=True)\n'
      'time.sleep(600)\n')
  printed = []

  def when_ready():
    while ''.join(printed).count('ready') < 2:
      printed.append(capsys.readouterr()[0])
      time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)

  thread = threading.Thread(target=when_ready)
  thread.start()
  with pytest.raises(signals.Stopped), signals.Request():
    launch_local.run(path, [], 2)
  thread.join()
  assert sorted(capsys.readouterr()[0].splitlines()) == [
      '[0] saved', '[1] saved']


def test_tasks_save_and_end_if_their_launcher_is_killed(tmp_path):
  path = script(
      tmp_path, 'def end(*unused):\n'
      '  open("saved-{}".format(task), "w").close()\n'
      '  sys.exit()\n'
      'signal.signal(signal.SIGTERM, end)\nprint("ready", flush=True)\n'
      'time.sleep(600)\n')
  launcher = subprocess.Popen(
      [sys.executable, '-c', 'import sys; sys.path.insert(0, sys.argv[1]); '
       'from deeplab.distribution import launch_local; '
       'launch_local.run(sys.argv[2], [], 2)',
       scripts.REPOSITORY, path], cwd=str(tmp_path), stdout=subprocess.PIPE)
  assert {launcher.stdout.readline() for _ in range(2)} == {
      b'[0] ready\n', b'[1] ready\n'}
  launcher.kill()
  launcher.communicate()
  while len(list(tmp_path.glob('saved-*'))) < 2:
    time.sleep(0.05)


@pytest.mark.parametrize('words, expected', [
    (['--hosts=0', '--'], '--hosts=0: expected a whole number from 1 to 64'),
    (['--', '--task=1'], '--task=1: this script sets it for each task; leave'),
    (['--train_logdir=x'], 'expected -- before the flags of train.py'),
    (['--step=1', '--'], 'unknown flag --step'),
], ids=str)
def test_the_launcher_refuses(words, expected):
  assert expected in scripts.refusal('scripts/launch_local.py', *words)


# --- Signals ---------------------------------------------------------------


@contextlib.contextmanager
def waiting(seconds, text):
  """Starts a process that waits for ever in C code, as for other tasks.

  Args:
    seconds: its time to act on a signal.
    text: source to run after it prints that it waits.
  """
  process = subprocess.Popen([
      sys.executable, '-c', """
import ctypes, os, signal, sys
from deeplab.system import signals
signals._ACT_SECS = {}
signal.signal(signal.SIGTERM, lambda *unused: None)
mutex = ctypes.create_string_buffer(64)
lock = ctypes.CDLL(None).pthread_mutex_lock
with signals.heard_while_waiting(lambda number: os._exit(100 + number)):
  lock(mutex)
  print('waits', flush=True)
""".format(seconds) + text], stdout=subprocess.PIPE, cwd=scripts.REPOSITORY)
  try:
    assert process.stdout.readline() == b'waits\n'
    yield process
  finally:
    process.kill()
    process.communicate()


def test_a_second_signal_ends_a_process_that_waits_for_ever():
  with waiting(0.2, '  lock(mutex)') as process:
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
      process.wait(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 100 + signal.SIGTERM


def test_handled_signals_do_not_end_the_process():
  text = ('  for _ in range(2): os.kill(os.getpid(), signal.SIGTERM)\n'
          'sys.exit(signal.set_wakeup_fd(-1) != -1)')
  with waiting(60, text) as process:
    assert process.wait(30) == 0


# --- Whole runs ------------------------------------------------------------


ARGUMENTS = (
    '--train_batch_size=4', '--train_crop_size=33,33', '--seed=3',
    '--depth_multiplier=0.25', '--aspp_convs_filters=16', '--log_steps=1',
    '--fine_tune_batch_norm=false', '--save_interval_secs=1')


def started(folder, steps):
  return scripts.start(
      'scripts/launch_local.py', '--hosts=2', '--',
      '--dataset_dir={}'.format(folder),
      '--train_logdir={}'.format(folder / 'log'),
      '--training_number_of_steps={}'.format(steps), *ARGUMENTS,
      fresh=True, is_shallow=True, stderr=subprocess.STDOUT)


def pid_of(task, folder):
  """Returns the process of a task of the run in a folder."""
  for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
      with open('/proc/{}/cmdline'.format(pid), 'rb') as words:
        words = words.read().decode().split('\0')
    except OSError:
      continue
    if '--task={}'.format(task) in words and (
        '--train_logdir={}'.format(folder / 'log') in words):
      return int(pid)
  raise AssertionError('no task {}'.format(task))


def until(process, pattern):
  """Reads what tasks print until a line matches; returns all that was read."""
  output = ''
  for line in process.stdout:
    output += line
    if re.search(pattern, line):
      break
  return output


@pytest.mark.extended
@pytest.mark.tf1  # here a task waits for ever for a lost one
def test_two_tasks_stop_and_resume_together(tmp_path):
  """Task 1 gets a signal; task 1 is killed; one process continues alone."""
  resuming.make_records(str(tmp_path))
  process = started(tmp_path, 10 ** 6)
  until(process, r'\[0\].* step 3/')
  os.kill(pid_of(1, tmp_path), signal.SIGTERM)
  output = scripts.output_of(process)[0]
  assert process.returncode == 128 + signal.SIGTERM, output
  ends = re.findall(r'\[(\d)\] stopped by SIGTERM at step (\d+)', output)
  assert sorted(task for task, _ in ends) == ['0', '1'], output
  (_, stopped), (_, other) = ends
  assert stopped == other
  newest = tf.train.latest_checkpoint(str(tmp_path / 'log'))
  assert newest.endswith('model.ckpt-' + stopped)

  process = started(tmp_path, 10 ** 6)
  output = until(process, r'\[0\].* step {}/'.format(int(stopped) + 3))
  assert 'RESUMING from step {}'.format(stopped) in output
  os.kill(pid_of(1, tmp_path), signal.SIGKILL)
  output = scripts.output_of(process, timeout=60)[0]
  assert process.returncode == 128 + signal.SIGKILL, output
  lines = [line for line in output.splitlines() if 'ERROR' in line]
  assert len(lines) == 2, output
  assert re.match(
      r'\[0\] ERROR train.py: task 1 \(127\.0\.0\.1:\d+\) ended or stopped '
      'answering before training ended; the last checkpoint of task 0 is kept',
      lines[0]), lines
  assert lines[1] == 'ERROR launch_local.py: task 1 was ended by SIGKILL'

  newest = tf.train.latest_checkpoint(str(tmp_path / 'log'))
  reached = int(newest.split('-')[-1])
  output = scripts.run(
      'train.py', '--dataset_dir={}'.format(tmp_path),
      '--train_logdir={}'.format(tmp_path / 'log'),
      '--training_number_of_steps={}'.format(reached + 1), *ARGUMENTS,
      is_shallow=True)
  assert 'RESUMING from step {}'.format(reached) in output.stderr
  # One process saves the same variables as several.
  names = [set(tf.train.NewCheckpointReader(str(
      tmp_path / 'log' / 'model.ckpt-{}'.format(step))
  ).get_variable_to_shape_map()) for step in (reached, reached + 1)]
  assert names[0] == names[1]


# --- Commands of docs/scaling.md -------------------------------------------


@pytest.mark.extended
@pytest.mark.modern
def test_commands_of_scaling_md_run(tmp_path):
  """Runs them as documented, with smaller numbers."""
  resuming.make_records(str(tmp_path))
  smaller = (
      ('512,512', '65,65'), ('size=8', 'size=4'), ('--train_crop',
       '--training_number_of_steps=1 --depth_multiplier=0.25 '
       '--aspp_convs_filters=16 --train_crop'))
  shell = readme.Shell(tmp_path, is_shallow=True)
  variables = dict(DATA_DIR=tmp_path, HOSTS=','.join(ports.free_addresses(2)))
  processes = [
      ('clones', shell.start_documented(
          'scaling.md', 'python train.py --num_clones', changes=smaller,
          OUTPUT_DIR='clones', **variables)),
      ('local', shell.start_documented(
          'scaling.md', 'python scripts/launch_local.py', changes=smaller,
          OUTPUT_DIR='local', **variables))]
  for task in range(2):
    processes.append(('hosts', shell.start_documented(
        'scaling.md', 'python train.py --cluster', changes=smaller,
        OUTPUT_DIR='hosts', TASK=task, **variables)))
  for folder, process in processes:
    assert 'finished at step 1: ' in shell.finished(process)
    assert (tmp_path / folder / 'model.ckpt-1.index').exists()
