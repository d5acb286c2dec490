"""Groups of flags, and the options made from them.

Each group is a pair of functions: one defines flags on absl's FlagValues, one
makes options from their values. What a flag is, deeplab.options says. Nothing
here needs TensorFlow.
"""
