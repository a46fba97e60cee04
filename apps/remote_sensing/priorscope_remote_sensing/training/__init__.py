"""What trains a decoder: labelled images, batches, the loss, the report."""
