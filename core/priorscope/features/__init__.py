"""What a diffusion model sees: taps in its network, at one or a few noise levels, and what can be done with them."""
