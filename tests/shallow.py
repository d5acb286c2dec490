#!/usr/bin/env python
"""A backbone of few layers: one of each stride, and a shortcut.

As a script, it runs another one with such a backbone, on one core:

    shallow.py train.py --flag=...
"""
import os
import runpy
import sys

SCRIPT = 'tests/shallow.py'


def make(set_attribute):
  """Makes the backbone shallow with setattr, or a MonkeyPatch's."""
  from deeplab.nets import mobilenet_v2
  block = mobilenet_v2.Block(8, expansion=1)
  wide = block._replace(stride=2)
  set_attribute(mobilenet_v2, 'BLOCKS', (block, wide, block, wide, wide))
  set_attribute(mobilenet_v2, 'DECODER_END_POINTS', {
      4: 'layer_4/depthwise_output', 8: 'layer_5/depthwise_output'})


def _run(path):
  cores = sorted(os.sched_getaffinity(0))
  os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})
  # Child scripts use this interpreter, and so get a shallow backbone too.
  os.environ['PATH'] = os.pathsep.join([
      os.path.dirname(sys.executable), os.environ['PATH']])
  sys.executable = os.path.abspath(__file__)
  # Python puts the script's folder first; this file needs the repository.
  sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  make(setattr)
  sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
  runpy.run_path(path, run_name='__main__')


if __name__ == '__main__':
  del sys.argv[0]
  _run(sys.argv[0])
