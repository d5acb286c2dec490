"""One host or many."""
