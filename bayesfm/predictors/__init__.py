"""Predictors: one file per equation for eta."""

from bayesfm.predictors.fm import FM

__all__ = ["FM"]
