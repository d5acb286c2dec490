"""What is in a model's file, compared with another one's, and explained.

contents     layers, weights, ranges of a checkpoint, frozen graph, TFLite file
difference   two of them, tensor by tensor
debugger     what quantization costs each layer (TensorFlow 2.21)
text         all of it in lines, for people
"""
