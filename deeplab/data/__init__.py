"""Image files to TFRecords, and TFRecords to batches."""
