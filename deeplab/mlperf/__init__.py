"""LoadGen runs, their logs and the published numbers."""
