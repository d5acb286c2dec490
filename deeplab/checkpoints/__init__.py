"""Checkpoints: finding, reading, comparing, restoring and saving them."""
