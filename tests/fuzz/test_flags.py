"""Any command line gives options or a one-line error."""
from absl import flags
from hypothesis import strategies
import pytest

from deeplab.cli import runner
from deeplab.cli import script_flags
from deeplab.errors import InputError
from tests import flag_groups
from tests import fuzz

pytestmark = pytest.mark.extended

NUMBERS = strategies.one_of(
    strategies.sampled_from([
        'nan', 'inf', '-inf', '1e400', '-1e-400', str(10 ** 20), str(2 ** 63),
        '-0', '0x10', '1_000', '', ' 1', '1 ', '٣', '1,', ',', '1,,2']),
    strategies.integers().map(str), strategies.integers(-2, 600).map(str),
    strategies.floats().map(str))
VALUES = strategies.one_of(
    NUMBERS, strategies.lists(NUMBERS, max_size=4).map(','.join),
    strategies.text(max_size=8), strategies.binary(max_size=4).map(
        lambda name: name.decode('utf-8', 'surrogateescape')),
    strategies.sampled_from(['true', 'False', 'val', 'png', 'qat', 'a=b']))
NAMES = {}
for script in script_flags.SCRIPTS:
  NAMES[script] = sorted(flag_groups.parsed(script))


@strategies.composite
def command_lines(draw):
  """Draws (script, arguments)."""
  script = draw(strategies.sampled_from(sorted(NAMES)))
  names = strategies.one_of(
      strategies.sampled_from(NAMES[script]),
      strategies.sampled_from(['undefok', 'flagfile', 'help', '', '-']),
      strategies.text(max_size=5))
  words = strategies.one_of(
      strategies.builds('--{}={}'.format, names, VALUES),
      strategies.builds('--{}'.format, names),
      strategies.builds('--no{}'.format, names), VALUES)
  return script, draw(strategies.lists(words, max_size=5))


@fuzz.given(command_lines(), examples=150)
def test_any_command_line(drawn):
  script, arguments = drawn
  values = flags.FlagValues()
  try:
    flag_groups.parsed(script, *flag_groups.REQUIRED[script] + arguments,
                       flag_values=values)
    script_flags.SCRIPTS[script].arguments(values)
  except InputError as error:
    assert runner.in_flags(error, values)
