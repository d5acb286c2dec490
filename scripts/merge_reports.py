r"""Adds up the reports of the shards of an evaluation.

    python scripts/merge_reports.py shard-*.json --report_json=report.json

The files are what the TFLite evaluation writes with --num_shards, --shard_index
and --report_json. The sum is what one run over all images reports, number for
number; its seconds are those of all shards together. Shards that are missing,
or of another model, other images or other flags are refused. It needs no
TensorFlow.
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
