"""Measurements of the suite in several environments; see scripts/benchmark.py.

    cases    table of the cases, their files, and the goals
    driver   one process for each measurement; the cases of a group take turns
    worker   the script that such a process runs
    results  medians, ratios, tables, JSON

The work is in network, graphs, images and lite. Only these import TensorFlow,
or an interpreter of TFLite files.
"""
