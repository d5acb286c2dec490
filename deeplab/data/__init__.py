"""From image files to TFRecords, and from TFRecords to batches."""
