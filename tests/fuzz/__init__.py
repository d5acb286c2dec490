"""Tests on random input; how much of it, and from which seed, stands here.

The same input in every run, unless DEEPLAB_FUZZ_SEED names another seed.
DEEPLAB_FUZZ_EXAMPLES is the number of inputs of each test in place of the small
one that the test has. scripts/fuzz.sh sets both.
"""
import os

import hypothesis

_SEED = os.environ.get('DEEPLAB_FUZZ_SEED')
_EXAMPLES = os.environ.get('DEEPLAB_FUZZ_EXAMPLES')


def given(*strategies, examples=60, **named_strategies):
  """Decorator of a test: hypothesis.given, with the settings of all of them.

  Args:
    *strategies: of the last arguments, as hypothesis.given takes them.
    examples: number of inputs, unless the environment says another one.
    **named_strategies: of arguments by name.
  """
  def decorate(test):
    test = hypothesis.given(*strategies, **named_strategies)(test)
    test = hypothesis.settings(
        max_examples=int(_EXAMPLES or examples), deadline=None,
        derandomize=_SEED is None, database=None,
        # Of a machine that does other things too, or on purpose.
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.data_too_large,
            hypothesis.HealthCheck.filter_too_much])(test)
    return test if _SEED is None else hypothesis.seed(int(_SEED))(test)

  return decorate
