"""The words that the CPU kernels are written in: short float32 vectors as values of numba.

A vector is one LLVM value of `LANES` floats; addresses are plain integers, in bytes. The
operators + - * work on vectors. numba would leave such loops at half the width and call libm
for every `exp`, and its `fastmath` folds away the rounding in `exp2`, so every word is spelled
out for LLVM here and none is compiled with `fastmath`.

Accuracy, relative: `exp2` 9e-8, `softplus` and `sigmoid` 2e-7. NaN in gives NaN out.
"""

import operator
from collections.abc import Callable
from typing import Any, TypeVar

from llvmlite import ir
from numba import types
from numba.extending import (
    intrinsic,
    lower_builtin,
    models,
    register_jitable,
    register_model,
    type_callable,
)

__all__ = [
    "LANES",
    "VECTOR_BYTES",
    "add_scalar",
    "broadcast",
    "exp2",
    "fetch_add",
    "fill",
    "fma",
    "inlined",
    "load",
    "load_lanes",
    "load_offset",
    "prefetch",
    "prefetch_to_write",
    "sigmoid",
    "softplus",
    "store",
    "store_lanes",
    "store_scalar",
    "total",
]


LANES = 16
"""Floats in a vector. LLVM cuts it into what the processor has; this is one AVX-512 register, and
on AVX2 two registers of 8 hide each other's latency: the backward scan gains a tenth."""
VECTOR_BYTES = 4 * LANES

_FLOAT, _INT, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)


