"""Updates of Gaussian beliefs about all features of one unit, given the beliefs about everything else.

They are the draws of ``units.py`` with expectations in place of draws: under beliefs theta_j ~ N(m_j, S_j), independent
over features, the optimal belief about feature j has precision P_j and canonical mean b_j,

    P_j = Lambda + sum omega E[h h'],      b_j = Lambda mu + sum omega E[h (z - c)],

expectations being over the other features of every row: E[h h'] = x^2 ((1, q)(1, q)' + C) and
cov(h, c) = x (0, A + C q), with q the mean Q of the others and (C, A) their spread (``predictors/spread.py``).
See docs/math.md, section 30.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from bayesfm.design.arrays import TableArrays
from bayesfm.design.units import FieldUnit, RowGroups, RowsUnit, Steps, TableUnit
from bayesfm.inference.conjugate.blocks import UnitPrior
from bayesfm.inference.conjugate.inverse import Gaussians, posterior
from bayesfm.inference.conjugate.normal import information, pack, sum_by_owner, unpack
from bayesfm.inference.conjugate.tiles import (
    add_to_rows,
    move_residual,
    over_chunk,
    row_derivatives,
    set_features,
    sums_by_owner,
    to_rows,
    with_sentinel,
)
from bayesfm.predictors import FM
from bayesfm.predictors.spread import Spread
from bayesfm.sums import inner

__all__ = ["Others", "table_spread", "update_field", "update_rows", "update_table"]


class Others(NamedTuple):
    """Means of Q and packed spreads of all other units, and which of its rows every data row has (None: the same)."""

    Q: list[Float[Array, "k m"]]
    spread: list[Float[Array, "u m"]]
    code: list[Int[Array, " n_pad"] | None]
    like: Float[Array, " n_pad"]

    def mean(self, rank: int, row: Int[Array, "*s"]) -> Float[Array, "k *s"]:
        """Q of the others in these rows."""
        return self._sum(self.Q, rank, row)

    def second(self, rank: int, row: Int[Array, "*s"]) -> Float[Array, "e *s"]:
        """C and A of the others in these rows, packed."""
        size = rank * (rank + 1) // 2 + rank
        return self._sum([u[:size] for u in self.spread], size, row)

    def sums(
        self, omega: Float[Array, "L C"], row: Int[Array, "L C"], q: Float[Array, "k L C"]
    ) -> Float[Array, "e C"]:
        """Sums over the rows of chunks of omega C and omega (A + C q), packed.

        Entry by entry of C, so that no array of all entries of all rows is built.
        """
        k = q.shape[0]
        i, j = np.tril_indices(k)
        at = [row if code is None else code[row] for code in self.code]

        def summed(tables: list[Array]) -> Float[Array, "L C"]:
            zero = jnp.zeros(row.shape, self.like.dtype)
            return sum((table[here] for table, here in zip(tables, at, strict=True)), start=zero)

        def entry(
            d: Float[Array, "k L C"], own: tuple[list[Array], Array, Array]
        ) -> tuple[Float[Array, "k L C"], Float[Array, " C"]]:
            tables, i, j = own
            c = omega * summed(tables)
            d = d.at[i].add(c * q[j])
            return d.at[j].add(jnp.where(i == j, 0.0, c * q[i])), over_chunk(c)

        if not k:
            return jnp.zeros_like(omega, shape=(0, row.shape[1]))
        d = jnp.stack([omega * summed([u[len(i) + f] for u in self.spread]) for f in range(k)])
        tables = [u[: len(i)] for u in self.spread]
        d, of_C = lax.scan(entry, d, (tables, jnp.asarray(i), jnp.asarray(j)))
        return jnp.concatenate([of_C, over_chunk(d)])

    def _sum(self, tables: list[Array], size: int, row: Int[Array, "*s"]) -> Float[Array, "_ *s"]:
        out = jnp.zeros((size, *row.shape), self.like.dtype)
        for table, code in zip(tables, self.code, strict=True):
            out = out + table[:, row if code is None else lax.optimization_barrier(code[row])]
        return out


def update_field(
    predictor: FM,
    unit: FieldUnit,
    own: Gaussians,
    prior: UnitPrior,
    others: Others,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
) -> tuple[Gaussians, Float[Array, " n_pad"]]:
    """Beliefs about a one-hot field; also the residual z - E[eta], brought up to date."""
    rows = unit.rows
    h = row_derivatives(predictor, rows, lambda row: others.mean(predictor.rank, row))
    r_rows = r[rows.row]
    G, g, C, d = _sums_of_rows(predictor, rows, h, others, omega, r_rows)
    packed = pack(*_with_spread(G, g, C, d + _times(C, own.mean[1:])))
    new = posterior(packed, own.mean, *prior)
    r_rows = move_residual(rows, h, new.mean - own.mean, r_rows)
    return new, to_rows(rows, r_rows, r)


def update_rows(
    predictor: FM,
    unit: RowsUnit,
    own: Gaussians,
    prior: UnitPrior,
    others: Others,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
) -> tuple[Gaussians, Float[Array, " n_pad"]]:
    """Beliefs about features that live on the data rows, colour after colour, with Q and spread cached per row."""
    k, every_row = predictor.rank, jnp.arange(r.shape[0])
    q = predictor.summarize(unit.table, own.mean)[1:] + others.mean(k, every_row)
    spread = table_spread(unit.table, own)[:-2] + others.second(k, every_row)
    precision, mean = prior.with_sentinel()

    def step(carry: tuple[Array, ...], now: Steps) -> tuple[tuple[Array, ...], None]:
        theta, cov, log_det, q, spread, r = carry
        m, S, x, weight = theta[:, now.feature], cov[..., now.feature], now.value, omega[now.row]
        before = _step_spread(m, S, now)
        C, A = unpack(spread[:, now.row] - before, k)
        h = predictor.derivative(q[:, now.row] - x * m[1:, None, now.owner], x)
        # The gradient is at the present mean, which is in q: A + C q is of the others' spread, but of everyone's mean.
        extra = over_chunk(weight * pack(x * x * C, x * (A + _times(C, q[:, now.row]))))
        packed = jnp.concatenate([information(h, weight, r[now.row]), extra])
        packed = sum_by_owner(packed, now.owner, now.feature.shape[0]).T
        packed = pack(*_with_spread(*_unpack_both(packed, k)))
        new = posterior(packed, m, precision[..., now.feature], mean[:, now.feature])
        delta = (new.mean - m)[:, None, now.owner]
        q = add_to_rows(q, now, x * delta[1:])
        r = add_to_rows(r[None], now, -inner(h, delta)[None])[0]
        spread = add_to_rows(spread, now, _step_spread(new.mean, new.cov, now) - before)
        return (*_set(theta, cov, log_det, now, new), q, spread, r), None

    carry = _scan(step, (*_sentinels(own), q, spread, r), unit.steps)
    return _without_sentinels(*carry[:3]), carry[-1]


def update_table(
    predictor: FM,
    unit: TableUnit,
    own: Gaussians,
    prior: UnitPrior,
    others: Others,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
) -> tuple[Gaussians, Float[Array, " n_pad"]]:
    """Beliefs about a relation block, from sums over the data rows of every block row.

    Of a block row with summary (E, Q) these are W = sum omega, sum omega q, sum omega (q q' + C), and the gradient by
    its summary, to which the uncertainty of the other units adds -sum omega (0, A + C (q + Q)).
    """
    rows, k = unit.rows, predictor.rank
    h = row_derivatives(predictor, rows, lambda row: others.mean(k, row))
    q = predictor.summarize(unit.table, own.mean)[1:]
    r_rows = r[rows.row]
    G, g, C, d = _sums_of_rows(predictor, rows, h, others, omega, r_rows)
    weight, sum_q = with_sentinel(G[0, 0]), with_sentinel(G[0, 1:])
    G, g = (with_sentinel(x) for x in _with_spread(G, g, C, d + _times(C, q)))
    q, spread = with_sentinel(q), with_sentinel(table_spread(unit.table, own)[:-2])
    precision, mean = prior.with_sentinel()

    def step(carry: tuple[Array, ...], now: Steps) -> tuple[tuple[Array, ...], None]:
        theta, cov, log_det, moved, spread = carry
        m, S, x = theta[:, now.feature], cov[..., now.feature], now.value
        before = _step_spread(m, S, now)
        C, A = unpack(spread[:, now.row] - before, k)
        moved_row, G_row, W = moved[:, now.row], G[:, :, now.row], weight[now.row]
        whole = q[:, now.row] + moved_row[1:]
        u = whole - x * m[1:, None, now.owner]
        P, b = predictor.pull_back(u, x, G_row, g[:, now.row] - inner(G_row, moved_row[None], axis=1))
        d = x * (W * (A + _times(C, whole)) + _times(C, sum_q[:, now.row]))
        packed = over_chunk(pack(*_with_spread(P, b, x * x * W * C, d)))
        packed = sum_by_owner(packed, now.owner, now.feature.shape[0]).T
        new = posterior(packed, m, precision[..., now.feature], mean[:, now.feature])
        moved = add_to_rows(moved, now, predictor.step(u, x, (new.mean - m)[:, None, now.owner]))
        spread = add_to_rows(spread, now, _step_spread(new.mean, new.cov, now) - before)
        return (*_set(theta, cov, log_det, now, new), moved, spread), None

    carry = _scan(step, (*_sentinels(own), jnp.zeros_like(g), spread), unit.steps)
    r_rows = move_residual(rows, h, carry[3][:, :-1], r_rows)
    return _without_sentinels(*carry[:3]), to_rows(rows, r_rows, r)


def table_spread(table: TableArrays, own: Gaussians) -> Float[Array, "u m"]:
    """Packed spreads of the rows of a table."""
    by_entry = Spread.of_features(own.mean[:, table.feature], own.cov[..., table.feature], table.value)
    summed = jax.ops.segment_sum(by_entry.packed().T, table.row, table.num_rows, indices_are_sorted=True)
    return summed.T


def _sums_of_rows(
    predictor: FM,
    rows: RowGroups,
    h: Any,
    others: Others,
    omega: Float[Array, " n_pad"],
    r_rows: Float[Array, "T L C"],
) -> tuple[Array, Array, Array, Array]:
    """Sums over the rows of every owner: of omega (1, q)(1, q)', omega r (1, q), omega C and omega (A + C q)."""

    def terms(row: Array, omega: Array, r: Array) -> Float[Array, "q C"]:
        own = h(row)
        return jnp.concatenate([information(own, omega, r), others.sums(omega, row, own[1:])])

    packed = sums_by_owner(rows, terms, omega[rows.row], r_rows).T
    return _unpack_both(packed, predictor.rank)


def _unpack_both(packed: Float[Array, "q *J"], k: int) -> tuple[Array, Array, Array, Array]:
    size = (k + 1) * (k + 2) // 2 + k + 1
    return (*unpack(packed[:size], k + 1), *unpack(packed[size:], k))


def _with_spread(G: Array, g: Array, C: Array, d: Array) -> tuple[Array, Array]:
    """Information and gradient on (w, v) with those on v alone that come of others' uncertainty."""
    return G.at[1:, 1:].add(C), g.at[1:].add(-d)


def _times(C: Float[Array, "k k ..."], q: Float[Array, "k ..."]) -> Float[Array, "k ..."]:
    return inner(C, q[None], axis=1) if len(q) else q


def _step_spread(m: Float[Array, "K J"], S: Float[Array, "K K J"], now: Steps) -> Float[Array, "e L C"]:
    """C and A of every entry of a step, packed."""
    entries = m[:, None, now.owner], S[:, :, None, now.owner]
    return Spread.of_features(*entries, now.value).packed()[:-2]


def _scan(step: Any, carry: tuple[Array, ...], steps: tuple[Steps, ...]) -> tuple[Array, ...]:
    for bucket in steps:
        carry, _ = lax.scan(step, carry, bucket)
    return carry


def _sentinels(own: Gaussians) -> tuple[Array, Array, Array]:
    return with_sentinel(own.mean), with_sentinel(own.cov), with_sentinel(own.log_det)


def _without_sentinels(mean: Array, cov: Array, log_det: Array) -> Gaussians:
    return Gaussians(mean[:, :-1], cov[..., :-1], log_det[:-1])


def _set(theta: Array, cov: Array, log_det: Array, now: Steps, new: Gaussians) -> tuple[Array, Array, Array]:
    K, m = theta.shape
    flat = set_features(cov.reshape(K * K, m), now, new.cov.reshape(K * K, -1))
    log_det = set_features(log_det[None], now, new.log_det[None])[0]
    return set_features(theta, now, new.mean), flat.reshape(K, K, m), log_det
