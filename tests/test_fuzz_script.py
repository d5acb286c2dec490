"""Tests scripts/fuzz.sh: rounds, seeds, counts and failures."""
import os
import subprocess
import sys

import pytest

from tests import scripts

STUB = """#!/bin/sh
echo "$DEEPLAB_FUZZ_SEED $DEEPLAB_FUZZ_EXAMPLES $*" >> {calls}
echo "    - 30 passing examples, 0 failing examples, 2 invalid examples"
echo "    - 1 passing examples, 0 failing examples, 0 invalid examples"
[ "$DEEPLAB_FUZZ_SEED" != 9 ] || {{ echo 'E  Falsifying example'; exit 1; }}
"""


@pytest.fixture
def fuzz(tmp_path):
  """Runs the script with a fake Python; returns status, lines, calls."""
  stub, calls = tmp_path / 'python', tmp_path / 'calls'
  stub.write_text(STUB.format(calls=calls))
  stub.chmod(0o755)

  def run(*arguments, **env):
    done = subprocess.run(
        [os.path.join(scripts.REPOSITORY, 'scripts', 'fuzz.sh')] +
        list(arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True,
        env=dict(os.environ, **dict({'PYTHON': str(stub)}, **env)))
    return done.returncode, done.stdout.splitlines(), (
        calls.read_text().splitlines() if calls.exists() else [])

  return run


def test_zero_minutes_run_one_round(fuzz):
  status, lines, calls = fuzz('0', '-k', 'x y', DEEPLAB_FUZZ_SEED='7')
  assert (status, lines) == (0, [
      'round 1, seed 7', '1 rounds, 31 examples, no failure'])
  assert calls == ['7 2000 -m pytest tests/fuzz -q '
                   '--hypothesis-show-statistics -k x y']


def test_a_failure_ends_the_run_and_names_the_seed(fuzz):
  status, lines, calls = fuzz(
      '5', DEEPLAB_FUZZ_SEED='8', DEEPLAB_FUZZ_EXAMPLES='20')
  assert status == 1
  assert [call.split()[:2] for call in calls] == [['8', '20'], ['9', '20']]
  assert lines[:2] == ['round 1, seed 8', 'round 2, seed 9']
  assert 'E  Falsifying example' in lines
  assert lines[-1].strip() == (
      'FAILED; again with: DEEPLAB_FUZZ_SEED=9 DEEPLAB_FUZZ_EXAMPLES=20 '
      './scripts/fuzz.sh 0')


@pytest.mark.parametrize('minutes', ['', '-1', '1.5', 'x', '5+A[$(touch x)]'])
def test_minutes_must_be_a_number(fuzz, minutes):
  assert fuzz(minutes) == (2, [
      'ERROR fuzz.sh: MINUTES is "{}": expected a whole number from 0 to '
      '99999'.format(minutes)], [])


@pytest.mark.extended
def test_a_round_of_real_tests_counts_its_examples(fuzz):
  status, lines, _ = fuzz(
      '0', '-k', 'test_scores', DEEPLAB_FUZZ_EXAMPLES='5',
      PYTHON=sys.executable)
  assert (status, lines[1:]) == (0, ['1 rounds, 5 examples, no failure'])
