"""TFLite models: made, taken apart, and run."""
