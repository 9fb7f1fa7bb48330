"""``python -m benchmarks [movielens|gradient|scale|speed] ...``: run one benchmark, movielens by default."""

from __future__ import annotations

import sys

from benchmarks import gradient, movielens, scale, speed

if __name__ == "__main__":
    mains = {"movielens": movielens.main, "gradient": gradient.main, "scale": scale.main, "speed": speed.main}
    name = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] in mains else "movielens"
    mains[name]([a for a in sys.argv[1:] if a != name])
