"""Training: the step's graph, and the loop around it."""
