"""LoadGen, its log and the published numbers."""
