"""Gaussian full conditionals of w and v: Gibbs draws from them, ALS and mean-field inference take their moments."""
