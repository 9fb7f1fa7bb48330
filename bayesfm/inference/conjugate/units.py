"""Draws of all features of one unit given everything else: fields, relation blocks, plain rows.

Each update walks through *factor blocks*: the parameters (w_j, v_jf for f in the block) of every feature are drawn
jointly, one block of factors after the other. One block of all factors is the joint draw; blocks of one factor are the
classic factor-by-factor order. All are exact; they differ in cost and mixing.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bayesfm.design.units import FieldUnit, RowsUnit, Steps, TableUnit
from bayesfm.inference.conjugate.blocks import FactorBlocks, OtherFactors, UnitPrior
from bayesfm.inference.conjugate.collapsed import FieldPrior
from bayesfm.inference.conjugate.elimination import eliminate, substitute
from bayesfm.inference.conjugate.noise import MaybeKey, standard_normal, three
from bayesfm.inference.conjugate.normal import draw, information, pack, sum_by_owner, unpack
from bayesfm.inference.conjugate.state import Hypers
from bayesfm.inference.conjugate.tiles import (
    add_to_rows,
    information_by_owner,
    move_residual,
    over_chunk,
    row_derivatives,
    scan_steps,
    set_features,
    to_rows,
    with_sentinel,
)
from bayesfm.predictors import FM
from bayesfm.sums import inner

__all__ = ["update_field", "update_rows", "update_table"]


def update_field(
    key: MaybeKey,
    predictor: FM,
    unit: FieldUnit,
    blocks: FactorBlocks,
    theta: Float[Array, "K m"],
    prior: UnitPrior,
    others: OtherFactors,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
    field_prior: FieldPrior,
    hyper: Hypers,
) -> tuple[Float[Array, "K m"], Float[Array, " n_pad"], Hypers]:
    """Draw theta of a one-hot field; return it with the residual z - eta brought up to date.

    Hyperparameters of w and of a factor are drawn along with every block, which is integrated out.
    """
    rows = unit.rows
    omega_rows = omega[rows.row]

    def body(
        key: MaybeKey, s: Int[Array, ""], carry: tuple[Array, Array, Hypers]
    ) -> tuple[Float[Array, "K m"], Float[Array, "T L C"], Hypers]:
        theta, r_rows, hyper = carry
        own, block = blocks.take(theta, s), prior.block(blocks, s, theta)
        key_last, key_scales, key_noise = three(key)
        last = field_prior.last(key_last, blocks.size)
        h = row_derivatives(predictor, rows, others.at_rows(s, blocks.size))
        packed = information_by_owner(rows, h, omega_rows, r_rows)
        L, corner = eliminate(packed, own, *block.of_v, last)
        hyper, ends = field_prior.drawn(key_scales, hyper, corner, s + last)
        new = substitute(L, ends, last, standard_normal(key_noise, own))
        return blocks.put(theta, s, new), move_residual(rows, h, new - own, r_rows), hyper

    theta, r_rows, hyper = blocks.run(key, body, (theta, r[rows.row], hyper))
    return theta, to_rows(rows, r_rows, r), hyper


def update_table(
    key: MaybeKey,
    predictor: FM,
    unit: TableUnit,
    blocks: FactorBlocks,
    theta: Float[Array, "K p"],
    prior: UnitPrior,
    others: OtherFactors,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
) -> tuple[Float[Array, "K p"], Float[Array, " n_pad"]]:
    """Draw theta of a relation block from sufficient statistics per block row (Rendle, PVLDB 2013).

    The likelihood of a block row's data, as a function of the change of its summary s_b = (E_b, Q_b), is Gaussian with
    information G_b = sum omega (1, q)(1, q)' and g_b = sum omega r (1, q), q being the Q of the other blocks. One pass
    over the n data rows gathers it; the colours of the block then only touch its distinct rows.
    """
    rows = unit.rows
    omega_rows = omega[rows.row]
    Q = predictor.summarize(unit.table, theta)[1:]

    def body(
        key: MaybeKey, s: Int[Array, ""], carry: tuple[Array, Array, Array]
    ) -> tuple[Array, Array, Array]:
        theta, Q, r_rows = carry
        h = row_derivatives(predictor, rows, others.at_rows(s, blocks.size))
        packed = information_by_owner(rows, h, omega_rows, r_rows)
        G, g = unpack(with_sentinel(packed.T), blocks.size + 1)
        q = lax.dynamic_slice_in_dim(Q, s, blocks.size)
        new, q, moved = _colours_of_table(
            key, predictor, unit.steps, blocks.take(theta, s), prior.block(blocks, s, theta), q, G, g
        )
        return (
            blocks.put(theta, s, new),
            lax.dynamic_update_slice_in_dim(Q, q, s, 0),
            move_residual(rows, h, moved, r_rows),
        )

    theta, _, r_rows = blocks.run(key, body, (theta, Q, r[rows.row]))
    return theta, to_rows(rows, r_rows, r)


def _colours_of_table(
    key: MaybeKey,
    predictor: FM,
    steps: tuple[Steps, ...],
    theta: Float[Array, "D p"],
    prior: UnitPrior,
    q: Float[Array, "B m"],
    G: Float[Array, "D D m+1"],
    g: Float[Array, "D m+1"],
) -> tuple[Float[Array, "D p"], Float[Array, "B m"], Float[Array, "D m"]]:
    """Colour after colour on the block rows; also return how far each block row's summary moved."""
    theta, q, (precision, mean) = with_sentinel(theta), with_sentinel(q), prior.with_sentinel()

    def step(carry: tuple[Array, Array], xs: tuple[MaybeKey, Steps]) -> tuple[tuple[Array, Array], None]:
        theta, moved = carry
        key, now = xs
        own, moved_row, G_row = theta[:, now.feature], moved[:, now.row], G[:, :, now.row]
        # q and g of a row have moved with its summary; only the movement is stored.
        u = q[:, now.row] + moved_row[1:] - now.value * own[1:, None, now.owner]
        g_row = g[:, now.row] - inner(G_row, moved_row[None], axis=1)
        P, b = predictor.pull_back(u, now.value, G_row, g_row)
        packed = sum_by_owner(pack(over_chunk(P), over_chunk(b)), now.owner, now.feature.shape[0])
        noise = standard_normal(key, own)
        new = draw(packed, own, precision[..., now.feature], mean[:, now.feature], noise)
        ds = predictor.step(u, now.value, (new - own)[:, None, now.owner])
        return (set_features(theta, now, new), add_to_rows(moved, now, ds)), None

    theta, moved = scan_steps(key, step, (theta, jnp.zeros_like(g)), steps)
    return theta[:, :-1], (q + moved[1:])[:, :-1], moved[:, :-1]


