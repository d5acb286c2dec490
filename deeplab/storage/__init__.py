"""Atomic writes, checked reads, locks and remote paths."""
