"""Compares several models on the same images.

samples      the images, with or without labels
counts       predictions of the models, counted image by image
statistics   scores, differences, and their intervals
drawing      pictures of predictions and of their differences
charts       charts (needs matplotlib)
page         one self-contained HTML file (needs Jinja2)
run          the whole comparison, from options to files
"""
