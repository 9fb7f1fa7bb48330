"""Wide sparse data: text and ``field=value`` rows as hashed columns that keep their names."""

from bayesfm.encoders.collisions import Collisions
from bayesfm.encoders.fields import HashedFields
from bayesfm.encoders.inclusion import BloomInclusion, PoissonInclusion
from bayesfm.encoders.lsa import lsa_coordinates
from bayesfm.encoders.text import HashedText

__all__ = [
    "BloomInclusion",
    "Collisions",
    "HashedFields",
    "HashedText",
    "PoissonInclusion",
    "lsa_coordinates",
]
