"""Finds, reads, compares, restores and saves checkpoints."""
