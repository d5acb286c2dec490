"""Notices of native code: kept off standard error, unless asked for."""
import importlib
import subprocess
import sys

import pytest

from deeplab import quiet
from tests import scripts


def quietened(folder, *arguments):
  """Imports a TensorFlow that talks; returns its standard error."""
  (folder / 'tensorflow').mkdir()
  (folder / 'tensorflow' / '__init__.py').write_text(
      'import os\n'
      'os.write(2, b"WARNING: All log messages before absl::Init\\n")\n'
      'os.write(2, b"I0000 00:00:17 1 port.cc:153] oneDNN operations on.\\n")\n'
      'os.write(2, b"fully_quantize: 0, inference_type: 6\\n")\n'
      'os.write(2, b"E0000 00:00:17 1 port.cc:154] out of order\\n")\n'
      'NAME = __name__\n')
  done = subprocess.run(
      [sys.executable, '-c',
       'import sys\nsys.path[:0] = sys.argv[1:3]\n'
       'from deeplab import quiet\n'
       'quiet.silence_tensorflow(verbose=len(sys.argv) > 3)\n'
       'import tensorflow\nassert tensorflow.NAME == "tensorflow"\n'
       'sys.stderr.write("end\\n")',
       scripts.REPOSITORY, str(folder)] + list(arguments),
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
  assert done.returncode == 0, done.stderr
  return [line[:5] for line in done.stderr.splitlines()]


def test_notices_of_a_tensorflow_that_loads_are_not_shown(tmp_path):
  assert quietened(tmp_path) == ['E0000', 'end']


def test_notices_are_shown_where_asked_for(tmp_path):
  assert quietened(tmp_path, '--tf_warnings') == [
      'WARNI', 'I0000', 'fully', 'E0000', 'end']


def test_a_missing_tensorflow_stays_missing():
  finder = quiet._QuietFinder('no_such_package')
  sys.meta_path.insert(0, finder)
  with pytest.raises(ImportError, match='no_such_package'):
    importlib.import_module('no_such_package')
  assert finder not in sys.meta_path
