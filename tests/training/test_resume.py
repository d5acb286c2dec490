"""Training that stops and resumes equals training without a stop."""
import json
import os
import random
import subprocess
import sys

import pytest

from tests import scripts

STEPS = 7  # nearly three epochs of five records, two per step


@pytest.mark.parametrize('kind', [
    pytest.param('float', marks=pytest.mark.slow),
    pytest.param('qat', marks=[pytest.mark.extended, pytest.mark.tf1])])
def test_interrupted_equals_uninterrupted(kind, tmp_path):
  """A run is stopped by SIGTERM, resumed, and killed."""
  stops = sorted(random.Random(kind).sample(range(1, STEPS), 2))
  process = subprocess.Popen(
      [sys.executable, '-m', 'tests.resuming', str(tmp_path), kind, str(STEPS)]
      + list(map(str, stops)), cwd=scripts.REPOSITORY,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
      universal_newlines=True, start_new_session=True)
  output = scripts.output_of(process)[0]
  assert process.returncode == 0, output
  with open(str(tmp_path / (kind + '.json'))) as content:
    result = json.load(content)
  assert [step for step, *_ in result['whole']] == list(range(1, STEPS + 1))
  assert result['parts'] == result['whole'], stops
  assert result['variables'] > 50 and result['differing'] == [], stops
  # All losses differ, so the comparison above shows something.
  assert len({loss for _, loss, _ in result['whole']}) == STEPS
  assert output.count('RESUMING from step') == len(stops), output
  # No run left temporary files.
  assert not [name for name in os.listdir(str(tmp_path / (kind + '-parts')))
              if 'tmp' in name]
