"""The chain runner: sweeps in jitted pieces, the host in between.

A sweep's key depends on the chain's key and on the number of the sweep alone, so the size of the pieces, an
interruption and a resumption leave no trace in the draws.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, Float, Int, Key

from bayesfm.inference.checkpoint import DrawStore, fingerprint, open_store
from bayesfm.inference.convergence import Judgement
from bayesfm.inference.course import Course, Trace
from bayesfm.inference.draws import StreamedMoments
from bayesfm.inference.identified import Identified
from bayesfm.inference.kernel import Kernel, State
from bayesfm.inference.options import ChainOptions
from bayesfm.inference.progress import ProgressBar

__all__ = ["ChainOptions", "Progress", "run_chains"]

PIECE_SECONDS = 1.0
"""Aim for the time between two looks of the host."""
BUFFER_BYTES = 1 << 26
"""Draws held on the device between two looks."""


class Progress(NamedTuple):
    """What a callback sees; ``judged`` is the last look of a run that finds out for itself when it is done."""

    sweep: int
    num_sweeps: int
    warming_up: bool
    sweeps_per_second: float
    stats: dict[str, Float[np.ndarray, " chain"]]
    streams: dict[str, StreamedMoments]
    judged: Judgement | None = None


class Carry(NamedTuple):
    """State of a chain, and per stream the running mean and sum of squares of E[y], and mean of var[y] (Welford).

    ``num_draws`` are those since the warm-up, each kept one counted for all that it stands for.
    """

    state: State
    num_draws: Int[Array, ""]
    moments: dict[str, tuple[Array, Array, Array]]


def run_chains(
    kernel: Kernel,
    key: Key[Array, ""],
    options: ChainOptions,
    states: State | None = None,
    *,
    law: Identified | None = None,
    restarts: bool = True,
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
    law : Identified, optional
        Which scalars of a draw can be compared between chains: what ``num_samples="auto"`` looks at.
    restarts : bool
        Whether such a run chooses its warm-up. A kernel that adapts in a warm-up of fixed length says no.

    Returns
    -------
    sites, stats : dict
        Arrays of shape (chain, draw, ...).
    streams : dict
        Moments per stream.
    info : dict
        Seconds, sweeps per second, chain method; lengths and what ended the run, if it found out for itself.

    Raises
    ------
    FloatingPointError
        If a chain leaves the finite numbers.
    ValueError
        If the run is to find out for itself when it is done, and nobody says what is identified.
    """
    began = time.perf_counter()
    if options.auto and law is None:
        raise ValueError("num_samples='auto' needs law=, the scalars of a draw that chains are compared by")
    k_init, k_sweeps = jax.random.split(key)
    chain_keys = jax.random.split(k_sweeps, options.num_chains)
    method, advance, place = _plan(options)
    carry = _start_all(kernel, jax.random.split(k_init, options.num_chains), states)
    shapes = jax.eval_shape(lambda c: kernel.report(c.state), jax.tree.map(lambda x: x[0], carry))
    store = open_store(options, shapes, lambda: fingerprint((kernel, key), options.identity(method)))
    carry, sweeps = store.load(carry)
    trace = None
    if options.auto and law is not None:
        trace = Trace(law, options.capacity, law.sources({**shapes[0], **shapes[1]}))
    course = Course(options, trace, restarts, sweeps, int(carry.num_draws[0]), began=began)
    if trace is not None and course.kept:
        trace.append(store.read(trace.sources, course.kept), 0)
    buffer = _new_buffer(shapes, options)
    if place is not None:
        carry, chain_keys, buffer = jax.device_put((carry, chain_keys, buffer), place)
    with ProgressBar(options.progress, options.num_sweeps, sweeps) as bar:
        first = _loop(kernel, carry, chain_keys, buffer, advance, store, course, bar)
    sites, stats = store.finish(course.kept)
    info = {"chain_method": method, "seconds": time.perf_counter() - began, "seconds_to_first_piece": first}
    return sites, stats, store.streams, {**info, **course.record()}


_start_all = jax.jit(lambda kernel, keys, states=None: jax.vmap(partial(_start, kernel))(keys, states))