def update_rows(
    key: MaybeKey,
    predictor: FM,
    unit: RowsUnit,
    blocks: FactorBlocks,
    theta: Float[Array, "K p"],
    prior: UnitPrior,
    others: OtherFactors,
    omega: Float[Array, " n_pad"],
    r: Float[Array, " n_pad"],
) -> tuple[Float[Array, "K p"], Float[Array, " n_pad"]]:
    """Draw theta of features that live on the data rows, with q of all units and the residual cached per row."""
    every_row = jnp.arange(r.shape[0])
    Q = predictor.summarize(unit.table, theta)[1:]

    def body(
        key: MaybeKey, s: Int[Array, ""], carry: tuple[Array, Array, Array]
    ) -> tuple[Array, Array, Array]:
        theta, Q, r = carry
        q_others = others.at_rows(s, blocks.size)(every_row)
        q = lax.dynamic_slice_in_dim(Q, s, blocks.size) + q_others
        precision, mean = prior.block(blocks, s, theta).with_sentinel()

        def step(carry: tuple[Array, ...], xs: tuple[MaybeKey, Steps]) -> tuple[tuple[Array, ...], None]:
            theta, q, r = carry
            key, now = xs
            own = theta[:, now.feature]
            u = q[:, now.row] - now.value * own[1:, None, now.owner]
            h = predictor.derivative(u, now.value)
            packed = sum_by_owner(information(h, omega[now.row], r[now.row]), now.owner, now.feature.shape[0])
            noise = standard_normal(key, own)
            new = draw(packed, own, precision[..., now.feature], mean[:, now.feature], noise)
            delta = (new - own)[:, None, now.owner]
            q = add_to_rows(q, now, now.value * delta[1:])
            r = add_to_rows(r[None], now, -inner(h, delta)[None])[0]
            return (set_features(theta, now, new), q, r), None

        own, q, r = scan_steps(key, step, (with_sentinel(blocks.take(theta, s)), q, r), unit.steps)
        Q = lax.dynamic_update_slice_in_dim(
            Q, q - q_others, s, 0
        )  # the next block may share factors with this one
        return blocks.put(theta, s, own[:, :-1]), Q, r

    theta, _, r = blocks.run(key, body, (theta, Q, r))
    return theta, r
