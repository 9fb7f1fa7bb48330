"""Engines: Gibbs sampling, and the runner of chains that it stands on."""