class _Vector(types.Type):
    """numba's name for a vector."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: _Vector) -> None:
        super().__init__(manager, vector, _FLOATS)  # type: ignore[no-untyped-call]


_VECTOR, _ADDRESS, _SCALAR, _NOTHING = _Vector(), types.int64, types.float32, types.void


_Function = TypeVar("_Function", bound=Callable[..., Any])


def inlined(function: _Function) -> _Function:
    """Let kernels call a function; its code takes the place of the call."""
    inline = register_jitable(forceinline=True, error_model="numpy")
    return inline(function)


def _word(result: Any, *operands: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make an operation for kernels from a recipe that emits its LLVM instructions."""

    def emit_with(recipe: Callable[..., Any]) -> Any:
        signature = result(*operands)

        def emit(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
            return recipe(build, *arguments)

        typed = {  # numba reads the number of operands off the function
            1: lambda typing, a: (signature, emit),
            2: lambda typing, a, b: (signature, emit),
            3: lambda typing, a, b, c: (signature, emit),
        }[len(operands)]
        typed.__name__, typed.__doc__ = recipe.__name__, recipe.__doc__
        return intrinsic(typed)

    return emit_with


# --- LLVM shorthands ----------------------------------------------------------------------


def _pointer(build: Any, address: Any, kind: Any) -> Any:
    return build.inttoptr(address, kind.as_pointer())


def _floats(value: float) -> Any:
    return ir.Constant(_FLOATS, [ir.Constant(_FLOAT, value)] * LANES)


def _ints(values: list[int]) -> Any:
    return ir.Constant(_INTS, [ir.Constant(_INT, value) for value in values])


def _splat(build: Any, scalar: Any, kind: Any) -> Any:
    empty = ir.Constant(kind, ir.Undefined)
    first = build.insert_element(empty, scalar, ir.Constant(_INT, 0))
    return build.shuffle_vector(first, empty, _ints([0] * LANES))


def _call(build: Any, name: str, result: Any, *operands: Any) -> Any:
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return build.call(build.module.declare_intrinsic(name, (), kind), operands)


def _map(build: Any, name: str, *vectors: Any) -> Any:
    return _call(build, f"llvm.{name}.v{LANES}f32", _FLOATS, *vectors)


def _at_least(build: Any, x: Any, floor: float) -> Any:
    """max(x, floor), but NaN for NaN."""
    return build.select(build.fcmp_ordered("<", x, _floats(floor)), _floats(floor), x)


def _polynomial(build: Any, x: Any, *coefficients: float) -> Any:
    """Horner's rule, highest power first."""
    value = _floats(coefficients[0])
    for coefficient in coefficients[1:]:
        value = _map(build, "fmuladd", value, x, _floats(coefficient))
    return value


# --- memory -------------------------------------------------------------------------------


@_word(_VECTOR, _ADDRESS)
def load(build: Any, address: Any) -> Any:
    """Read a whole vector; no alignment needed."""
    return build.load(_pointer(build, address, _FLOATS), align=4)


@_word(_NOTHING, _ADDRESS, _VECTOR)
def store(build: Any, address: Any, vector: Any) -> None:
    """Write a whole vector."""
    build.store(vector, _pointer(build, address, _FLOATS), align=4)


def _first(build: Any, lanes: Any) -> Any:
    """Mask of the first lanes."""
    count = _splat(build, build.trunc(lanes, _INT), _INTS)
    return build.icmp_signed("<", _ints(list(range(LANES))), count)


@_word(_VECTOR, _ADDRESS, types.int64)
def _load_first(build: Any, address: Any, lanes: Any) -> Any:
    pointer, align = _pointer(build, address, _FLOATS), ir.Constant(_INT, 4)
    name = f"llvm.masked.load.v{LANES}f32.p0"
    return _call(build, name, _FLOATS, pointer, align, _first(build, lanes), _floats(0.0))


@_word(_NOTHING, _ADDRESS, _VECTOR, types.int64)
def _store_first(build: Any, address: Any, vector: Any, lanes: Any) -> None:
    pointer, align = _pointer(build, address, _FLOATS), ir.Constant(_INT, 4)
    name = f"llvm.masked.store.v{LANES}f32.p0"
    _call(build, name, ir.VoidType(), vector, pointer, align, _first(build, lanes))


@inlined
def load_lanes(address: int, lanes: int) -> Any:
    """Read the first lanes and nothing behind them; the other lanes are zero."""
    if lanes >= LANES:
        return load(address)
    return _load_first(address, lanes)


@inlined
def store_lanes(address: int, vector: Any, lanes: int) -> None:
    """Write the first lanes and nothing behind them."""
    if lanes >= LANES:
        store(address, vector)
    else:
        _store_first(address, vector, lanes)


@_word(_VECTOR, _ADDRESS)
def broadcast(build: Any, address: Any) -> Any:
    """Read one float into every lane."""
    return _splat(build, build.load(_pointer(build, address, _FLOAT), align=4), _FLOATS)


@_word(_VECTOR, types.float64)
def fill(build: Any, value: Any) -> Any:
    """One number in every lane."""
    return _splat(build, build.fptrunc(value, _FLOAT), _FLOATS)


@_word(_NOTHING, _ADDRESS, _SCALAR)
def store_scalar(build: Any, address: Any, value: Any) -> None:
    """Write one float."""
    build.store(value, _pointer(build, address, _FLOAT), align=4)


@_word(_NOTHING, _ADDRESS, _SCALAR)
def add_scalar(build: Any, address: Any, value: Any) -> None:
    """Add to one float."""
    pointer = _pointer(build, address, _FLOAT)
    build.store(build.fadd(build.load(pointer, align=4), value), pointer, align=4)


@_word(types.int64, _ADDRESS, types.int64)
def load_offset(build: Any, table: Any, index: Any) -> Any:
    """Read one entry of a table of 64-bit integers."""
    entry = build.add(table, build.shl(index, ir.Constant(_LONG, 3)))
    return build.load(_pointer(build, entry, _LONG), align=8)


def _prefetch(build: Any, address: Any, write: int) -> None:
    flags = (ir.Constant(_INT, flag) for flag in (write, 3, 1))  # kept in all caches, data
    pointer = _pointer(build, address, ir.IntType(8))
    _call(build, "llvm.prefetch.p0", ir.VoidType(), pointer, *flags)


@_word(_NOTHING, _ADDRESS)
def prefetch(build: Any, address: Any) -> None:
    """Ask for a cache line that will be read soon."""
    _prefetch(build, address, 0)


@_word(_NOTHING, _ADDRESS)
def prefetch_to_write(build: Any, address: Any) -> None:
    """Ask for a cache line that will be written soon."""
    _prefetch(build, address, 1)


@_word(types.int64, _ADDRESS, types.int64)
def fetch_add(build: Any, address: Any, value: Any) -> Any:
    """Add to an integer that several threads share; return what it was before."""
    return build.atomic_rmw("add", _pointer(build, address, _LONG), value, "monotonic")


# --- arithmetic ---------------------------------------------------------------------------


def _register_operator(python_operator: Callable[[Any, Any], Any], instruction: str) -> None:
    """Let a Python operator between two vectors emit one LLVM instruction."""

    @type_callable(python_operator)
    def _(context: Any) -> Callable[[Any, Any], Any]:
        return lambda x, y: _VECTOR if x is _VECTOR and y is _VECTOR else None

    @lower_builtin(python_operator, _Vector, _Vector)  # type: ignore[no-untyped-call]
    def _(context: Any, build: Any, signature: Any, operands: Any) -> Any:
        return getattr(build, instruction)(*operands)


_register_operator(operator.add, "fadd")
_register_operator(operator.sub, "fsub")
_register_operator(operator.mul, "fmul")


@_word(_VECTOR, _VECTOR, _VECTOR, _VECTOR)
def fma(build: Any, x: Any, y: Any, z: Any) -> Any:
    """Return x y + z, rounded once where the processor can (`llvm.fma` is slow elsewhere)."""
    return _map(build, "fmuladd", x, y, z)


@_word(_SCALAR, _VECTOR)
def total(build: Any, x: Any) -> Any:
    """Sum over the lanes, always in the same order."""
    kind = ir.FunctionType(_FLOAT, [_FLOAT, _FLOATS])
    reduce = build.module.declare_intrinsic(f"llvm.vector.reduce.fadd.v{LANES}f32", (), kind)
    return build.call(reduce, [ir.Constant(_FLOAT, 0.0), x], fastmath=("reassoc",))


def _exp2(build: Any, x: Any) -> Any:
    x = _at_least(build, x, -64.0)
    whole = _map(build, "rint", x)
    power = _polynomial(  # minimax for 2^f on [-1/2, 1/2], exact at 0
        build,
        build.fsub(x, whole),
        0.0013264728768355772,
        0.009671513183017759,
        0.05550733744478958,
        0.24022242077093497,
        0.6931469775951139,
        1.0,
    )
    exponent = build.shl(build.fptosi(whole, _INTS), _ints([23] * LANES))
    return build.bitcast(build.add(build.bitcast(power, _INTS), exponent), _FLOATS)


@_word(_VECTOR, _VECTOR)
def exp2(build: Any, x: Any) -> Any:
    """2^x for x below 128, but never less than 2^-64: smaller decays would make denormals.

    Arithmetic on denormal numbers is up to nine times slower, and no sum can see the difference.
    """
    return _exp2(build, x)


def _exp_of_minus_abs(build: Any, x: Any) -> Any:
    return _exp2(build, build.fmul(_map(build, "fabs", x), _floats(-1.4426950408889634)))


@_word(_VECTOR, _VECTOR)
def sigmoid(build: Any, x: Any) -> Any:
    """1 / (1 + e^-x)."""
    small = _exp_of_minus_abs(build, x)
    large = build.fdiv(_floats(1.0), build.fadd(_floats(1.0), small))
    positive = build.fcmp_ordered(">=", x, _floats(0.0))
    return build.select(positive, large, build.fmul(small, large))


@_word(_VECTOR, _VECTOR)
def softplus(build: Any, x: Any) -> Any:
    """log(1 + e^x) = max(x, 0) + 2 artanh(s), s = e / (2 + e), e = exp(-|x|)."""
    small = _exp_of_minus_abs(build, x)
    s = build.fdiv(small, build.fadd(_floats(2.0), small))
    above_denormal = _at_least(build, s, 1e-12)
    series = _polynomial(  # minimax for artanh(s) / s in s^2 on [0, 1/9], exact at 0
        build,
        build.fmul(above_denormal, above_denormal),
        0.14089167981784154,
        0.13980301729229763,
        0.20012455071173857,
        0.3333315734440936,
        1.0,
    )
    rest = build.fmul(build.fmul(_floats(2.0), s), series)
    return build.fadd(_at_least(build, x, 0.0), rest)
