"""Training of slice priors."""
