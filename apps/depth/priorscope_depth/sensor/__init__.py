"""What a real depth sensor makes of exact depth: a hand-made model, and one learned by residual diffusion."""
