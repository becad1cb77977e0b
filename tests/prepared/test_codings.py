"""What a forecaster knows of covariates: the rows it codes, keeps, and finds again."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2.errors import FrameError, ParameterError, SavedModelError
from tsm2.prepared.codings import Codings
from tsm2.prepared.windows import Covariates
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.read import read
from tsm2.tables.series import Series

LOOKBACK, HORIZON = 4, 2


def stamps(rows: int = 12) -> pd.DatetimeIndex:
    return pd.date_range("2024-03-01", periods=rows, freq="h")


def values(rows: int = 12) -> Series:
    return read(pd.DataFrame({"a": np.arange(rows) % 5.0, "b": 1.0}, stamps(rows)))


def values_of(n_variates: int) -> pd.DataFrame:
    return pd.DataFrame({name: np.arange(12.0) for name in "abcdef"[:n_variates]}, stamps())


def covariates(rows: int = 12, first: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame({"x": first + np.arange(rows, dtype=float)}, stamps(rows))


def learned(
    tables: CovariateTables, panel: Series | None = None, **changes: Any
) -> tuple[Codings, Covariates]:
    panel = values() if panel is None else panel
    settings: dict[str, Any] = {
        "calendar": (),
        "train": np.ones(len(panel.values), dtype=bool),
        "lookback": LOOKBACK,
        "horizon": HORIZON,
        "missing": "raise",
    } | changes
    return Codings.learn(tables, series=panel, variates=panel.layout, **settings)


def coded(numbers: Any, rows: int = 12) -> np.ndarray[Any, Any]:
    """What numbers of a column 0, 1, 2, ... are in standard units."""
    train = np.arange(rows, dtype=float)
    wanted: np.ndarray[Any, Any] = (np.asarray(numbers) - train.mean()) / train.std()
    return wanted


def used(
    codings: Codings,
    tables: CovariateTables,
    panel: Series,
    n_ahead: int = HORIZON,
    **changes: Any,
) -> Covariates:
    settings: dict[str, Any] = {"stored": panel.tail(LOOKBACK), "missing": "raise"} | changes
    return codings.covariates(tables, panel, n_ahead, panel.layout, **settings)


def column(rows: Any) -> np.ndarray[Any, Any]:
    assert rows is not None
    numbers: np.ndarray[Any, Any] = rows[:, 0].numpy()
    return numbers


def test_every_row_of_the_values_gets_its_covariates() -> None:
    early = covariates(20).set_axis(pd.date_range("2024-02-29 20:00", periods=20, freq="h"))
    codings, found = learned(CovariateTables(past=covariates(), future=early))
    np.testing.assert_allclose(column(found.past), coded(np.arange(12)), rtol=1e-6)
    own = np.arange(4.0, 16.0)  # the rows of the table that stand at the values' stamps
    np.testing.assert_allclose(column(found.future), (own - own.mean()) / own.std(), rtol=1e-6)
    assert codings.widths == {"n_past": 1, "n_future": 1, "n_static": 0}
    assert found.static is None


def test_the_last_rows_and_those_after_them_are_kept() -> None:
    codings, _ = learned(CovariateTables(past=covariates(12), future=covariates(17)))
    np.testing.assert_allclose(codings.past[:, 0], coded(np.arange(8, 12)))
    np.testing.assert_allclose(codings.future[:, 0], coded(np.arange(8, 17)))
    found = used(codings, CovariateTables(), values().tail(LOOKBACK), 5)
    np.testing.assert_allclose(column(found.future), coded(np.arange(8, 17)), rtol=1e-6)
    np.testing.assert_allclose(column(found.past)[:4], coded(np.arange(8, 12)), rtol=1e-6)
    np.testing.assert_array_equal(column(found.past)[4:], 0)
    with pytest.raises(FrameError, match="future_covariates lacks 1 of the 10 rows"):
        used(codings, CovariateTables(), values().tail(LOOKBACK), 6)


def test_a_new_table_goes_before_what_was_kept() -> None:
    codings, _ = learned(CovariateTables(future=covariates(14)))
    horizon_alone = covariates(16, first=100).iloc[12:]
    found = used(codings, CovariateTables(future=horizon_alone), values().tail(LOOKBACK), 4)
    wanted = coded([8, 9, 10, 11, 112, 113, 114, 115])
    np.testing.assert_allclose(column(found.future), wanted, rtol=1e-6)


def test_what_was_kept_of_other_rows_is_not_used() -> None:
    codings, _ = learned(CovariateTables(future=covariates(14)))
    with pytest.raises(FrameError, match="it was not given"):
        used(codings, CovariateTables(), values().tail(LOOKBACK), stored=None)


def test_categories_after_the_values_count_too() -> None:
    kinds = pd.DataFrame({"kind": ["a", "b"] * 6 + ["c", "c"]}, stamps(14))
    codings, found = learned(CovariateTables(future=kinds))
    assert found.future is not None
    assert found.future.shape == (12, 3)
    assert codings.future[-1].tolist() == [0, 0, 1]


def test_the_calendar_is_known_without_end() -> None:
    codings, found = learned(CovariateTables(), calendar=("hour",))
    assert found.future is not None
    assert found.future.shape == (12, 2)
    ahead = used(codings, CovariateTables(), values().tail(LOOKBACK), 100)
    assert ahead.future is not None
    assert ahead.future.shape == (104, 2)
    np.testing.assert_allclose(ahead.future[24:48], ahead.future[48:72], atol=1e-5)


@pytest.mark.filterwarnings("ignore::tsm2.errors.CovariateWarning")
def test_the_calendar_stands_beside_future_covariates() -> None:
    codings, found = learned(CovariateTables(future=covariates(14)), calendar=("weekend", "hour"))
    assert codings.widths["n_future"] == 3  # the weekend never comes
    np.testing.assert_allclose(column(found.future), coded(np.arange(12)), rtol=1e-6)


def test_static_covariates_are_those_of_the_variates() -> None:
    static = pd.DataFrame({"size": [3.0, 1.0], "kind": ["u", "v"]}, ["b", "a"])
    codings, found = learned(CovariateTables(static=static))
    assert found.static is not None
    assert found.static.tolist() == [[[-1, 0, 1], [1, 1, 0]]]
    other = static.assign(size=[5.0, 1.0])
    again = used(codings, CovariateTables(static=other), values().tail(LOOKBACK))
    assert again.static is not None
    assert again.static[0, 1].tolist() == [3, 1, 0]


# --- gaps -----------------------------------------------------------------------------------------


def test_gaps_in_past_covariates_are_treated_as_asked() -> None:
    past = covariates()
    past.iloc[[5, 10]] = np.nan
    with pytest.raises(FrameError, match=r"past_covariates: column 'x' has no value at .*05:00"):
        learned(CovariateTables(past=past))
    _, masked = learned(CovariateTables(past=past), missing="mask")
    assert masked.past_mask is not None
    assert np.flatnonzero(~masked.past_mask[:, 0].numpy()).tolist() == [5, 10]
    assert np.isfinite(column(masked.past)).all()
    codings, filled = learned(CovariateTables(past=past), missing="ffill")
    assert filled.past_mask is None
    numbers = column(filled.past)
    assert (numbers[5], numbers[10]) == (numbers[4], numbers[9])
    np.testing.assert_allclose(codings.past[:, 0], numbers[8:], rtol=1e-6)


@pytest.mark.parametrize("missing", ["raise", "mask", "ffill"])
def test_gaps_in_what_is_known_in_advance_are_always_refused(missing: str) -> None:
    future = covariates(14)
    future.iloc[13] = np.nan
    with pytest.raises(FrameError, match=r"future_covariates: column 'x' .*in all 1 row"):
        learned(CovariateTables(future=future), missing=missing)
    static = pd.DataFrame({"size": [np.nan, 1.0, 2.0]}, ["a", "b", "c"])
    with pytest.raises(FrameError, match="static_covariates: column 'size'"):
        learned(CovariateTables(static=static), read(values_of(3)))


# --- several series -------------------------------------------------------------------------------


def many() -> dict[str, pd.DataFrame]:
    return {"u": pd.DataFrame({"a": np.arange(12.0)}, stamps(12)),
            "v": pd.DataFrame({"a": np.arange(7.0)}, stamps(7))}  # fmt: skip


def test_every_series_gets_its_own_rows() -> None:
    future = {"v": covariates(9, first=100), "u": covariates(13), "w": covariates(3)}
    codings, found = learned(CovariateTables(future=future), read(many()))
    raw = np.concatenate((np.arange(12), 100 + np.arange(7.0)))
    wanted = (raw - raw.mean()) / raw.std()
    np.testing.assert_allclose(column(found.future), wanted, rtol=1e-5)
    assert codings.future_counts.tolist() == [4 + 1, 4 + 2]
    stored = read(many()).tail(LOOKBACK)
    panel = read({"v": many()["v"]})
    again = used(codings, CovariateTables(), panel.tail(LOOKBACK), stored=stored)
    raw_again = 100 + np.arange(3, 9.0)
    np.testing.assert_allclose(
        column(again.future), (raw_again - raw.mean()) / raw.std(), rtol=1e-5
    )
    with pytest.raises(FrameError, match=r"lacks 1 of the 6 rows.*'u'.*13:00"):
        used(
            codings,
            CovariateTables(),
            read({"u": many()["u"]}).tail(LOOKBACK),
            stored=stored,
        )


def test_past_covariates_of_series_stand_before_the_rows_ahead() -> None:
    past = {"u": covariates(12), "v": covariates(7, first=50)}
    codings, _ = learned(CovariateTables(past=past), read(many()))
    panel = read(many()).tail(LOOKBACK)
    found = column(used(codings, CovariateTables(), panel, 2).past)
    raw = np.concatenate((np.arange(12), 50 + np.arange(7.0)))
    wanted = (np.array([8, 9, 10, 11, 53, 54, 55, 56]) - raw.mean()) / raw.std()
    np.testing.assert_allclose(found[[0, 1, 2, 3, 6, 7, 8, 9]], wanted, rtol=1e-5)
    assert found[[4, 5, 10, 11]].tolist() == [0, 0, 0, 0]


def test_one_table_may_hold_for_all_series() -> None:
    codings, found = learned(CovariateTables(future=covariates(14)), read(many()))
    numbers = column(found.future)
    np.testing.assert_array_equal(numbers[12:], numbers[:7])
    assert codings.future_counts.tolist() == [4 + 2, 4 + 2]


def test_static_covariates_of_series_hold_for_all_their_variates() -> None:
    tables = {name: each.assign(b=1.0) for name, each in many().items()}
    static = pd.DataFrame({"size": [1.0, 3.0]}, ["v", "u"])
    codings, found = learned(CovariateTables(static=static), read(tables))
    assert found.static is not None
    assert found.static.tolist() == [[[1.0], [1.0]], [[-1.0], [-1.0]]]
    only_v = read({"v": tables["v"]})
    again = used(
        codings, CovariateTables(), only_v.tail(LOOKBACK), stored=read(tables).tail(LOOKBACK)
    )
    assert again.static is not None
    assert again.static.tolist() == [[[-1.0], [-1.0]]]
    unseen = read({"w": tables["v"]})
    with pytest.raises(FrameError, match=r"static_covariates lacks 1 of the 1 rows.*w"):
        used(codings, CovariateTables(), unseen.tail(4), stored=read(tables).tail(4))


# --- the rest -------------------------------------------------------------------------------------


def test_kinds_that_fit_was_not_given_are_refused() -> None:
    codings, _ = learned(CovariateTables(future=covariates(14)))
    with pytest.raises(ParameterError, match="past_covariates were not given to fit"):
        used(codings, CovariateTables(past=covariates()), values().tail(4))


def test_codings_come_back_as_it_was_saved() -> None:
    static = pd.DataFrame({"kind": ["u", "v"]}, ["b", "a"])
    codings, _ = learned(
        CovariateTables(past=covariates(), future=covariates(14), static=static), calendar=("hour",)
    )
    again = Codings.from_json(codings.to_json(), codings.arrays())
    assert again.to_json() == codings.to_json()
    for name, rows in codings.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], rows)
    wanted = used(codings, CovariateTables(), values().tail(LOOKBACK))
    found = used(again, CovariateTables(), values().tail(LOOKBACK))
    for name in ("past", "future", "static"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    with pytest.raises(SavedModelError, match="damaged"):
        Codings.from_json({"codings": 3}, {})


@pytest.mark.parametrize("n_ahead", [0, 3])
def test_a_grid_that_is_longer_goes_on(n_ahead: int) -> None:
    several = read(many())
    longer = several.grid(several.counts + n_ahead)
    assert longer.counts.tolist() == [12 + n_ahead, 7 + n_ahead]
    assert list(longer.index[12 + n_ahead :]) == list(stamps(7 + n_ahead))
    part = values().between(np.array([2]), np.array([6]))
    assert list(part.grid(part.counts + n_ahead).index) == list(stamps()[2 : 6 + n_ahead])
