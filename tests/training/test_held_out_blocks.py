"""Blocks that are held out in turn: each window once, and by what has not seen its targets."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from tsm2 import TSM2Forecaster
from tsm2.prepared.windows import Windows
from tsm2.training.blocks import BLOCKS, cut_blocks

LOOKBACK, HORIZON = 6, 4


def windows(first: int, count: int, owner: int = 0) -> tuple[Tensor, Tensor]:
    return torch.arange(first, first + count), torch.full((count,), owner)


def of(*parts: tuple[Tensor, Tensor], rows: int = 200) -> Windows:
    starts, series = (torch.cat(each) for each in zip(*parts, strict=True))
    values = torch.arange(float(rows))[:, None]
    return Windows(values=values, lookback=LOOKBACK, horizon=HORIZON, starts=starts, series=series)


ONE = (of(windows(0, 40)), of(windows(44, 20)))  # four windows hold rows of both
MANY = (
    of(windows(0, 11), windows(60, 30, 1), windows(120, 3, 3)),  # series 2 has no window
    of(windows(15, 5), windows(94, 9, 1)),
)


@pytest.mark.parametrize("parts", [ONE, MANY, (ONE[0], None), (MANY[0], None)])
def test_every_window_is_held_out_once_and_no_target_of_it_is_seen(
    parts: tuple[Windows, Windows | None],
) -> None:
    held_out = []
    cut = list(cut_blocks(*parts))
    assert len(cut) == BLOCKS
    for rest, block in cut:
        assert block.starts is not None
        held_out += block.starts.tolist()
        judged = {row + k for row in block.starts.tolist() for k in range(HORIZON)}
        for piece in rest:
            assert piece.starts is not None
            seen = {row + k for row in piece.starts.tolist() for k in range(HORIZON)}
            assert not judged & seen
    wanted = set()
    for part in parts:
        wanted |= set(() if part is None or part.starts is None else part.starts.tolist())
    assert len(held_out) == len(set(held_out))
    assert wanted <= set(held_out)


def test_what_is_left_of_one_table_comes_in_pieces_that_follow_on() -> None:
    for rest, _ in cut_blocks(*ONE):
        assert all(bool((piece.starts.diff() == 1).all()) for piece in rest)  # type: ignore[union-attr]


def test_what_has_no_rest_is_passed_over() -> None:
    assert list(cut_blocks(of(windows(0, 3)), None)) == []


# --- what a fit makes of it -----------------------------------------------------------------------


def noise(rows: int, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(rows, 2)) * [1.0, 10.0]
    return pd.DataFrame(values, pd.date_range("2024-01-01", periods=rows), columns=["a", "b"])


def test_intervals_of_a_short_table_hold_on_rows_to_come() -> None:
    """Noise has nothing to learn: errors on training rows would be too small, and few are known."""
    shares = []
    for seed in range(12):
        table = noise(100, seed)
        model = TSM2Forecaster(horizon=7, random_state=0).fit(table.iloc[:60])
        assert model.calibration_ is not None
        assert len(model.calibration_.scores) == 60 - model.fitted_.lookback - 7 + 1
        backtest = model.backtest(table.iloc[60:], coverage=0.8)
        inside = backtest["actual"].between(backtest["lo-80"], backtest["hi-80"])
        shares.append(inside.mean())
    assert 0.74 < np.mean(shares) < 0.9


@pytest.mark.parametrize("ensemble", [1, 2])
@pytest.mark.parametrize("quantiles", [None, (0.1, 0.9)])
def test_mixers_that_earn_nothing_are_left_out_and_come_back(
    quantiles: tuple[float, ...] | None, ensemble: int, tmp_path: object
) -> None:
    sizes: dict[str, Any] = {"horizon": 5, "max_epochs": 1, "features": 4, "random_state": 0}
    model = TSM2Forecaster(**sizes, quantiles=quantiles, n_estimators=ensemble, start_margin=0.9)
    model.fit(noise(80))
    assert model.network_.config.blocks == 0
    assert model.choices_.loc[model.choices_["chosen"], "mixers"].tolist() == [False]
    model.save(f"{tmp_path}/model")
    again = TSM2Forecaster.load(f"{tmp_path}/model")
    pd.testing.assert_frame_equal(again.predict(), model.predict())
    pd.testing.assert_frame_equal(again.update(noise(90)[80:]).predict(), model.predict(noise(90)))
    again.set_params(warm_start=True).fit(noise(80))
    assert again.network_.config.blocks == 1
    assert again.choices_.loc[again.choices_["chosen"], "mixers"].tolist() == [True]


def test_where_no_rows_can_judge_mixers_are_not_trained() -> None:
    model = TSM2Forecaster(horizon=6, random_state=0).fit(noise(13))
    assert model.n_iter_ == 0
    assert model.network_.config.blocks == 0
    asked = TSM2Forecaster(horizon=6, random_state=0, max_epochs=1, validation_fraction=0.0)
    assert asked.fit(noise(13)).n_iter_ == 1
