"""Roles: the columns that are forecast, in the order in which they were named."""

import numpy as np
import pandas as pd
import pytest

from tsm2.errors import ParameterError
from tsm2.prepared.roles import Roles
from tsm2.tables.read import read

LAYOUT = read(
    pd.DataFrame(np.zeros((2, 3)), columns=pd.Index(["a", ("b", 1), 7], tupleize_cols=False))
).layout


@pytest.mark.parametrize(
    ("target", "targets", "others"),
    [
        (None, (0, 1, 2), ()),
        ("a", (0,), (1, 2)),
        (("b", 1), (1,), (0, 2)),  # one label that is a tuple
        ([7, "a"], (2, 0), (1,)),
        ((7, "a"), (2, 0), (1,)),
        ([("b", 1)], (1,), (0, 2)),
    ],
)
def test_columns_are_found_by_label(
    target: object, targets: tuple[int, ...], others: tuple[int, ...]
) -> None:
    roles = Roles.of(target, LAYOUT)
    assert (roles.targets, roles.others) == (targets, others)
    assert roles.layout(LAYOUT).columns == tuple(LAYOUT.columns[k] for k in targets)
    values = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(roles.select(values), values[:, list(targets)])


@pytest.mark.parametrize("target", ["load", ["a", "load"], ["a", "a"], [], 8])
def test_labels_that_are_no_columns_are_refused(target: object) -> None:
    with pytest.raises(ParameterError, match=r"target=.*it has: 'a', \('b', 1\), 7"):
        Roles.of(target, LAYOUT)
