"""Measurements of the suite in several environments; see scripts/benchmark.py.

    cases    cases, their files, and the goals
    driver   one process for each measurement; the cases of a group take turns
    worker   script of such a process
    results  medians, ratios, tables, JSON

Only the measured functions, in network, graphs, images and lite, import
TensorFlow or a TFLite interpreter; those in scripts start the suite's scripts.
"""
