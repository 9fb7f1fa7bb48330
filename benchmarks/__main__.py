"""``python -m benchmarks [NAME] ...``: one benchmark of this folder, movielens by default."""

from __future__ import annotations

import sys

from benchmarks import (
    approximations,
    clicks,
    convergence,
    engines,
    gradient,
    likelihoods,
    loo,
    mixing,
    movielens,
    priors,
    scale,
    sizes,
    speed,
    stochastic,
    texts,
    wide,
)

if __name__ == "__main__":
    parts = {
        "movielens": movielens,
        "approximations": approximations,
        "clicks": clicks,
        "convergence": convergence,
        "engines": engines,
        "gradient": gradient,
        "likelihoods": likelihoods,
        "loo": loo,
        "mixing": mixing,
        "priors": priors,
        "scale": scale,
        "sizes": sizes,
        "speed": speed,
        "stochastic": stochastic,
        "texts": texts,
        "wide": wide,
    }
    mains = {name: module.main for name, module in parts.items()}
    name = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] in mains else "movielens"
    mains[name]([a for a in sys.argv[1:] if a != name])
