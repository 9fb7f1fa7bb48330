"""The mode of the posterior given scales, and the Gaussian approximation around it."""
