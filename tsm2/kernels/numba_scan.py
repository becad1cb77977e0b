"""The selective scan on the CPU, forward and backward.

The formulas are those of `tsm2.kernels.interface`.

Sizes: E channels, N states per channel, R step rank; a chunk is 16 steps of time, a
tile 16 channels (one vector), a block 8 tiles. One task walks through one sequence, a block of
channels at a time.
Strides matter only where a chunk is copied into the workspace and out of it; in between, the
recurrence takes two states of one tile through the chunk, with h or g in registers. The forward
pass keeps h between chunks, and the backward pass recomputes the h in between.
Source: Gu & Dao (2023), arXiv:2312.00752, section 3.3 (recomputation) and algorithm 2.
"""

# ruff: noqa: N815 (fields are named as in the formulas)

from math import log
from typing import Any, NamedTuple

from tsm2.kernels.numba_rows import Rows, path, row
from tsm2.kernels.numba_vectors import (
    LANES,
    VECTOR_BYTES,
    add_scalar,
    broadcast,
    exp2,
    fill,
    fma,
    inlined,
    load,
    load_lanes,
    prefetch,
    prefetch_to_write,
    sigmoid,
    softplus,
    store,
    store_lanes,
    store_scalar,
    total,
)

__all__ = [
    "STEPS",
    "TILES",
    "Backward",
    "Forward",
    "Scan",
    "backward",
    "forward",
    "workspace_bytes",
]

STEPS = 16
"""Time steps in a chunk. 8, 16 and 32 are equally fast; the shorter, the more states are kept."""
TILES = 8
"""Tiles in a block, at most. 4 to 16 are equally fast, 2 a fifth slower."""

TILE = STEPS * VECTOR_BYTES
BLOCK = TILES * TILE + 9 * VECTOR_BYTES
"""Bytes of one quantity for a block and a chunk, [tile, t]. The 9 vectors keep quantities at
different places of a memory page: equal places look like conflicts to the processor."""


class Scan(NamedTuple):
    """What both passes read."""

    u: Rows
    delta: Rows  # rows of E, or of R if rank is not 0
    z: Rows  # if gated
    B: Rows
    C: Rows
    A: int  # A log2(e), so that a = 2^(dt A), (N paired, padded)
    D: int  # (padded,)
    delta_bias: int  # (padded,)
    W: int  # (R, padded)
    kept: int  # h before every chunk but the first, (sequences, chunks - 1, N, E); or 0
    gated: int
    rank: int
    sequences: int
    length: int
    states: int
    paired: int  # states, up to an even number; what is added to them is zero
    channels: int
    padded: int  # bytes of a row of channels, up to a multiple of a vector
    tiles: int  # in a block
    blocks: int  # in a row


class Forward(NamedTuple):
    """One forward call; a task is a block of channels of a sequence."""

    scan: Scan
    out: Rows


class Backward(NamedTuple):
    """One backward call; a task is a group of blocks of a sequence."""

    scan: Scan
    groups: int
    dout: Rows
    du: Rows
    ddelta: Rows  # as dB if it is of low rank
    dz: Rows
    dB: Rows  # of the first group; starts as zeros
    dC: Rows
    ddelta_group_bytes: int  # from one group's ddelta of low rank to the next
    group_bytes: int  # from one group's dB to the next
    sums: int  # dA, dD, ddelta_bias and dW, (slots, N paired + 2 + R, padded); starts as zeros


class Chunk(NamedTuple):
    """A chunk of time of one block of channels."""

    sequence: int
    start: int
    steps: int
    left: int  # bytes of a row before the block
    lanes: int  # channels from the start of the block to the end of the row
    tiles: int


