"""Tests scripts/demo.sh with stand-ins for Python and setup.sh.

The stand-ins record each call and do nothing else.
"""
import os
import shutil
import subprocess

import pytest

from tests import scripts

STAND_IN = """#!/usr/bin/env bash
printf '%s %s\\n' {name} "$*" >>{log}
case "$*" in *{failing}*) exit 3 ;; esac
{says}
"""
# The last line of setup.sh if both Pythons exist.
READY = 'ready: .venvs/tf1 (TensorFlow 1) .venvs/tf2 (TensorFlow 2)'
STAGES = [
    'setup.sh all',
    'tf1 scripts/make_synthetic_ade20k.py', 'tf1 build_ade20k_data.py',
    'tf1 train.py', 'tf1 eval.py', 'tf1 train.py', 'tf1 train.py',
    'tf1 eval.py', 'tf1 export_model.py', 'tf1 eval_pb.py',
    'tf2 gen_preprocessed_data.py', 'tf1 scripts/convert_tflite.py',
    'tf2 segmentation_inference_eval_seg_tflite.py',
    'tf2 gen_preprocessed_data.py', 'tf2 post_training_quant.py',
    'tf2 segmentation_inference_eval_seg_tflite.py',
    'tf1 train.py', 'tf1 eval.py', 'tf1 export_model.py',
    'tf1 scripts/convert_tflite.py',
    'tf2 segmentation_inference_eval_seg_tflite.py',
    'tf1 scripts/stage_table.py']


