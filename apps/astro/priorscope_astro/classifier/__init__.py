"""A galaxy classifier: a small convolutional network on vote counts or on classes."""
