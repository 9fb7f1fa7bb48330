"""A design on the device as an argument of models: what a NumPyro model with a term of ours takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from bayesfm.design import Design
from bayesfm.design.arrays import DesignArrays
from bayesfm.design.gradient import GradientArrays

__all__ = ["OnDevice", "on_device"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OnDevice:
    """A design on the device with its prior groups: what :func:`fm_term` takes. Made by :func:`on_device`.

    A pytree, so that it can be an argument of a model: other rows at predict time are another argument.

    Attributes
    ----------
    arrays
        Blocks; n rows, p features.
    groups
        Prior group of every feature, shape (p,).
    num_groups
        Number of groups; one without features keeps its prior.
    blocks
        Name, first feature and end of every block.
    group_names
        Names of the groups, for priors that are given per group.
    """

    arrays: DesignArrays
    groups: Int[Array, " p"]
    num_groups: int = field(metadata={"static": True})
    blocks: tuple[tuple[str, int, int], ...] = field(metadata={"static": True}, default=())
    group_names: tuple[str, ...] = field(metadata={"static": True}, default=())

    @property
    def num_rows(self) -> int:
        """Number n of rows."""
        return self.arrays.num_rows

    @property
    def num_features(self) -> int:
        """Number p of features."""
        return self.arrays.num_features

    def per_feature(self, values: Mapping[str, ArrayLike]) -> Float[Array, "p *d"]:
        """Values of the features of some blocks, zero for all others: a ``mean_w`` or ``mean_v`` of :func:`fm_term`.

        Parameters
        ----------
        values : mapping of str to array
            By name of the block, of shape (features of the block,) for w, (features of the block, rank) for v.

        Returns
        -------
        array of shape (p,) or (p, rank)

        Raises
        ------
        ValueError
            For a block that the design does not have, or values of another shape.

        Examples
        --------
        >>> import bayesfm
        >>> fields = [bayesfm.Block.field(name, [0, 1], range(2)) for name in ("user", "item")]
        >>> bayesfm.on_device(bayesfm.Design(fields)).per_feature({"item": [0.5, 1.5]}).tolist()
        [0.0, 0.0, 0.5, 1.5]
        """
        places = {name: (start, stop) for name, start, stop in self.blocks}
        unknown = sorted(set(values) - set(places))
        if unknown or not values:
            raise ValueError(
                f"values must name blocks of the design ({', '.join(places)}), got {', '.join(unknown) or 'none'}"
            )
        own = {name: jnp.asarray(x) for name, x in values.items()}
        columns = {x.shape[1:] for x in own.values()}
        if len(columns) > 1:
            raise ValueError(f"values of all blocks must have the same columns, got {sorted(columns)}")
        for name, x in own.items():
            start, stop = places[name]
            if x.ndim not in (1, 2) or x.shape[0] != stop - start:
                raise ValueError(
                    f"values of block {name!r} must have shape ({stop - start},) or ({stop - start}, rank), one row "
                    f"per feature of the block; got {x.shape}"
                )
        out = jnp.zeros((self.num_features, *columns.pop()))
        for name, x in own.items():
            start, stop = places[name]
            out = out.at[start:stop].set(x)
        return out


def on_device(design: Design, *, sort: bool = True) -> OnDevice:
    """Copy a design to the device, once, for :func:`fm_term`.

    Levels of a field that no row has are features like others and keep their prior; those that are *unseen*
    (``Block.field(..., unseen=...)``) add nothing.

    Parameters
    ----------
    design : Design
        n rows, p features.
    sort : bool, default=True
        Whether rows are sorted by feature for gradients, which on a CPU are several times faster then. The arrays have
        shapes that depend on which rows these are. For minibatches say False: batches of fields with as many rows have
        the same shapes, so that a compiled step takes any of them.

    Returns
    -------
    OnDevice

    Examples
    --------
    >>> import bayesfm
    >>> design = bayesfm.Design([bayesfm.Block.field("user", [0, 1, 1], ["ann", "bob"])])
    >>> bayesfm.on_device(design).num_rows
    3
    """
    if not isinstance(design, Design):
        raise TypeError(f"design must be a Design, got {type(design).__name__}")
    kind = GradientArrays if sort else DesignArrays
    starts = design.starts.tolist()
    names = [block.name for block in design.blocks]
    return OnDevice(
        kind.from_design(design, jnp.zeros(()).dtype),
        jnp.asarray(design.groups),
        len(design.group_names),
        tuple(zip(names, starts[:-1], starts[1:], strict=True)),
        tuple(str(name) for name in design.group_names),
    )
