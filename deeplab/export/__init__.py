"""From a checkpoint to model files, and back."""
