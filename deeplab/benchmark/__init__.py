"""Measurements of the suite in several environments; see scripts/benchmark.py.

    cases    what is measured, on which files, and what is hoped for
    driver   one process a case, asked in turn
    worker   that process; it takes its case from one of
    network    training steps, forward pass, evaluation
    graphs     frozen graphs and their conversion
    images     records and preprocessed images
    lite     TFLite models
    results  medians, ratios, tables, JSON

Only network, graphs, images and lite need TensorFlow, or an interpreter of
TFLite files, and only in the environment that is measured.
"""
