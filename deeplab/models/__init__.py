"""Model files of any kind, opened as a Predictor."""
