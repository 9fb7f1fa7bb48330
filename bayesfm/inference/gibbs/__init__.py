"""Gibbs sampling, a whole colour of features at a time."""
