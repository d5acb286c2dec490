"""Messages of native code stay off standard error, unless it aborts."""
import subprocess
import sys

from tests import scripts

TALKING_TENSORFLOW = (
    'import os\n'
    'os.write(2, b"WARNING: All log messages before absl::Init\\n")\n'
    'os.write(2, b"I0000 00:00:17 1 port.cc:153] oneDNN operations on.\\n")\n'
    'os.write(2, b"fully_quantize: 0, inference_type: 6\\n")\n'
    'os.write(2, b"E0000 00:00:17 1 port.cc:154] out of order\\n")\n')


def import_quietly(folder, tensorflow):
  """Imports a fake TensorFlow package; returns (status, standard error)."""
  (folder / 'tensorflow').mkdir()
  (folder / 'tensorflow' / '__init__.py').write_text(tensorflow)
  done = subprocess.run(
      [sys.executable, '-c',
       'import sys\nsys.path[:0] = sys.argv[1:]\n'
       'from deeplab.system import silence\n'
       'silence.silence_tensorflow()\nsilence.import_tensorflow()\nsys.stderr.write("end\\n")',
       scripts.REPOSITORY, str(folder)],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
  return done.returncode, [line[:5] for line in done.stderr.splitlines()]


def test_messages_of_a_tensorflow_that_loads_are_hidden(tmp_path):
  assert import_quietly(tmp_path, TALKING_TENSORFLOW) == (0, ['E0000', 'end'])


def test_messages_of_native_code_that_aborts_are_shown(tmp_path):
  status, lines = import_quietly(
      tmp_path, TALKING_TENSORFLOW + 'os.write(2, b"Fatal: no such CPU")\n'
      'os.abort()\n')
  assert status < 0 and lines == ['E0000', 'Fatal']
