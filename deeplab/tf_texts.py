"""What TensorFlow says in words alone, read in one place.

It has no field or class for any of this, and the words move from one version to
the next: the tests that lead here run on all of them. Needs no TensorFlow.
"""
import re

from deeplab import errors

# How an error names the node that raised it, if that node reads a dataset: as
# '[[IteratorGetNext]]', or '[[node scope/IteratorGetNext_1 (defined at ...'.
# The error's `op` is another one, inside of the dataset, or None.
_RAISED_BY_ITERATOR = re.compile(
    r'\[\[(\{\{)?(node )?([^\s\]]*/)?IteratorGetNext')
# How an operator is described in full before its node is.
_OPERATOR_IN_FULL = re.compile(r'Op<name=(\w+);.*>; NodeDef: ')
# What precedes a message, from some version on, and what follows it: the nodes
# of a graph, and where they were made.
_NODE_BEFORE = re.compile(r"\AGraph execution error:.*\nNode: '[^']*'\n", re.S)
_NODES_AFTER = re.compile(r'\s+(\[\[|Original stack trace)')


def message(error: Exception) -> str:
  """Returns an error's message without the nodes that it names at length."""
  text = _NODES_AFTER.split(_NODE_BEFORE.sub('', str(error)), 1)[0]
  return errors.one_line(text)


def is_out_of_memory(error: Exception) -> bool:
  """Whether an error means that there is too little memory.

  A full disk has the same class of error.
  """
  return 'OOM when allocating' in str(error)


def is_of_input(error: Exception) -> bool:
  """Whether it was reading a dataset that failed, not the network."""
  return bool(_RAISED_BY_ITERATOR.search(str(error)))


def is_cut_short(error: Exception) -> bool:
  """Whether a DataLossError means the end of a file, not a wrong checksum."""
  return 'truncated' in str(error).lower()


def why_not_imported(error: Exception) -> str:
  """Returns the reason in an error of tf.import_graph_def, in one line."""
  return _OPERATOR_IN_FULL.sub(r'\1; ', str(error).split('\n')[0])


def why_not_converted(error: Exception) -> str:
  """Returns the line of a TFLite converter's output that tells the reason."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  errors = [line for line in lines if 'rror' in line or 'heck failed' in line]
  return (errors or lines or ['no reason given'])[-1]


def why_not_written(error: Exception) -> str:
  """Returns the reason for which an operation could not write a file."""
  # After the name that the file had meanwhile, which means nothing later.
  return message(error).strip().split('\n')[0].rsplit('; ', 1)[-1]
