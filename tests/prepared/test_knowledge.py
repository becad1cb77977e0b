"""What a forecaster knows of covariates: the rows it codes, keeps, and finds again."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2.errors import FrameError, ParameterError, SavedModelError
from tsm2.prepared.knowledge import Knowledge, Tables, lengthened
from tsm2.prepared.windows import Covariates
from tsm2.tables.frames import Panel, rows_of
from tsm2.tables.panels import read_panel

LOOKBACK, HORIZON = 4, 2


def stamps(rows: int = 12) -> pd.DatetimeIndex:
    return pd.date_range("2024-03-01", periods=rows, freq="h")


def values(rows: int = 12) -> Panel:
    return read_panel(pd.DataFrame({"a": np.arange(rows) % 5.0, "b": 1.0}, stamps(rows)))


def values_of(n_variates: int) -> pd.DataFrame:
    return pd.DataFrame({name: np.arange(12.0) for name in "abcdef"[:n_variates]}, stamps())


def covariates(rows: int = 12, first: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame({"x": first + np.arange(rows, dtype=float)}, stamps(rows))


def learned(
    tables: Tables, panel: Panel | None = None, **changes: Any
) -> tuple[Knowledge, Covariates]:
    panel = values() if panel is None else panel
    settings: dict[str, Any] = {
        "calendar": (),
        "train": np.ones(len(panel.values), dtype=bool),
        "lookback": LOOKBACK,
        "horizon": HORIZON,
        "missing": "raise",
    } | changes
    return Knowledge.learn(tables, panel=panel, variates=panel.layout, **settings)


def coded(numbers: Any, rows: int = 12) -> np.ndarray[Any, Any]:
    """What numbers of a column 0, 1, 2, ... are in standard units."""
    train = np.arange(rows, dtype=float)
    wanted: np.ndarray[Any, Any] = (np.asarray(numbers) - train.mean()) / train.std()
    return wanted


def used(
    knowledge: Knowledge, tables: Tables, panel: Panel, n_ahead: int = HORIZON, **changes: Any
) -> Covariates:
    settings: dict[str, Any] = {"stored": panel.tail(LOOKBACK), "missing": "raise"} | changes
    return knowledge.covariates(tables, panel, n_ahead, panel.layout, **settings)


def column(rows: Any) -> np.ndarray[Any, Any]:
    assert rows is not None
    numbers: np.ndarray[Any, Any] = rows[:, 0].numpy()
    return numbers


def test_every_row_of_the_values_gets_its_covariates() -> None:
    early = covariates(20).set_axis(pd.date_range("2024-02-29 20:00", periods=20, freq="h"))
    knowledge, found = learned(Tables(past=covariates(), future=early))
    np.testing.assert_allclose(column(found.past), coded(np.arange(12)), rtol=1e-6)
    own = np.arange(4.0, 16.0)  # the rows of the table that stand at the values' stamps
    np.testing.assert_allclose(column(found.future), (own - own.mean()) / own.std(), rtol=1e-6)
    assert knowledge.widths == {"n_past": 1, "n_future": 1, "n_static": 0}
    assert found.static is None


def test_the_last_rows_and_those_after_them_are_kept() -> None:
    knowledge, _ = learned(Tables(past=covariates(12), future=covariates(17)))
    np.testing.assert_allclose(knowledge.past[:, 0], coded(np.arange(8, 12)))
    np.testing.assert_allclose(knowledge.future[:, 0], coded(np.arange(8, 17)))
    found = used(knowledge, Tables(), values().tail(LOOKBACK), 5)
    np.testing.assert_allclose(column(found.future), coded(np.arange(8, 17)), rtol=1e-6)
    np.testing.assert_allclose(column(found.past)[:4], coded(np.arange(8, 12)), rtol=1e-6)
    np.testing.assert_array_equal(column(found.past)[4:], 0)
    with pytest.raises(FrameError, match="future_covariates lacks 1 of the 10 rows"):
        used(knowledge, Tables(), values().tail(LOOKBACK), 6)


def test_a_new_table_goes_before_what_was_kept() -> None:
    knowledge, _ = learned(Tables(future=covariates(14)))
    horizon_alone = covariates(16, first=100).iloc[12:]
    found = used(knowledge, Tables(future=horizon_alone), values().tail(LOOKBACK), 4)
    wanted = coded([8, 9, 10, 11, 112, 113, 114, 115])
    np.testing.assert_allclose(column(found.future), wanted, rtol=1e-6)


def test_what_was_kept_of_other_rows_is_not_used() -> None:
    knowledge, _ = learned(Tables(future=covariates(14)))
    with pytest.raises(FrameError, match="it was not given"):
        used(knowledge, Tables(), values().tail(LOOKBACK), stored=None)


def test_categories_after_the_values_count_too() -> None:
    kinds = pd.DataFrame({"kind": ["a", "b"] * 6 + ["c", "c"]}, stamps(14))
    knowledge, found = learned(Tables(future=kinds))
    assert found.future is not None
    assert found.future.shape == (12, 3)
    assert knowledge.future[-1].tolist() == [0, 0, 1]


def test_the_calendar_is_known_without_end() -> None:
    knowledge, found = learned(Tables(), calendar=("hour",))
    assert found.future is not None
    assert found.future.shape == (12, 2)
    ahead = used(knowledge, Tables(), values().tail(LOOKBACK), 100)
    assert ahead.future is not None
    assert ahead.future.shape == (104, 2)
    np.testing.assert_allclose(ahead.future[24:48], ahead.future[48:72], atol=1e-5)


@pytest.mark.filterwarnings("ignore::tsm2.errors.CovariateWarning")
def test_the_calendar_stands_beside_future_covariates() -> None:
    knowledge, found = learned(Tables(future=covariates(14)), calendar=("weekend", "hour"))
    assert knowledge.widths["n_future"] == 3  # the weekend never comes
    np.testing.assert_allclose(column(found.future), coded(np.arange(12)), rtol=1e-6)


def test_static_covariates_are_those_of_the_variates() -> None:
    static = pd.DataFrame({"size": [3.0, 1.0], "kind": ["u", "v"]}, ["b", "a"])
    knowledge, found = learned(Tables(static=static))
    assert found.static is not None
    assert found.static.tolist() == [[[-1, 0, 1], [1, 1, 0]]]
    other = static.assign(size=[5.0, 1.0])
    again = used(knowledge, Tables(static=other), values().tail(LOOKBACK))
    assert again.static is not None
    assert again.static[0, 1].tolist() == [3, 1, 0]


# --- gaps -----------------------------------------------------------------------------------------


def test_gaps_in_past_covariates_are_treated_as_asked() -> None:
    past = covariates()
    past.iloc[[5, 10]] = np.nan
    with pytest.raises(FrameError, match=r"past_covariates: column 'x' has no value at .*05:00"):
        learned(Tables(past=past))
    _, masked = learned(Tables(past=past), missing="mask")
    assert masked.past_mask is not None
    assert np.flatnonzero(~masked.past_mask[:, 0].numpy()).tolist() == [5, 10]
    assert np.isfinite(column(masked.past)).all()
    knowledge, filled = learned(Tables(past=past), missing="ffill")
    assert filled.past_mask is None
    numbers = column(filled.past)
    assert (numbers[5], numbers[10]) == (numbers[4], numbers[9])
    np.testing.assert_allclose(knowledge.past[:, 0], numbers[8:], rtol=1e-6)


@pytest.mark.parametrize("missing", ["raise", "mask", "ffill"])
def test_gaps_in_what_is_known_in_advance_are_always_refused(missing: str) -> None:
    future = covariates(14)
    future.iloc[13] = np.nan
    with pytest.raises(FrameError, match=r"future_covariates: column 'x' .*in all 1 row"):
        learned(Tables(future=future), missing=missing)
    static = pd.DataFrame({"size": [np.nan, 1.0, 2.0]}, ["a", "b", "c"])
    with pytest.raises(FrameError, match="static_covariates: column 'size'"):
        learned(Tables(static=static), read_panel(values_of(3)))


# --- several series -------------------------------------------------------------------------------


def many() -> dict[str, pd.DataFrame]:
    return {"u": pd.DataFrame({"a": np.arange(12.0)}, stamps(12)),
            "v": pd.DataFrame({"a": np.arange(7.0)}, stamps(7))}  # fmt: skip


def test_every_series_gets_its_own_rows() -> None:
    future = {"v": covariates(9, first=100), "u": covariates(13), "w": covariates(3)}
    knowledge, found = learned(Tables(future=future), read_panel(many()))
    raw = np.concatenate((np.arange(12), 100 + np.arange(7.0)))
    wanted = (raw - raw.mean()) / raw.std()
    np.testing.assert_allclose(column(found.future), wanted, rtol=1e-5)
    assert knowledge.future_counts.tolist() == [4 + 1, 4 + 2]
    stored = read_panel(many()).tail(LOOKBACK)
    panel = read_panel({"v": many()["v"]})
    again = used(knowledge, Tables(), panel.tail(LOOKBACK), stored=stored)
    raw_again = 100 + np.arange(3, 9.0)
    np.testing.assert_allclose(
        column(again.future), (raw_again - raw.mean()) / raw.std(), rtol=1e-5
    )
    with pytest.raises(FrameError, match=r"lacks 1 of the 6 rows.*'u'.*13:00"):
        used(
            knowledge,
            Tables(),
            read_panel({"u": many()["u"]}).tail(LOOKBACK),
            stored=stored,
        )


def test_past_covariates_of_series_stand_before_the_rows_ahead() -> None:
    past = {"u": covariates(12), "v": covariates(7, first=50)}
    knowledge, _ = learned(Tables(past=past), read_panel(many()))
    panel = read_panel(many()).tail(LOOKBACK)
    found = column(used(knowledge, Tables(), panel, 2).past)
    raw = np.concatenate((np.arange(12), 50 + np.arange(7.0)))
    wanted = (np.array([8, 9, 10, 11, 53, 54, 55, 56]) - raw.mean()) / raw.std()
    np.testing.assert_allclose(found[[0, 1, 2, 3, 6, 7, 8, 9]], wanted, rtol=1e-5)
    assert found[[4, 5, 10, 11]].tolist() == [0, 0, 0, 0]


def test_one_table_may_hold_for_all_series() -> None:
    knowledge, found = learned(Tables(future=covariates(14)), read_panel(many()))
    numbers = column(found.future)
    np.testing.assert_array_equal(numbers[12:], numbers[:7])
    assert knowledge.future_counts.tolist() == [4 + 2, 4 + 2]


def test_static_covariates_of_series_hold_for_all_their_variates() -> None:
    tables = {name: each.assign(b=1.0) for name, each in many().items()}
    static = pd.DataFrame({"size": [1.0, 3.0]}, ["v", "u"])
    knowledge, found = learned(Tables(static=static), read_panel(tables))
    assert found.static is not None
    assert found.static.tolist() == [[[1.0], [1.0]], [[-1.0], [-1.0]]]
    only_v = read_panel({"v": tables["v"]})
    again = used(
        knowledge, Tables(), only_v.tail(LOOKBACK), stored=read_panel(tables).tail(LOOKBACK)
    )
    assert again.static is not None
    assert again.static.tolist() == [[[-1.0], [-1.0]]]
    unseen = read_panel({"w": tables["v"]})
    with pytest.raises(FrameError, match=r"static_covariates lacks 1 of the 1 rows.*w"):
        used(knowledge, Tables(), unseen.tail(4), stored=read_panel(tables).tail(4))


# --- the rest -------------------------------------------------------------------------------------


def test_kinds_that_fit_was_not_given_are_refused() -> None:
    knowledge, _ = learned(Tables(future=covariates(14)))
    with pytest.raises(ParameterError, match="past_covariates were not given to fit"):
        used(knowledge, Tables(past=covariates()), values().tail(4))


def test_knowledge_comes_back_as_it_was_saved() -> None:
    static = pd.DataFrame({"kind": ["u", "v"]}, ["b", "a"])
    knowledge, _ = learned(
        Tables(past=covariates(), future=covariates(14), static=static), calendar=("hour",)
    )
    again = Knowledge.from_json(knowledge.to_json(), knowledge.arrays())
    assert again.to_json() == knowledge.to_json()
    for name, rows in knowledge.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], rows)
    wanted = used(knowledge, Tables(), values().tail(LOOKBACK))
    found = used(again, Tables(), values().tail(LOOKBACK))
    for name in ("past", "future", "static"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    with pytest.raises(SavedModelError, match="damaged"):
        Knowledge.from_json({"codings": 3}, {})


@pytest.mark.parametrize("n_ahead", [0, 3])
def test_a_lengthened_panel_goes_on(n_ahead: int) -> None:
    longer = lengthened(read_panel(many()), n_ahead)
    assert longer.counts.tolist() == [12 + n_ahead, 7 + n_ahead]
    assert list(longer.index[12 + n_ahead :]) == list(stamps(7 + n_ahead))
    part = rows_of(values(), 2, 6)
    assert list(lengthened(part, n_ahead).index) == list(stamps()[2 : 6 + n_ahead])
