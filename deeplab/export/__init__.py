"""Exports checkpoints to model files, and back."""
