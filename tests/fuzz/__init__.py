"""Tests on random input.

The input is the same in every run, unless DEEPLAB_FUZZ_SEED names another seed.
DEEPLAB_FUZZ_EXAMPLES replaces each test's own, small number of inputs.
scripts/fuzz.sh sets both.
"""
import os

import hypothesis

_SEED = os.environ.get('DEEPLAB_FUZZ_SEED')
_EXAMPLES = os.environ.get('DEEPLAB_FUZZ_EXAMPLES')


def given(*strategies, examples=60, **named_strategies):
  """Decorates a test with hypothesis.given and common settings.

  Args:
    *strategies: strategies of the last arguments.
    examples: number of inputs, unless DEEPLAB_FUZZ_EXAMPLES is set.
    **named_strategies: strategies of arguments by name.
  """
  def decorate(test):
    test = hypothesis.given(*strategies, **named_strategies)(test)
    test = hypothesis.settings(
        max_examples=int(_EXAMPLES or examples), deadline=None,
        derandomize=_SEED is None, database=None,
        # A test may be slow on a busy machine, or on purpose.
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.data_too_large,
            hypothesis.HealthCheck.filter_too_much])(test)
    return test if _SEED is None else hypothesis.seed(int(_SEED))(test)

  return decorate