def _loop(
    kernel: Kernel,
    carry: Carry,
    chain_keys: Key[Array, " chain"],
    buffer: Any,
    advance: Callable,
    store: DrawStore,
    course: Course,
    bar: ProgressBar,
) -> float:
    """Piece after piece; return the seconds until the first piece was done."""
    options, room = course.options, jax.tree.leaves(buffer)[0].shape[1]
    clock, rate, first_seconds = time.perf_counter(), 0.0, 0.0
    carry = _look(course, carry, store)  # a run that goes on may have been done
    while (piece := course.next_piece(room, max(1, int(rate * PIECE_SECONDS)) if rate else 4)) is not None:
        warming_up, before = course.warming_up, course.sweeps
        if course.halving and course.trace is not None:
            store.halve(course.kept)
            course.trace.halve(course.kept)
        carry, buffer = advance(
            kernel, carry, chain_keys, buffer, before, piece.draws, piece.sweeps, piece.weight
        )
        sites, stats = (
            {name: np.asarray(x)[:, : piece.draws] for name, x in part.items()} for part in buffer
        )
        last = {name: x[:, -1].copy() for name, x in stats.items()}
        _check_finite(last, before)
        course.done(piece)
        if not warming_up:
            store.append(sites, stats, course.kept - piece.draws)
            if course.trace is not None:
                course.trace.append({**sites, **stats}, course.kept - piece.draws)
        store.save(jax.tree.leaves(carry), course.sweeps, course.draws)
        del sites, stats  # views of the buffer that is about to be given away
        carry = _look(course, carry, store)
        now = time.perf_counter()
        first_seconds = first_seconds or now - clock
        rate, clock = piece.draws * piece.sweeps / max(now - clock, 1e-9), now
        bar.update(course.sweeps, warming_up, rate, last, course.judged)
        if options.callback is not None:
            moments = stream_moments(carry)
            seen = Progress(course.sweeps, options.num_sweeps, warming_up, rate, last, moments, course.judged)
            if options.callback(seen):
                course.stopped_by = course.stopped_by or "callback"
    store.streams = stream_moments(carry)
    return first_seconds


def _look(course: Course, carry: Carry, store: DrawStore) -> Carry:
    """Let the run look at its draws; where they turn out to be warm-up, forget them and their moments."""
    if not course.look():
        return carry
    carry = carry._replace(**jax.tree.map(_zeros, {"num_draws": carry.num_draws, "moments": carry.moments}))
    # Before the next draw is written over the first of those that the saved state has.
    store.save(jax.tree.leaves(carry), course.sweeps, 0)
    return carry


def _zeros(x: Array) -> Array:
    """Where x is, and no more bound to it than x: the compiled piece would be compiled again."""
    zeros = jnp.zeros(x.shape, x.dtype)
    return jax.device_put(zeros, x.sharding) if x.committed else zeros


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
    weight: Int[Array, ""],
) -> tuple[Carry, Any]:
    """``count`` draws of ``thin`` sweeps each, the first sweep having number ``first``.

    A draw counts ``weight`` times in the moments: those that are kept late in a long run stand for several.
    """
    key_sweeps, key_moments = jax.random.split(key)

    def one_draw(t: Array, loop: tuple[Carry, Any]) -> tuple[Carry, Any]:
        carry, buffer = loop

        def one_sweep(i: Array, state: State) -> State:
            return kernel.sweep(jax.random.fold_in(key_sweeps, first + t * thin + i), state)

        state = lax.fori_loop(0, thin, one_sweep, carry.state)
        buffer = jax.tree.map(lambda b, x: b.at[t].set(x), buffer, kernel.report(state))
        carry = carry._replace(state=state)
        add = partial(_add_moments, kernel, key_moments, weight)
        return lax.cond(weight > 0, add, lambda c: c, carry), buffer

    return lax.fori_loop(0, count, one_draw, (carry, buffer))


def _add_moments(kernel: Kernel, key: Key[Array, ""], weight: Int[Array, ""], carry: Carry) -> Carry:
    count = carry.num_draws + weight
    key = jax.random.fold_in(key, count)
    moments = {}
    for name, (now, noise_now) in kernel.moments(key, carry.state).items():
        mean, square, noise = carry.moments[name]
        delta = now - mean
        mean = mean + weight * delta / count
        square = square + weight * delta * (now - mean)
        # A variance may be infinite: no difference of two.
        moments[name] = (mean, square, noise * (1 - weight / count) + weight * noise_now / count)
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
    capacity = int(np.clip(BUFFER_BYTES // max(1, draw_bytes), 1, options.capacity))
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
