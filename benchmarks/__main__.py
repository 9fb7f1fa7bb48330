"""``python -m benchmarks [movielens|scale|speed] ...``: run one benchmark, movielens by default."""

from __future__ import annotations

import sys

from benchmarks import movielens, scale, speed

if __name__ == "__main__":
    known = {"movielens": movielens.main, "scale": scale.main, "speed": speed.main}
    name = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] in known else "movielens"
    known[name]([a for a in sys.argv[1:] if a != name])
