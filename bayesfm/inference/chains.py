"""The chain runner: sweeps in jitted pieces, the host in between.

A sweep's key depends on the chain's key and on the number of the sweep alone, so the size of the pieces, an
interruption and a resumption leave no trace in the draws.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, Bool, Float, Int, Key

from bayesfm._checks import check_choice, check_count
from bayesfm.inference.checkpoint import DrawStore, fingerprint, open_store
from bayesfm.inference.draws import StreamedMoments
from bayesfm.inference.kernel import Kernel, State
from bayesfm.inference.progress import ProgressBar

__all__ = ["ChainOptions", "Progress", "run_chains"]

CHAIN_METHODS = ("auto", "sequential", "vectorized", "parallel")
PIECE_SECONDS = 1.0
"""Aim for the time between two looks of the host."""
BUFFER_BYTES = 1 << 26
"""Draws held on the device between two looks."""


@dataclass(frozen=True)
class ChainOptions:
    """How many sweeps, and how they are run.

    Parameters
    ----------
    num_warmup, num_samples, thin, num_chains : int
        Sweeps thrown away; draws kept per chain; sweeps per draw; chains.
    chain_method : {"auto", "sequential", "vectorized", "parallel"}
        One after the other; batched by vmap; spread over the devices that JAX sees. "auto" takes parallel where there
        are as many devices as chains, else sequential on a CPU and vectorized elsewhere. Draws are bit-identical for
        the same method, device and versions.
    progress : bool
        Show a bar.
    callback : callable, optional
        Called with a :class:`Progress` after every piece; a true answer stops the run, keeping the draws so far.
    checkpoint : path, optional
        Folder for the state and, as a Zarr group, the draws; written after every piece.
    resume : bool
        Go on from ``checkpoint`` as if never interrupted.
    draws_on_disk : bool
        Leave draws in the checkpoint's Zarr group instead of in memory.
    """

    num_warmup: int = 200
    num_samples: int = 500
    thin: int = 1
    num_chains: int = 2
    chain_method: str = "auto"
    progress: bool = True
    callback: Callable[[Progress], Any] | None = None
    checkpoint: str | Path | None = None
    resume: bool = False
    draws_on_disk: bool = False

    def __post_init__(self) -> None:
        check_count("num_warmup", self.num_warmup)
        for name in ("num_samples", "thin", "num_chains"):
            check_count(name, getattr(self, name), minimum=1)
        check_choice("chain_method", self.chain_method, CHAIN_METHODS)
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback must be callable, got {self.callback!r}")
        for name in ("resume", "draws_on_disk"):
            if getattr(self, name) and self.checkpoint is None:
                raise ValueError(f"{name}=True needs checkpoint=, the folder that holds the run")

    @property
    def num_sweeps(self) -> int:
        """Sweeps per chain, warm-up included."""
        return self.num_warmup + self.num_samples * self.thin

    def draws_after(self, sweeps: int) -> int:
        """Draws per chain once that many sweeps are done."""
        return max(0, sweeps - self.num_warmup) // self.thin

    def identity(self, method: str) -> dict[str, Any]:
        """What must not differ between a run and its resumption."""
        names = ("num_warmup", "num_samples", "thin", "num_chains")
        return {**{name: getattr(self, name) for name in names}, "chain_method": method}


class Progress(NamedTuple):
    """What a callback sees."""

    sweep: int
    num_sweeps: int
    warming_up: bool
    sweeps_per_second: float
    stats: dict[str, Float[np.ndarray, " chain"]]
    streams: dict[str, StreamedMoments]


class Carry(NamedTuple):
    """State of a chain, and per stream the running mean and sum of squares of E[y], and mean of var[y] (Welford)."""

    state: State
    num_draws: Int[Array, ""]
    moments: dict[str, tuple[Array, Array, Array]]


def run_chains(
    kernel: Kernel, key: Key[Array, ""], options: ChainOptions, states: State | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, StreamedMoments], dict[str, Any]]:
    """Run chains of a kernel.

    Parameters
    ----------
    kernel : Kernel
        A pytree with ``init``, ``sweep``, ``report`` and ``moments``.
    key : typed key
        Everything random follows from it.
    options : ChainOptions
        Counts and the rest.
    states : pytree, optional
        Where to start, the states of all chains side by side; by default where ``kernel.init`` says.

    Returns
    -------
    sites, stats : dict
        Arrays of shape (chain, draw, ...).
    streams : dict
        Moments per stream.
    info : dict
        Seconds, sweeps per second, chain method.

    Raises
    ------
    FloatingPointError
        If a chain leaves the finite numbers.
    """
    began = time.perf_counter()
    k_init, k_sweeps = jax.random.split(key)
    chain_keys = jax.random.split(k_sweeps, options.num_chains)
    method, advance, place = _plan(options)
    carry = _start_all(kernel, jax.random.split(k_init, options.num_chains), states)
    shapes = jax.eval_shape(lambda c: kernel.report(c.state), jax.tree.map(lambda x: x[0], carry))
    store = open_store(options, shapes, lambda: fingerprint((kernel, key), options.identity(method)))
    carry, done = store.load(carry)
    buffer = _new_buffer(shapes, options)
    if place is not None:
        carry, chain_keys, buffer = jax.device_put((carry, chain_keys, buffer), place)
    with ProgressBar(options.progress, options.num_sweeps, done) as bar:
        num_draws, first = _loop(kernel, carry, chain_keys, buffer, advance, store, options, bar, done)
    sites, stats = store.finish(num_draws)
    info = {"chain_method": method, "seconds": time.perf_counter() - began, "seconds_to_first_piece": first}
    return sites, stats, store.streams, info


_start_all = jax.jit(lambda kernel, keys, states=None: jax.vmap(partial(_start, kernel))(keys, states))


def _loop(
    kernel: Kernel,
    carry: Carry,
    chain_keys: Key[Array, " chain"],
    buffer: Any,
    advance: Callable,
    store: DrawStore,
    options: ChainOptions,
    bar: ProgressBar,
    done: int,
) -> tuple[int, float]:
    """Piece after piece; return the number of draws per chain and the seconds until the first piece was done."""
    capacity = jax.tree.leaves(buffer)[0].shape[1]
    clock, rate, first_seconds = time.perf_counter(), 0.0, 0.0
    while done < options.num_sweeps:
        warming_up = done < options.num_warmup
        draw = options.draws_after(done)
        count, thin = _piece(options, done, capacity, rate)
        carry, buffer = advance(kernel, carry, chain_keys, buffer, done, count, thin, not warming_up)
        sites, stats = ({name: np.asarray(x)[:, :count] for name, x in part.items()} for part in buffer)
        last = {name: x[:, -1].copy() for name, x in stats.items()}
        _check_finite(last, done)
        done += count * thin
        if not warming_up:
            store.append(sites, stats, draw)
        store.save(jax.tree.leaves(carry), done, options.draws_after(done))
        del sites, stats  # views of the buffer that is about to be given away
        now = time.perf_counter()
        first_seconds = first_seconds or now - clock
        rate, clock = count * thin / max(now - clock, 1e-9), now
        bar.update(done, warming_up, rate, last)
        if options.callback is not None:
            seen = Progress(done, options.num_sweeps, warming_up, rate, last, stream_moments(carry))
            if options.callback(seen):
                break
    store.streams = stream_moments(carry)
    return options.draws_after(done), first_seconds


def _piece(options: ChainOptions, done: int, capacity: int, rate: float) -> tuple[int, int]:
    """(draws, sweeps per draw) of the next piece. Warm-up is one draw that nobody keeps."""
    sweeps = max(1, int(rate * PIECE_SECONDS)) if rate else 4
    if done < options.num_warmup:
        return 1, min(sweeps, options.num_warmup - done)
    left = options.num_samples - options.draws_after(done)
    return min(capacity, max(1, sweeps // options.thin), left), options.thin


def _start(kernel: Kernel, key: Key[Array, ""], state: State | None) -> Carry:
    state = kernel.init(key) if state is None else state
    shapes = jax.eval_shape(kernel.moments, key, state)
    zeros = {}
    for name, (mean, _) in shapes.items():
        zero = jnp.zeros(mean.shape, mean.dtype)
        zeros[name] = (zero, zero, zero)
    return Carry(state, jnp.asarray(0, jnp.int32), zeros)


def _advance_chain(
    kernel: Kernel,
    carry: Carry,
    key: Key[Array, ""],
    buffer: Any,
    first: Int[Array, ""],
    count: Int[Array, ""],
    thin: Int[Array, ""],
    sampling: Bool[Array, ""],
) -> tuple[Carry, Any]:
    """``count`` draws of ``thin`` sweeps each, the first sweep having number ``first``."""
    key_sweeps, key_moments = jax.random.split(key)

    def one_draw(t: Array, loop: tuple[Carry, Any]) -> tuple[Carry, Any]:
        carry, buffer = loop

        def one_sweep(i: Array, state: State) -> State:
            return kernel.sweep(jax.random.fold_in(key_sweeps, first + t * thin + i), state)

        state = lax.fori_loop(0, thin, one_sweep, carry.state)
        buffer = jax.tree.map(lambda b, x: b.at[t].set(x), buffer, kernel.report(state))
        carry = carry._replace(state=state)
        return lax.cond(sampling, partial(_add_moments, kernel, key_moments), lambda c: c, carry), buffer

    return lax.fori_loop(0, count, one_draw, (carry, buffer))


def _add_moments(kernel: Kernel, key: Key[Array, ""], carry: Carry) -> Carry:
    count = carry.num_draws + 1
    key = jax.random.fold_in(key, count)
    moments = {}
    for name, (now, noise_now) in kernel.moments(key, carry.state).items():
        mean, square, noise = carry.moments[name]
        delta = now - mean
        mean = mean + delta / count
        # A variance may be infinite: no difference of two.
        moments[name] = (mean, square + delta * (now - mean), noise * (1 - 1 / count) + noise_now / count)
    return carry._replace(num_draws=count, moments=moments)


def stream_moments(carry: Carry) -> dict[str, StreamedMoments]:
    """Moments so far, on the host."""
    count = int(np.asarray(carry.num_draws)[0])
    out = {}
    for name, arrays in carry.moments.items():
        mean, square, noise = (np.array(a, np.float64) for a in arrays)
        out[name] = StreamedMoments(mean, square / max(count, 1), noise, count)
    return out


def _sequential(kernel: Kernel, carry: Carry, keys: Array, buffer: Any, *counts: Array) -> tuple[Carry, Any]:
    return lax.map(lambda xs: _advance_chain(kernel, *xs, *counts), (carry, keys, buffer))


def _vectorized(kernel: Kernel, carry: Carry, keys: Array, buffer: Any, *counts: Array) -> tuple[Carry, Any]:
    return jax.vmap(lambda *xs: _advance_chain(kernel, *xs, *counts))(carry, keys, buffer)


# Module-level, so that a second fit of the same shape compiles nothing; carry and buffer are overwritten in place.
_ADVANCE = {
    "sequential": jax.jit(_sequential, donate_argnums=(1, 3)),
    "vectorized": jax.jit(_vectorized, donate_argnums=(1, 3)),
}


@lru_cache(maxsize=8)
def _parallel(mesh: Mesh) -> Callable:
    chain, shared = PartitionSpec("chain"), PartitionSpec()
    run = jax.shard_map(
        _sequential,
        mesh=mesh,
        in_specs=(shared, chain, chain, chain, shared, shared, shared, shared),
        out_specs=chain,
        check_vma=False,
    )
    return jax.jit(run, donate_argnums=(1, 3))


def _plan(options: ChainOptions) -> tuple[str, Callable, Sharding | None]:
    """Chain method, compiled function, and where the chains live."""
    devices = jax.devices()
    method = options.chain_method
    if method == "auto":
        many = 1 < options.num_chains <= len(devices)
        method = "parallel" if many else "sequential" if devices[0].platform == "cpu" else "vectorized"
    if method != "parallel":
        return method, _ADVANCE[method], None
    used = max(d for d in range(1, len(devices) + 1) if options.num_chains % d == 0)
    mesh = Mesh(np.array(devices[:used]), ("chain",))
    return method, _parallel(mesh), NamedSharding(mesh, PartitionSpec("chain"))


def _new_buffer(shapes: Any, options: ChainOptions) -> Any:
    """Room on the device for the draws between two looks of the host."""
    draw_bytes = options.num_chains * sum(s.size * s.dtype.itemsize for s in jax.tree.leaves(shapes))
    capacity = int(np.clip(BUFFER_BYTES // max(1, draw_bytes), 1, options.num_samples))
    return jax.tree.map(lambda s: jnp.zeros((options.num_chains, capacity, *s.shape), s.dtype), shapes)


def _check_finite(stats: dict[str, np.ndarray], done: int) -> None:
    for name, values in stats.items():
        if not np.all(np.isfinite(values)):
            chains = np.flatnonzero(~np.isfinite(values)).tolist()
            raise FloatingPointError(
                f"{name} is not finite in chain(s) {chains} after sweep {done}: the scales of the columns of X, of y "
                "or of the priors are too far apart for float32. Standardise numeric columns, or run with "
                "jax_enable_x64."
            )
