"""Levels of quantiles: mistakes are named, intervals have the right bounds, bounds their names."""

import numpy as np
import pytest

from tsm2.errors import ParameterError
from tsm2.tables.quantiles import bound_name, check_levels, interval_levels, with_median


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((0.1, 1.0), r"between 0 and 1, got 1.0 in \(0.1, 1.0\)"),
        ((0.0, 0.5), "between 0 and 1, got 0.0"),
        ((float("nan"),), "between 0 and 1, got nan"),
        ((10, 90), "between 0 and 1, got 10"),
        (("0.1",), "between 0 and 1, got '0.1'"),
        ((0.9, 0.1), r"rise, each once, got \(0.9, 0.1\). Sort them"),
        ((0.1, 0.1), "rise, each once"),
        ((), "rise, each once"),
        (0.5, "several levels, such as"),
        ("0.5", "several levels, such as"),
        (None, "several levels, such as"),
    ],
)
def test_levels_that_cannot_be_are_named(levels: object, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        check_levels(levels)


def test_levels_come_back_as_floats() -> None:
    assert check_levels(np.array([0.1, 0.9], dtype=np.float64)) == (0.1, 0.9)
    assert check_levels(level / 10 for level in (1, 3)) == (0.1, 0.3)
    assert with_median((0.1, 0.9)) == (0.1, 0.5, 0.9)
    assert with_median((0.1, 0.5)) == (0.1, 0.5)


@pytest.mark.parametrize("coverage", [0, 1, 0.0, 1.0, 80, -0.5, float("nan"), "0.8", True, None])
def test_a_coverage_that_cannot_be_is_named(coverage: object) -> None:
    with pytest.raises(ParameterError, match=r"such as 0.8 for 80 %, got"):
        interval_levels(coverage)


@pytest.mark.parametrize(
    ("coverage", "name"), [(0.8, "80"), (0.9, "90"), (0.95, "95"), (1 / 3, "33.3333")]
)
def test_the_bounds_of_an_interval_carry_its_coverage(coverage: float, name: str) -> None:
    lower, upper = interval_levels(coverage)
    assert lower + upper == 1
    assert upper - lower == pytest.approx(coverage, abs=1e-9)
    assert bound_name(lower) == f"lo-{name}"
    assert bound_name(upper) == f"hi-{name}"
    assert bound_name(0.5) == "median"