class Workspace(NamedTuple):
    """Addresses of what one worker keeps at hand."""

    dt: int  # [tile, t]
    v: int  # [tile, t]
    y: int  # [tile, t]
    dy: int  # [tile, t]
    dv: int  # [tile, t]
    ddt: int  # [tile, t], without the part by u, in units of log(2)
    gate: int  # [tile, t], sigmoid of z
    dB_lanes: int  # [t, n], for two n, before the sum over channels
    dC_lanes: int  # [t, n]
    a_path: int  # [t, n], for two n and one tile
    h_path: int  # [t + 1, n]
    h: int  # [n, tile], between chunks; in the backward pass g
    B: int  # [t, n], floats
    C: int  # [t, n], floats
    dB: int  # [t, n], floats
    dC: int  # [t, n], floats
    ddelta_lanes: int  # [r], before the sum over channels


@inlined
def lay_out(start: int, states: int) -> Workspace:
    """Place everything in a worker's memory, fixed sizes first: then offsets are constants."""
    dt = start
    v = dt + BLOCK
    y = v + BLOCK
    dy = y + BLOCK
    dv = dy + BLOCK
    ddt = dv + BLOCK
    gate = ddt + BLOCK
    dB_lanes = gate + BLOCK
    dC_lanes = dB_lanes + 2 * TILE
    a_path = dC_lanes + 2 * TILE
    h_path = a_path + 2 * TILE
    h = h_path + 2 * TILE + 2 * VECTOR_BYTES
    B = h + (states + 1) * TILES * VECTOR_BYTES
    C = B + STEPS * state_row(states)
    dB = C + STEPS * state_row(states)
    dC = dB + STEPS * state_row(states)
    ddelta = dC + STEPS * state_row(states)
    return Workspace(
        dt, v, y, dy, dv, ddt, gate, dB_lanes, dC_lanes, a_path, h_path, h, B, C, dB, dC, ddelta
    )


@inlined
def state_row(states: int) -> int:
    """Return the bytes of a row of B or C in the workspace, whole vectors."""
    return (states + LANES - 1) // LANES * VECTOR_BYTES


def workspace_bytes(states: int, rank: int) -> int:
    """Return how much memory a worker needs."""
    return lay_out(0, states).ddelta_lanes + rank * VECTOR_BYTES


# --- copying a chunk into the workspace and out of it -----------------------------------------


@inlined
def clear(address: int, vectors: int) -> None:
    """Write zeros."""
    for i in range(vectors):
        store(address + i * VECTOR_BYTES, fill(0.0))


@inlined
def add_product(address: int, x: Any, y: Any) -> None:
    """Add x y to a vector in memory."""
    store(address, fma(x, y, load(address)))


@inlined
def add(address: int, vector: Any) -> None:
    """Add to a vector in memory."""
    store(address, load(address) + vector)


