"""Steps on what is touched, against steps on everything."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfm.inference.stochastic import Learner, MinibatchOptions
from bayesfm.inference.stochastic.objective import log_joint_of_batch
from bayesfm.inference.stochastic.optimisers import named_optimiser, pack, unpack
from tests.inference.stochastic.problems import KEY, PROBLEMS, learner_of, rows_of


def gradients(learner: Learner, stack: Any, layout: Any) -> Any:
    """Gradient of a batch's loss by all parameters, those that are not touched included."""

    def loss(params: Any, batch: Any) -> jax.Array:
        x, dense = params
        own = x[batch.touched].reshape(-1, *learner.rule.shape)
        part = log_joint_of_batch(learner.rule, layout, learner.model, batch, own, dense, KEY)
        return -part / learner.batcher.batch_size

    grad = jax.jit(jax.grad(loss))
    return lambda params, b: grad(params, jax.tree.map(lambda a: a[b], stack))


class OneAdamEach:
    """Adam in NumPy, for every feature by itself: a step is one in which the feature was touched."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.m, self.v, self.t = np.zeros(shape), np.zeros(shape), np.zeros(shape[0], int)

    def move(self, g: np.ndarray, touched: np.ndarray) -> np.ndarray:
        self.t[touched] += 1
        self.m[touched] = 0.9 * self.m[touched] + 0.1 * g[touched]
        self.v[touched] = 0.999 * self.v[touched] + 0.001 * g[touched] ** 2
        t = np.maximum(self.t, 1)[:, None]
        return np.where(
            np.isin(np.arange(len(g)), touched)[:, None],
            -(self.m / (1 - 0.9**t)) / (np.sqrt(self.v / (1 - 0.999**t)) + 1e-10),
            0.0,
        )


@pytest.mark.parametrize("name", ["sgd", "adam", "momentum"])
def test_lazy_steps(name: str) -> None:
    """Two epochs in float64. Descent: the dense steps of optax on everything.

    Adam and momentum: one optimiser per feature, which sleeps while the feature is not touched.
    """
    case = PROBLEMS["relation blocks"]()
    mine: Any = optax.trace(0.9) if name == "momentum" else name
    options = MinibatchOptions(
        batch_size=3, optimiser=mine, learning_rate=0.03, schedule="constant", progress=False
    )
    with jax.enable_x64():
        learner = learner_of(case, options=options)
        if name == "momentum":  # optax's direction goes up: a rate of its own turns it round
            learner.options = MinibatchOptions(batch_size=3, optimiser=mine, learning_rate=lambda _: -0.03)
        source = rows_of(learner, case)
        p, width = learner.num_features, learner.rule.width
        order = np.concatenate([np.arange(17), np.arange(17)[::-1]])
        cut = [order[i : i + 3] for i in range(0, 34, 3)]
        learner.batcher.stack_size = len(cut)
        stack, layout = learner.batcher.stack(source, cut, learner.totals)
        x, dense = jax.tree.map(jnp.copy, (learner.state.table[:, :width], learner.state.dense))
        gradient = gradients(learner, stack, layout)
        for _ in learner.run(source, order):
            pass
        units, of_dense = np.asarray(learner.units[0]), learner.units[1]
        rule = named_optimiser(name) if name == "sgd" else learner.rule.optimiser
        state, adam = rule.init(x), OneAdamEach((p + 1, width))
        dense_state, memory = learner.rule.optimiser.init(dense), np.zeros((p + 1, width))
        rate = -0.03 if name == "momentum" else 0.03
        for b in range(len(cut)):
            of_x, of_rest = gradient((x, dense), b)
            touched = np.unique(stack.touched[b])
            if name == "sgd":
                moves, state = rule.update(of_x, state, x)
            elif name == "adam":
                moves = jnp.asarray(adam.move(np.asarray(of_x), touched))
            else:
                memory[touched] = np.asarray(of_x)[touched] + 0.9 * memory[touched]
                moves = jnp.asarray(np.where(np.isin(np.arange(p + 1), touched)[:, None], memory, 0.0))
            x += rate * units * moves
            moves, dense_state = learner.rule.optimiser.update(of_rest, dense_state, dense)
            dense = jax.tree.map(lambda d, u, m: d + rate * u * m, dense, of_dense, moves)
        np.testing.assert_allclose(learner.state.table[:p, :width], x[:p], rtol=1e-8, atol=1e-10)
        jax.tree.map(
            lambda a, c: np.testing.assert_allclose(a, c, rtol=1e-8, atol=1e-10), learner.state.dense, dense
        )


def test_rows_of_the_table_hold_parameters_and_memory() -> None:
    optimiser = optax.chain(optax.scale_by_adam(), optax.trace(0.5))
    x = jnp.arange(12.0).reshape(4, 3)
    memory = jax.vmap(optimiser.init)(x)
    memory = jax.tree.map(lambda a: a + jnp.arange(a.size, dtype=a.dtype).reshape(a.shape), memory)
    back, again = unpack(pack(x, memory), optimiser, 3)
    np.testing.assert_array_equal(back, x)
    jax.tree.map(np.testing.assert_array_equal, again, memory)
    assert jax.tree.map(lambda a: a.dtype, again) == jax.tree.map(lambda a: a.dtype, memory)


def test_a_name_is_one_object() -> None:
    """Programs are compiled once for every optimiser object."""
    assert named_optimiser("adam") is named_optimiser("adam")
    with pytest.raises(ValueError, match="optimiser must be one of 'adam', 'adagrad', 'sgd'"):
        named_optimiser("newton")
