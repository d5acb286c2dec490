"""Parses TensorFlow's error messages for facts that no field or class gives.

The wording differs between versions: this module's tests run on all of them.
This module needs no TensorFlow.
"""
import re

from deeplab import errors

# The node that raised an error, if it reads a dataset: '[[IteratorGetNext]]' or
# '[[node scope/IteratorGetNext_1 (defined at ...'. The error's `op` is another
# node, inside the dataset, or None.
_RAISED_BY_ITERATOR = re.compile(
    r'\[\[(\{\{)?(node )?([^\s\]]*/)?IteratorGetNext')
# The full description of an operator, which precedes its node's description.
_OPERATOR_IN_FULL = re.compile(r'Op<name=(\w+);.*>; NodeDef: ')
# Nodes of the graph and their stack traces, before and after a message.
_NODE_BEFORE = re.compile(r"\AGraph execution error:.*\nNode: '[^']*'\n", re.S)
_NODES_AFTER = re.compile(r'\s+(\[\[|Original stack trace)')


def message(error: Exception) -> str:
  """Returns an error's message without descriptions of nodes."""
  text = _NODES_AFTER.split(_NODE_BEFORE.sub('', str(error)), 1)[0]
  return errors.one_line(text)


def is_out_of_memory(error: Exception) -> bool:
  """Whether memory ran out; a full disk raises the same class of error."""
  return 'OOM when allocating' in str(error)


def is_of_input(error: Exception) -> bool:
  """Whether an error comes from reading a dataset, not from the network."""
  return bool(_RAISED_BY_ITERATOR.search(str(error)))


def why_not_imported(error: Exception) -> str:
  """Returns the reason from an error of tf.import_graph_def, in one line."""
  return _OPERATOR_IN_FULL.sub(r'\1; ', str(error).split('\n')[0])


def why_not_converted(error: Exception) -> str:
  """Returns the line with the reason from a TFLite converter's output."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  errors = [line for line in lines if 'rror' in line or 'heck failed' in line]
  return (errors or lines or ['no reason given'])[-1]


def why_not_written(error: Exception) -> str:
  """Returns why an operation could not write a file."""
  # The reason follows the file's temporary name.
  return message(error).strip().split('\n')[0].rsplit('; ', 1)[-1]
