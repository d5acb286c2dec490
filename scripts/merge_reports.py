r"""Merges the reports of the shards of an evaluation.

    python scripts/merge_reports.py shard-*.json --report_json=report.json

The TFLite evaluation writes the files with --num_shards, --shard_index and
--report_json. The scores equal those of one run over all images; the seconds
are the sum over all shards. It fails if shards are missing or have another
model, images or flags. It needs no TensorFlow.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags


def main(reports, options):
  from deeplab.evaluation import merging

  merging.merge(reports, options)


if __name__ == '__main__':
  runner.run(main, script_flags.MERGE)
