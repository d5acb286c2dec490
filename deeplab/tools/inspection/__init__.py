"""Contents of model files, and their differences.

activations  quantized activations of a TFLite file, and clipping
contents     layers, weights, ranges of a checkpoint, frozen graph, TFLite file
difference   comparison of two files, tensor by tensor
run          a report as lines and JSON
"""
