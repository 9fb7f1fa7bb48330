"""Small problems, and learners of them, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesfm.inference.stochastic import Learner, MinibatchOptions
from bayesfm.inference.stochastic.batches import Rows, Totals
from bayesfm.inference.stochastic.objective import Dense, log_joint_of_batch
from bayesfm.model import ModelSpec
from bayesfm.predictors import FM
from bayesfm.priors import Fixed, Horseshoe, Intercept, NormalGamma
from tests import designs
from tests.inference.test_agreement import CASES, Case, gaussian

KEY = jax.random.key(0)
QUIET = MinibatchOptions(num_epochs=3, batch_size=5, progress=False)


def with_priors(prior_w: Any, prior_v: Any) -> Case:
    """Gaussian noise on a design with every kind of block."""
    case = CASES["relation blocks"]()
    return case._replace(spec=replace(case.spec, prior_w=prior_w, prior_v=prior_v))


PROBLEMS: dict[str, Callable[[], Case]] = {
    **{name: CASES[name] for name in ("gaussian", "relation blocks", "groupwise", "ordinal", "categorical")},
    "priors": lambda: with_priors(Horseshoe(), Fixed(0.1, 3.0)),
    "unseen": lambda: Case(gaussian().spec, designs.make("field with gaps"), np.arange(17.0)),
}


def ridge(n: int = 60) -> Case:
    """Rank 0 and given scales: everything but alpha has a closed form."""
    rng = np.random.default_rng(3)
    design = designs.make("two fields")
    design = design.take(rng.integers(0, design.num_rows, n))
    y = 5 + rng.normal(size=n) + np.asarray(design.blocks[0].index)
    spec = ModelSpec(FM(0), gaussian().spec.likelihood, Fixed(0.2, 1.5), NormalGamma(), Intercept(4.0, 0.5))
    return Case(spec, design, y)


def learner_of(case: Case, expectation: str = "point", **settings: Any) -> Learner:
    """Of data that are known in full."""
    return Learner(
        KEY,
        case.spec,
        case.design,
        case.y,
        expectation=expectation,
        **{"totals": Totals.of(case.design), "options": QUIET, **case.keywords(), **settings},
    )


def rows_of(learner: Learner, case: Case) -> Rows:
    """The rows of the problem as the learner takes them."""
    return learner.rows(case.design, case.y, **case.keywords())


def random_point(learner: Learner, seed: int = 0) -> tuple[jax.Array, Dense]:
    """Numbers of all features and of the padding, which is not zero here, and of everything else."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(0.3 * rng.normal(size=(learner.num_features + 1, *learner.rule.shape)), learner.dtype)
    return x, jax.tree.map(
        lambda a: a + 0.1 * jnp.asarray(rng.normal(size=a.shape), a.dtype), learner.state.dense
    )


def summed(
    learner: Learner, source: Rows, order: np.ndarray, size: int, key: jax.Array = KEY
) -> Callable[[jax.Array, Dense], jax.Array]:
    """Sum of the parts of all batches as a function of the parameters."""
    learner.batcher.batch_size = size
    cut = [order[i : i + size] for i in range(0, len(order), size)]
    learner.batcher.stack_size = len(cut)
    stack, layout = learner.batcher.stack(source, cut, learner.totals)
    stack = jax.tree.map(jnp.asarray, stack)

    def total(x: jax.Array, dense: Dense) -> jax.Array:
        def part(batch: Any, number: jax.Array) -> jax.Array:
            own = jax.random.fold_in(key, number)
            return log_joint_of_batch(
                learner.rule, layout, learner.model, batch, x[batch.touched], dense, own
            )

        return jnp.sum(jax.vmap(part)(stack, jnp.arange(len(cut))))

    return jax.jit(total)
