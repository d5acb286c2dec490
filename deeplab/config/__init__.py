"""Options and label maps."""