class Demo:
  """A copy of the script with its stand-ins."""

  environments = ('tf1', 'tf2', 'modern')

  def __init__(self, folder):
    self.folder = folder
    self.log = folder / 'calls'
    for part in ['scripts'] + [
        '.venvs/{}/bin'.format(name) for name in self.environments]:
      (folder / 'repository' / part).mkdir(parents=True)
    shutil.copy(os.path.join(scripts.REPOSITORY, 'scripts', 'demo.sh'),
                str(folder / 'repository' / 'scripts'))
    self.output = folder / 'repository' / 'demo_output'
    self.stand_in()

  def stand_in(self, failing='nothing', ready=READY):
    """Writes the stand-ins.

    Args:
      failing: calls that contain this word fail.
      ready: the last line of setup.sh, whatever its argument.
    """
    programs = {name: '.venvs/{}/bin/python'.format(name)
                for name in self.environments}
    programs['setup.sh'] = 'scripts/setup.sh'
    for name, path in programs.items():
      path = self.folder / 'repository' / path
      path.write_text(STAND_IN.format(
          name=name, log=self.log, failing=failing,
          says='echo "{}"'.format(ready) if name == 'setup.sh' else ''))
      path.chmod(0o755)

  def run(self, *arguments, status=0, cwd=None, **environment):
    """Runs the script; returns (the words of each call, output)."""
    if self.log.exists():
      self.log.unlink()
    done = subprocess.run(
        ['bash', str(self.folder / 'repository' / 'scripts' / 'demo.sh')] +
        list(arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True, cwd=str(cwd or self.folder),
        env=dict({name: value for name, value in os.environ.items()
                  if not name.startswith('DEMO_')}, **environment))
    assert done.returncode == status, done.stdout
    calls = self.log.read_text().splitlines() if self.log.exists() else []
    return [call.split() for call in calls], done.stdout


@pytest.fixture
def demo(tmp_path):
  return Demo(tmp_path)


ALL_MODERN = ['modern {}'.format(stage.split()[1]) for stage in STAGES[1:]]
MODERN_READY = 'ready: .venvs/modern (TensorFlow 2.21.0, Python 3.11.7)'
NOTICE = 'no Python 3.7 or 3.6: every stage runs in .venvs/modern\n'


def stages_in(calls):
  return [' '.join(call[:2]) for call in calls]


def values_of(flag, calls):
  return [word.split('=')[1] for call in calls for word in call
          if word.startswith('--{}='.format(flag))]


def test_demo_runs_every_stage(demo):
  calls, output = demo.run()
  assert stages_in(calls) == STAGES
  assert values_of('training_number_of_steps', calls) == [
      '1', '200', '80', '10']
  for environment, script, *arguments in calls[1:]:
    # The stand-ins do not keep the spaces in names of stages apart.
    names = {word[2:].split('=')[0] for word in arguments
             if word.startswith('--')}
    assert names and names <= scripts.flags_of(script), script
    # Commands are shown as one would type them.
    assert '.venvs/{}/bin/python {}\n'.format(environment, ' '.join(
        [script] + arguments)) in output.replace('\\\n    ', '').replace(
            "'", '')
  assert "'--report=frozen graph=demo_output/reports/frozen_graph.json'" in (
      output)
  # The table has every report.
  tabled = [word.split('=')[-1] for word in calls[-1] if '.json' in word]
  assert tabled == values_of('report_json', calls) and len(tabled) == 7
  assert 'demo_output/pictures/predictions.png\n' in output
  assert '\nTensorBoard: .venvs/tf1/bin/tensorboard --logdir=' in output
  assert output.splitlines()[-1].startswith('done in ')


@pytest.mark.parametrize('chosen, ready, stages', [
    ('', MODERN_READY, ['setup.sh all'] + ALL_MODERN),
    ('modern', MODERN_READY, ['setup.sh modern'] + ALL_MODERN),
    ('reference', READY, ['setup.sh tf1', 'setup.sh tf2'] + STAGES[1:])])
def test_demo_environments(demo, chosen, ready, stages):
  demo.stand_in(ready=ready)
  calls, output = demo.run(DEMO_ENVIRONMENT=chosen, DEMO_STEPS='2')
  assert stages_in(calls) == stages
  assert values_of('training_number_of_steps', calls) == ['1', '2', '1', '1']
  assert output.count(NOTICE) == (not chosen)
  assert ('bin/tensorboard' in output) and (
      '.venvs/modern/bin/tensorboard' in output) == (ready == MODERN_READY)


@pytest.mark.parametrize('failing', ['all', 'export_model.py'])
def test_demo_stops_at_the_first_failure(demo, failing):
  demo.stand_in(failing=failing)
  calls, output = demo.run(status=3)
  assert calls[-1][1] == failing
  assert 'done in' not in output


def test_demo_replaces_its_own_output_in_the_current_folder(demo):
  elsewhere = demo.folder / 'else where'
  elsewhere.mkdir()
  for _ in range(2):
    calls, _ = demo.run(cwd=elsewhere, DEMO_OUTPUT='out')
    assert not (elsewhere / 'out' / 'old').exists()
    (elsewhere / 'out' / 'old').write_text('of the first run')
  assert ' '.join(calls[1]).count('--output_dir={}'.format(elsewhere / 'out'))
  assert not demo.output.exists()


def test_demo_keeps_a_folder_that_it_did_not_make(demo):
  demo.output.mkdir()
  mine = demo.output / 'thesis.tex'
  mine.write_text('years of work')
  calls, output = demo.run(status=2)
  assert calls == [] and mine.read_text() == 'years of work'
  assert output == ('ERROR demo.sh: DEMO_OUTPUT=demo_output: holds something '
                    'else; give a new folder\n')


@pytest.mark.parametrize('arguments, variables, message', [
    ((), {'DEMO_STEPS': '1'},
     'DEMO_STEPS=1: expected a whole number of at least 2'),
    ((), {'DEMO_STEPS': '2.5'},
     'DEMO_STEPS=2.5: expected a whole number of at least 2'),
    ((), {'DEMO_ENVIRONMENT': 'tf3'},
     'DEMO_ENVIRONMENT=tf3: expected reference or modern'),
    (('--quick',), {}, '--quick: expected no argument; see DEMO_OUTPUT, '
     'DEMO_STEPS')])
def test_demo_refuses(demo, arguments, variables, message):
  calls, output = demo.run(*arguments, status=2, **variables)
  assert calls == [] and not demo.output.exists()
  assert output == 'ERROR demo.sh: {}\n'.format(message)
