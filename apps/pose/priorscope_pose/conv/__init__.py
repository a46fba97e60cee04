"""The baseline of the image models: a plain convolutional network from pixels to the same heatmaps."""
