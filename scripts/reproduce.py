r"""Reproduces the published numbers; scripts/reproduce.sh starts it.

    ./scripts/reproduce.sh
    ./scripts/reproduce.sh --sample=${SAMPLE_DIR} --published=${PUBLISHED_DIR}

Downloads ADE20K and the published files, evaluates them, exports, converts and
quantizes the checkpoints again, evaluates the results, and writes RESULTS.md.
Finished steps are skipped. It needs no TensorFlow itself.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags
from deeplab.system import streams


def main(options):
  from deeplab.mlperf import reproduce

  streams.show(reproduce.run(options))


if __name__ == '__main__':
  runner.run(main, script_flags.REPRODUCE)