@inlined
def chunk_of(scan: Scan, sequence: int, block: int, start: int) -> Chunk:
    """Find a chunk's place in the tensors."""
    channel = block * scan.tiles * LANES
    lanes = scan.channels - channel
    tiles = min(scan.tiles, (lanes + LANES - 1) // LANES)
    return Chunk(sequence, start, min(STEPS, scan.length - start), 4 * channel, lanes, tiles)


@inlined
def kept_state(scan: Scan, chunk: Chunk, n: int, tile: int) -> int:
    """Return where h before a chunk is kept, for one state of one tile."""
    number = chunk.sequence * ((scan.length - 1) // STEPS) + chunk.start // STEPS - 1
    left = chunk.left + tile * VECTOR_BYTES
    return scan.kept + (number * scan.states + n) * 4 * scan.channels + left


@inlined
def sums_row(call: Backward, slot: int, number: int, left: int) -> int:
    """Return where a worker sums up gradients of one row of the parameters."""
    rows = call.scan.paired + 2 + call.scan.rank
    return call.sums + (slot * rows + number) * call.scan.padded + left


@inlined
def step_input(scan: Scan, delta_at: int, i: int, lanes: int) -> Any:
    """Return x, what goes into the softplus, for one tile."""
    x = load(scan.delta_bias + i)
    if scan.rank == 0:
        return x + load_lanes(delta_at + i, lanes)
    for r in range(scan.rank):
        x = fma(broadcast(delta_at + 4 * r), load(scan.W + r * scan.padded + i), x)
    return x


@inlined
def row_ahead(scan: Scan, rows: Rows, sequence: int, t: int, ahead: int) -> Any:
    """Return the address of a row to ask for at step t, before it is read.

    It lies some steps ahead; short sequences are over by then, so there it is the next one's row.
    Processors foresee neither where rows are far from each other, as along variates.
    """
    if scan.length > STEPS:
        return row(path(rows, sequence), min(max(t + ahead, 0), scan.length - 1))
    return row(path(rows, min(sequence + 1, scan.sequences - 1)), t)


@inlined
def read(scan: Scan, chunk: Chunk, w: Workspace, ahead: int, written: Rows) -> None:
    """Fill B, C, dt, v, and y with its direct part D u; ask for rows read and written later."""
    u, delta = path(scan.u, chunk.sequence), path(scan.delta, chunk.sequence)
    B, C = path(scan.B, chunk.sequence), path(scan.C, chunk.sequence)
    out = path(written, chunk.sequence)
    for t in range(chunk.steps):
        now = chunk.start + t
        B_at, C_at = row(B, now), row(C, now)
        for n in range(0, scan.states, LANES):
            nt = t * state_row(scan.states) + 4 * n
            store(w.B + nt, load_lanes(B_at + 4 * n, scan.states - n))
            store(w.C + nt, load_lanes(C_at + 4 * n, scan.states - n))
        u_at, delta_at = row(u, now), row(delta, now)
        u_later = row_ahead(scan, scan.u, chunk.sequence, now, ahead)
        delta_later = row_ahead(scan, scan.delta, chunk.sequence, now, ahead)
        out_at = row(out, now)
        for tile in range(chunk.tiles):
            at, i = tile * TILE + t * VECTOR_BYTES, chunk.left + tile * VECTOR_BYTES
            lanes = chunk.lanes - tile * LANES
            prefetch(u_later + i)
            prefetch_to_write(out_at + i)
            if scan.rank == 0:
                prefetch(delta_later + i)
            u_t = load_lanes(u_at + i, lanes)
            dt = softplus(step_input(scan, delta_at, i, lanes))
            store(w.dt + at, dt)
            store(w.v + at, dt * u_t)
            store(w.y + at, load(scan.D + i) * u_t)


@inlined
def write_out(call: Forward, chunk: Chunk, w: Workspace) -> None:
    """Gate y and write it to `out`."""
    scan, out = call.scan, path(call.out, chunk.sequence)
    z = path(scan.z, chunk.sequence) if scan.gated else out
    for t in range(chunk.steps):
        now = chunk.start + t
        z_at, out_at = row(z, now), row(out, now)
        z_later = row_ahead(scan, scan.z, chunk.sequence, now, STEPS) if scan.gated else z_at
        for tile in range(chunk.tiles):
            at, i = tile * TILE + t * VECTOR_BYTES, chunk.left + tile * VECTOR_BYTES
            lanes = chunk.lanes - tile * LANES
            y = load(w.y + at)
            if scan.gated:
                prefetch(z_later + i)
                z_t = load_lanes(z_at + i, lanes)
                y = y * (z_t * sigmoid(z_t))
            store_lanes(out_at + i, y, lanes)


@inlined
def read_gradient(call: Backward, chunk: Chunk, w: Workspace) -> None:
    """Fill dy and the gate's sigmoid, and clear the sums dv and ddt."""
    scan, dout = call.scan, path(call.dout, chunk.sequence)
    z = path(scan.z, chunk.sequence) if scan.gated else dout
    dz = path(call.dz, chunk.sequence) if scan.gated else dout
    for t in range(chunk.steps):
        now = chunk.start + t
        z_at, dz_at, dout_at = row(z, now), row(dz, now), row(dout, now)
        dout_later = row_ahead(scan, call.dout, chunk.sequence, now, -STEPS)
        z_later = row_ahead(scan, scan.z, chunk.sequence, now, -STEPS) if scan.gated else z_at
        for tile in range(chunk.tiles):
            at, i = tile * TILE + t * VECTOR_BYTES, chunk.left + tile * VECTOR_BYTES
            lanes = chunk.lanes - tile * LANES
            prefetch(dout_later + i)
            dy = load_lanes(dout_at + i, lanes)
            if scan.gated:
                prefetch(z_later + i)
                prefetch_to_write(dz_at + i)
                z_t = load_lanes(z_at + i, lanes)
                gate = sigmoid(z_t)
                store(w.gate + at, gate)
                dy = dy * (z_t * gate)
            store(w.dy + at, dy)
            store(w.dv + at, fill(0.0))
            store(w.ddt + at, fill(0.0))


@inlined
def write_gradients(call: Backward, chunk: Chunk, w: Workspace, slot: int, group: int) -> None:
    """Write du, ddelta and dz, and add to dB, dC, dD, ddelta_bias and dW."""
    scan = call.scan
    u, delta = path(scan.u, chunk.sequence), path(scan.delta, chunk.sequence)
    dout, du = path(call.dout, chunk.sequence), path(call.du, chunk.sequence)
    ddelta = path(call.ddelta, chunk.sequence)
    z = path(scan.z, chunk.sequence) if scan.gated else u
    dz = path(call.dz, chunk.sequence) if scan.gated else u
    dB, dC = path(call.dB, chunk.sequence), path(call.dC, chunk.sequence)
    for t in range(chunk.steps):
        now = chunk.start + t
        dB_at = row(dB, now) + group * call.group_bytes
        dC_at = row(dC, now) + group * call.group_bytes
        for n in range(0, scan.states, LANES):
            nt, lanes = t * state_row(scan.states) + 4 * n, scan.states - n
            dB_n, dC_n = dB_at + 4 * n, dC_at + 4 * n
            store_lanes(dB_n, load_lanes(dB_n, lanes) + load(w.dB + nt), lanes)
            store_lanes(dC_n, load_lanes(dC_n, lanes) + load(w.dC + nt), lanes)
        u_at, delta_at, z_at, dout_at = row(u, now), row(delta, now), row(z, now), row(dout, now)
        du_at, dz_at = row(du, now), row(dz, now)
        ddelta_at = row(ddelta, now) + group * call.ddelta_group_bytes
        clear(w.ddelta_lanes, scan.rank)
        for tile in range(chunk.tiles):
            at, i = tile * TILE + t * VECTOR_BYTES, chunk.left + tile * VECTOR_BYTES
            lanes = chunk.lanes - tile * LANES
            u_t = load_lanes(u_at + i, lanes)
            x = step_input(scan, delta_at, i, lanes)
            dv, dy = load(w.dv + at), load(w.dy + at)
            ddt = fma(dv, u_t, load(w.ddt + at) * fill(log(2)))
            dx = ddt * sigmoid(x)
            if scan.rank == 0:
                store_lanes(ddelta_at + i, dx, lanes)
            for r in range(scan.rank):
                W = load(scan.W + r * scan.padded + i)
                add_product(w.ddelta_lanes + r * VECTOR_BYTES, dx, W)
                dW = sums_row(call, slot, scan.paired + 2 + r, i)
                add_product(dW, dx, broadcast(delta_at + 4 * r))
            du_t = fma(dv, load(w.dt + at), load(scan.D + i) * dy)
            store_lanes(du_at + i, du_t, lanes)
            dD = sums_row(call, slot, scan.paired, i)
            add(dD, dy * u_t)
            add(dD + scan.padded, dx)
            if scan.gated:
                z_t, gate = load_lanes(z_at + i, lanes), load(w.gate + at)
                slope = fma(z_t * gate, fill(1.0) - gate, gate)
                dz_t = load_lanes(dout_at + i, lanes) * load(w.y + at) * slope
                store_lanes(dz_at + i, dz_t, lanes)
        for r in range(scan.rank):
            add_scalar(ddelta_at + 4 * r, total(load(w.ddelta_lanes + r * VECTOR_BYTES)))


# --- the recurrence ---------------------------------------------------------------------------


@inlined
def forward(call: Forward, workspace: int, slot: int, task: int) -> None:
    """Scan one block of channels of one sequence."""
    scan, w = call.scan, lay_out(workspace, call.scan.states)
    clear(w.h, scan.paired * TILES)
    for start in range(0, scan.length, STEPS):
        chunk = chunk_of(scan, task // scan.blocks, task % scan.blocks, start)
        read(scan, chunk, w, STEPS, call.out)
        keep = scan.kept != 0 and start > 0
        for n in range(0, scan.states, 2):
            for tile in range(chunk.tiles):
                advance_chunk(scan, chunk, w, n, tile, keep)
        write_out(call, chunk, w)


@inlined
def backward(call: Backward, workspace: int, slot: int, task: int) -> None:
    """Find the gradients of one group of blocks of one sequence."""
    scan, w = call.scan, lay_out(workspace, call.scan.states)
    sequence, group = task // call.groups, task % call.groups
    first = group * scan.blocks // call.groups
    last = (group + 1) * scan.blocks // call.groups
    for block in range(first, last):
        clear(w.h, scan.paired * TILES)
        for start in range((scan.length - 1) // STEPS * STEPS, -1, -STEPS):
            chunk = chunk_of(scan, sequence, block, start)
            read(scan, chunk, w, -STEPS, call.du)
            read_gradient(call, chunk, w)
            for n in range(0, scan.states, 2):
                clear(w.dB_lanes, 2 * chunk.steps)
                clear(w.dC_lanes, 2 * chunk.steps)
                for tile in range(chunk.tiles):
                    reverse_chunk(call, chunk, w, slot, n, tile)
                for t in range(chunk.steps):
                    pt, nt = 2 * t * VECTOR_BYTES, t * state_row(scan.states) + 4 * n
                    store_scalar(w.dB + nt, total(load(w.dB_lanes + pt)))
                    store_scalar(w.dB + nt + 4, total(load(w.dB_lanes + pt + VECTOR_BYTES)))
                    store_scalar(w.dC + nt, total(load(w.dC_lanes + pt)))
                    store_scalar(w.dC + nt + 4, total(load(w.dC_lanes + pt + VECTOR_BYTES)))
            write_gradients(call, chunk, w, slot, group)


@inlined
def advance_chunk(scan: Scan, chunk: Chunk, w: Workspace, n: int, tile: int, keep: bool) -> None:
    """Take states n and n + 1 of one tile through a chunk."""
    A = scan.A + n * scan.padded + chunk.left + tile * VECTOR_BYTES
    A_0, A_1 = load(A), load(A + scan.padded)
    h_at = w.h + (n * TILES + tile) * VECTOR_BYTES
    h_0, h_1 = load(h_at), load(h_at + TILES * VECTOR_BYTES)
    if keep:
        kept, lanes = kept_state(scan, chunk, n, tile), chunk.lanes - tile * LANES
        store_lanes(kept, h_0, lanes)
        if n + 1 < scan.states:
            store_lanes(kept + 4 * scan.channels, h_1, lanes)
    for t in range(chunk.steps):
        at, nt = tile * TILE + t * VECTOR_BYTES, t * state_row(scan.states) + 4 * n
        dt, v = load(w.dt + at), load(w.v + at)
        h_0 = fma(exp2(dt * A_0), h_0, broadcast(w.B + nt) * v)
        h_1 = fma(exp2(dt * A_1), h_1, broadcast(w.B + nt + 4) * v)
        y = fma(broadcast(w.C + nt), h_0, load(w.y + at))
        store(w.y + at, fma(broadcast(w.C + nt + 4), h_1, y))
    store(h_at, h_0)
    store(h_at + TILES * VECTOR_BYTES, h_1)


@inlined
def reverse_chunk(call: Backward, chunk: Chunk, w: Workspace, slot: int, n: int, tile: int) -> None:
    """Take states n and n + 1 of one tile forward through a chunk, and back with g."""
    scan = call.scan
    i = n * scan.padded + chunk.left + tile * VECTOR_BYTES
    A_0, A_1 = load(scan.A + i), load(scan.A + i + scan.padded)
    h_0, h_1 = fill(0.0), fill(0.0)
    if chunk.start > 0:
        kept, lanes = kept_state(scan, chunk, n, tile), chunk.lanes - tile * LANES
        prefetch(kept - scan.states * 4 * scan.channels)  # for the chunk before
        h_0 = load_lanes(kept, lanes)
        if n + 1 < scan.states:
            prefetch(kept - (scan.states - 1) * 4 * scan.channels)
            h_1 = load_lanes(kept + 4 * scan.channels, lanes)
    store(w.h_path, h_0)
    store(w.h_path + VECTOR_BYTES, h_1)
    for t in range(chunk.steps):
        pt, nt = 2 * t * VECTOR_BYTES, t * state_row(scan.states) + 4 * n
        at = tile * TILE + t * VECTOR_BYTES
        dt, v = load(w.dt + at), load(w.v + at)
        a_0, a_1 = exp2(dt * A_0), exp2(dt * A_1)
        h_0 = fma(a_0, h_0, broadcast(w.B + nt) * v)
        h_1 = fma(a_1, h_1, broadcast(w.B + nt + 4) * v)
        store(w.a_path + pt, a_0)
        store(w.a_path + pt + VECTOR_BYTES, a_1)
        store(w.h_path + pt + 2 * VECTOR_BYTES, h_0)
        store(w.h_path + pt + 3 * VECTOR_BYTES, h_1)
        y = fma(broadcast(w.C + nt), h_0, load(w.y + at))
        store(w.y + at, fma(broadcast(w.C + nt + 4), h_1, y))

    g_at = w.h + (n * TILES + tile) * VECTOR_BYTES
    dA_at = sums_row(call, slot, 0, i)
    g_0, g_1 = load(g_at), load(g_at + TILES * VECTOR_BYTES)  # g[t] here still misses C[t] dy[t]
    dA_0, dA_1 = load(dA_at), load(dA_at + scan.padded)
    for t in range(chunk.steps - 1, -1, -1):
        pt, nt = 2 * t * VECTOR_BYTES, t * state_row(scan.states) + 4 * n
        at = tile * TILE + t * VECTOR_BYTES
        dt, v, dy = load(w.dt + at), load(w.v + at), load(w.dy + at)
        g_0 = fma(broadcast(w.C + nt), dy, g_0)
        g_1 = fma(broadcast(w.C + nt + 4), dy, g_1)
        add_product(w.dC_lanes + pt, dy, h_0)
        add_product(w.dC_lanes + pt + VECTOR_BYTES, dy, h_1)
        add_product(w.dB_lanes + pt, v, g_0)
        add_product(w.dB_lanes + pt + VECTOR_BYTES, v, g_1)
        dv = fma(g_0, broadcast(w.B + nt), load(w.dv + at))
        store(w.dv + at, fma(g_1, broadcast(w.B + nt + 4), dv))
        g_0, g_1 = g_0 * load(w.a_path + pt), g_1 * load(w.a_path + pt + VECTOR_BYTES)
        h_0, h_1 = load(w.h_path + pt), load(w.h_path + pt + VECTOR_BYTES)
        r_0, r_1 = g_0 * h_0, g_1 * h_1
        store(w.ddt + at, fma(r_1, A_1, fma(r_0, A_0, load(w.ddt + at))))
        dA_0, dA_1 = fma(r_0, dt, dA_0), fma(r_1, dt, dA_1)
    store(g_at, g_0)
    store(g_at + TILES * VECTOR_BYTES, g_1)
    store(dA_at, dA_0)
    store(dA_at + scan.padded, dA_1)
