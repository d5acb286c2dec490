"""Training: the graph of a step, and the loop that runs it."""
