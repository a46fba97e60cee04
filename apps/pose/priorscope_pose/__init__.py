"""Human pose: SDPose for images, DiffPose for video."""
