"""Training of the image models: augmentation in the published order, feeds, losses, looks at held-out people."""
