"""The order-2 factorization machine: the equation, and what a sampler needs to know of it.

A set of features in one row is summed up by its *summary* ``s = (E, Q)``, an array with leading axis
K = rank + 1: ``E`` is what the set adds to eta by itself, ``Q = sum_j x_j v_j``. Two disjoint sets combine by

    E = E_1 + E_2 + <Q_1, Q_2>,        Q = Q_1 + Q_2,

so eta is affine in the summary of any part of a row, and affine in ``theta_j = (w_j, v_j)`` of one feature.
Everything that Gibbs, ALS and the predictive path need follows from these two lines.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from bayesfm._checks import check_count
from bayesfm._pytree import pytree
from bayesfm.design.arrays import DesignArrays, TableArrays
from bayesfm.sums import inner

__all__ = ["FM"]


@pytree(static=("rank",))
@dataclass(frozen=True)
class FM:
    """Order-2 factorization machine.

    ``eta = w0 + sum_j w_j x_j + 1/2 sum_f [(sum_j v_jf x_j)^2 - sum_j v_jf^2 x_j^2]``.

    Parameters
    ----------
    rank : int, default=8
        Number of factors k >= 0 of the pairwise interactions; 0 leaves a linear model.

    Raises
    ------
    TypeError, ValueError
        If ``rank`` is not an integer, or is negative.

    References
    ----------
    Rendle (2010), Factorization Machines, ICDM, equation 1 and lemma 3.1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from bayesfm.predictors import FM
    >>> fm = FM(rank=2)
    >>> user, item = jnp.array([0.5, 1.0, 2.0]), jnp.array([0.1, 3.0, -1.0])   # (w, v_1, v_2) of two features
    >>> [float(s) for s in fm.combine(user, item)]                             # 0.5 + 0.1 + <v, v'>, v + v'
    [1.600000023841858, 4.0, 1.0]
    """

    rank: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", check_count("rank", self.rank))

    @property
    def width(self) -> int:
        """K = rank + 1, the length of theta_j = (w_j, v_j) and of a summary (E, Q)."""
        return self.rank + 1

    @staticmethod
    def combine(s: Float[Array, "K ..."], t: Float[Array, "K ..."]) -> Float[Array, "K ..."]:
        """Summary of the union of two disjoint sets of features."""
        E = s[:1] + t[:1] + inner(s[1:], t[1:])[None]
        return jnp.concatenate([E, s[1:] + t[1:]])

    @staticmethod
    def derivative(q: Float[Array, "B ..."], x: ArrayLike = 1.0) -> Float[Array, "B+1 ..."]:
        """h = d eta / d (w_j, v_j) = x (1, q), where q is the Q of all *other* features of the row."""
        return jnp.asarray(x) * jnp.concatenate([jnp.ones_like(q, shape=(1, *q.shape[1:])), q])

    @staticmethod
    def step(
        u: Float[Array, "B ..."], x: ArrayLike, delta: Float[Array, "B+1 ..."]
    ) -> Float[Array, "B+1 ..."]:
        """Change of a summary when theta_j of a feature with value x moves by delta.

        ``u`` is the Q of the features that share the summary with j. In matrix form the change is M delta with
        M = x [[1, u'], [0, I]].
        """
        x = jnp.asarray(x)
        dq = x * delta[1:]
        return jnp.concatenate([x * delta[:1] + inner(u, dq)[None], dq])

    @staticmethod
    def step_transpose(
        u: Float[Array, "B ..."], x: ArrayLike, g: Float[Array, "B+1 ..."]
    ) -> Float[Array, "B+1 ..."]:
        """M' g, ``M`` the matrix of :meth:`step`: from the gradient by a summary to that by theta_j."""
        return jnp.asarray(x) * jnp.concatenate([g[:1], u * g[:1] + g[1:]])

    @staticmethod
    def pull_back(
        u: Float[Array, "B ..."],
        x: ArrayLike,
        G: Float[Array, "B+1 B+1 ..."],
        g: Float[Array, "B+1 ..."],
    ) -> tuple[Float[Array, "B+1 B+1 ..."], Float[Array, "B+1 ..."]]:
        """Information on theta_j from information (G, g) on the change of a summary: (M' G M, M' g).

        ``M`` is the matrix of :meth:`step`.
        """
        x = jnp.asarray(x)
        W, A, C = G[0, 0], G[0, 1:], G[1:, 1:]
        top = W * u + A
        lower = u[:, None] * top[None] + A[:, None] * u[None] + C
        P = jnp.concatenate(
            [
                jnp.concatenate([W[None], top])[None],
                jnp.concatenate([top[:, None], lower], axis=1),
            ]
        )
        return x * x * P, FM.step_transpose(u, x, g)

    @staticmethod
    def summarize(table: TableArrays, theta: Float[Array, "K p"]) -> Float[Array, "K m"]:
        """Summaries (E, Q) of the m rows of a sparse table whose features have parameters theta."""
        xt = table.value * theta[:, table.feature]

        def over_row(a: Float[Array, "... z"]) -> Float[Array, "... m"]:
            return jax.ops.segment_sum(a.T, table.row, table.num_rows, indices_are_sorted=True).T

        # (x v)^2 is formed from the same product as Q, so that a row with one feature has E = x w exactly.
        Q = over_row(xt[1:])
        pairs = 0.5 * (inner(Q, Q) - over_row(inner(xt[1:], xt[1:])))
        return jnp.concatenate([(over_row(xt[0]) + pairs)[None], Q])

    def eta(
        self, design: DesignArrays, w0: Float[Array, ""], w: Float[Array, " p"], v: Float[Array, "p k"]
    ) -> Float[Array, " n"]:
        """Linear predictor of every row of a design.

        Parameters
        ----------
        design : DesignArrays
            The design on the device, n rows and p features.
        w0, w, v : arrays of shape (), (p,), (p, rank)
            Intercept, linear weights, factors.

        Returns
        -------
        array of shape (n,)
        """
        return w0 + design.row_effect(self, jnp.concatenate([w[None], v.T]))

    def split(self, theta: Float[Array, "K p"]) -> dict[str, Array]:
        """The named parameters in theta: ``w`` (p,) and ``v`` (p, rank)."""
        return {"w": theta[0], "v": theta[1:].T}

    def join(self, w: Float[Array, " p"], v: Float[Array, "p k"]) -> Float[Array, "K p"]:
        """Inverse of :meth:`split`."""
        return jnp.concatenate([w[None], v.T])
