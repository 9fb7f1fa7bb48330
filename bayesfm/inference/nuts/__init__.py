"""The No-U-Turn sampler: NumPyro's transitions on the one model."""
