"""What workers make of whole series is what one process makes of them, to the bit: on pandas."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from engine_cases import forecaster, in_order, series

from tsm2 import TSM2Forecaster, engines
from tsm2.errors import (
    FrameError,
    NotFittedError,
    ParameterError,
    TSM2Error,
    WindowError,
)

START = pd.Timestamp("2024-02-10")


@pytest.fixture(scope="module")
def fitted() -> TSM2Forecaster:
    model: TSM2Forecaster = engines.fit(forecaster(), series(), sample=10)
    return model


@pytest.mark.parametrize("partitions", [None, 1, 7, 100])
def test_partitions_change_no_bit(fitted: TSM2Forecaster, partitions: int | None) -> None:
    frame = series()
    cases: list[tuple[Any, dict[str, Any]]] = [
        ("predict", {"horizon": 8}),
        ("predict_quantiles", {}),
        ("predict_quantiles", {"quantiles": [0.25, 0.75], "horizon": 2}),
        ("backtest", {"start": START, "stride": 3, "coverage": 0.8}),
    ]
    for verb, how in cases:
        got = getattr(engines, verb)(fitted, frame, partitions=partitions, **how)
        wanted = getattr(fitted, verb)(frame, **how)
        pd.testing.assert_frame_equal(got, wanted, check_exact=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": 0},
        {"blocks": 2, "target_col": ["y", "z"]},
        {"missing": "mask"},
        {"quantiles": (0.1, 0.5, 0.9), "backend": "torch"},
    ],
    ids=str,
)
def test_a_series_is_forecast_alike_alone_and_among_others(changes: dict[str, Any]) -> None:
    frame = series(extra="z" if "target_col" in changes else None)
    if changes.get("missing") == "mask":
        frame.loc[frame.index % 97 == 5, "y"] = np.nan
    sizes = {"lookback": 28, "horizon": 7, "features": 8}
    model = forecaster(**sizes, **changes).fit(frame[frame["unique_id"] < "s010"])
    with torch.no_grad():  # weights as of a long training, all of which count
        draw = torch.Generator().manual_seed(0)
        for weight in model.network_.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw))
    together = in_order(model.predict(frame))
    for count in (1, 2, 5):
        names = frame["unique_id"].unique()[3 : 3 + count]
        alone = in_order(model.predict(frame[frame["unique_id"].isin(names)]))
        wanted = together[together["unique_id"].isin(names)].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, wanted, check_exact=True)


def test_a_sample_is_the_same_wherever_its_series_stand() -> None:
    frame = series()
    shuffled = pd.concat([part for _, part in reversed(list(frame.groupby("unique_id")))])
    one, other = (engines.fit(forecaster(), each, sample=5) for each in (frame, shuffled))
    assert sorted(one.series_) == sorted(other.series_)
    assert len(one.series_) == 5
    third = engines.fit(forecaster(), frame, sample=5, random_state=1)
    assert sorted(third.series_) != sorted(one.series_)
    everything = engines.fit(forecaster(), frame, sample=1000)
    assert len(everything.series_) == frame["unique_id"].nunique()


def test_a_group_has_a_model_of_its_own() -> None:
    frame = series(store=True)
    models = engines.fit(forecaster(), frame, fit_by="store")
    assert list(models.forecasters) == ["A", "B"]
    for how in ({"partitions": 2}, {}):
        got = engines.predict(models, frame, **how)
        for store, part in frame.groupby("store"):
            rows = part.drop(columns="store")
            wanted = forecaster().fit(rows).predict(rows)
            own = got[got["store"] == store].drop(columns="store").reset_index(drop=True)
            pd.testing.assert_frame_equal(own, wanted, check_exact=True)
    refits = engines.backtest(models, frame, start=START, stride=10, refit=2)
    assert list(refits.columns[:3]) == ["store", "unique_id", "cutoff"]
    with pytest.raises(FrameError, match="there is no model for store='C', but for 2 others"):
        engines.predict(models, frame.assign(store="C"))


def test_a_part_whose_series_end_before_the_start_has_no_rows(fitted: TSM2Forecaster) -> None:
    frame = series()
    old = frame[frame["unique_id"] == "s000"].iloc[:30].assign(unique_id="aaa")
    both = pd.concat([old, frame], ignore_index=True)
    how: dict[str, Any] = {"start": START, "stride": 3}
    got = engines.backtest(fitted, both, partitions=41, **how)
    pd.testing.assert_frame_equal(got, fitted.backtest(both, **how), check_exact=True)
    with pytest.raises(WindowError, match="s000"):
        engines.backtest(fitted, frame.groupby("unique_id").head(18), partitions=3)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m, f: engines.predict(m, f.to_numpy()), ParameterError, "the frame is numpy"),
        (lambda m, f: engines.predict(m, f["y"]), ParameterError, "or a Ray Dataset is needed"),
        (lambda m, f: engines.predict(m, f.drop(columns="y")), FrameError, "has no column 'y'"),
        (lambda m, f: engines.predict(m, f, partitions=0), ParameterError, "partitions must be"),
        (lambda m, f: engines.predict(forecaster(), f), NotFittedError, "is not fitted"),
        (lambda m, f: engines.backtest(m, f, refit=1), ParameterError, "fit_by="),
        (lambda m, f: engines.backtest(m, f, to="a.csv"), ParameterError, "Leave `to` out"),
        (
            lambda m, f: engines.fit(m, f, sample=3, fit_by="y"),
            ParameterError,
            "sample or fit_by, not both",
        ),
        (lambda m, f: engines.fit(m, f, sample=0), ParameterError, "sample must be"),
        (lambda m, f: engines.fit(m, f, fit_by="shop"), FrameError, "has no column 'shop'"),
        (
            lambda m, f: engines.predict(
                forecaster().fit(f.pivot(index="ds", columns="unique_id", values="y")[["s000"]]), f
            ),
            FrameError,
            "was fitted to a DataFrame, but on an engine",
        ),
    ],
)
def test_mistakes_are_said_in_words(
    fitted: TSM2Forecaster, call: Any, kind: type[TSM2Error], message: str
) -> None:
    with pytest.raises(kind, match=message):
        call(fitted, series())
