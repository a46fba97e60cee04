"""Training: what is made from demonstrations, what is fed, and what is minimised."""
