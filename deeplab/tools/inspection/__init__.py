"""Contents of a model's file, and how they differ from another one's.

activations  quantized activations of a TFLite file, and what clips them
contents     layers, weights, ranges of a checkpoint, frozen graph, TFLite file
difference   two of them, tensor by tensor
run          from options to lines and JSON
"""
