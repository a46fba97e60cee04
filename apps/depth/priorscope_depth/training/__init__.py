"""How depth models are trained: one file a published recipe, on the core's loop."""
