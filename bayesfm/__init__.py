"""Bayesian factorization machines on JAX, NumPyro and ArviZ."""
