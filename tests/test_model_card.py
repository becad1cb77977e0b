"""A saved folder says in words what it holds, and the words change nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsm2 import TSM2Forecaster
from tsm2.errors import OutputError

CARD = "README.md"


def waves(rows: int = 120) -> pd.DataFrame:
    index = pd.date_range("2024-01-01", periods=rows, freq="h")
    t = np.arange(rows)[:, None]
    noise = np.random.default_rng(0).normal(0, 0.1, (rows, 2))
    return pd.DataFrame(np.sin(t * [0.26, 0.52]) + noise, index, ["sun", "a|b"])


@pytest.fixture(scope="module")
def fitted() -> TSM2Forecaster:
    return TSM2Forecaster(horizon=6, lookback=24, max_epochs=1, random_state=0).fit(waves())


def card_of(model: TSM2Forecaster, folder: Path) -> str:
    model.save(folder)
    return (folder / CARD).read_text(encoding="utf-8")


def test_it_says_what_was_fitted_and_how_well(fitted: TSM2Forecaster, tmp_path: Path) -> None:
    card = card_of(fitted, tmp_path / "model")
    assert "| forecasts | sun, a\\|b, 6 rows at once |" in card
    assert "| fitted on | 120 rows |" in card
    assert "| goes on behind | 2024-01-05 23:00:00 |" in card
    assert f"| network | {fitted.floor_['network']:.4g} |" in card
    assert f"| repeat last | {fitted.floor_['repeat last']:.4g} |" in card
    assert f"`level={fitted.choices_.query('chosen')['level'].item()!r}`" in card
    assert "`random_state=0`" in card
    assert "TSM2Forecaster.load(" in card


def test_the_same_model_has_the_same_card(fitted: TSM2Forecaster, tmp_path: Path) -> None:
    first = card_of(fitted, tmp_path / "one")
    again = TSM2Forecaster.load(tmp_path / "one")
    assert card_of(again, tmp_path / "two") == first
    assert str(tmp_path) not in first


def test_load_does_not_read_it(fitted: TSM2Forecaster, tmp_path: Path) -> None:
    card_of(fitted, tmp_path / "model")
    (tmp_path / "model" / CARD).unlink()
    pd.testing.assert_frame_equal(
        TSM2Forecaster.load(tmp_path / "model").predict(), fitted.predict()
    )


def test_a_readme_of_the_user_is_kept(fitted: TSM2Forecaster, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    card_of(fitted, folder)
    (folder / CARD).write_text("mine", encoding="utf-8")
    assert card_of(fitted, folder) == "mine"


def test_a_first_save_that_was_killed_behind_the_card_is_no_obstacle(
    fitted: TSM2Forecaster, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    card_of(fitted, folder)
    (folder / "config.json").unlink()
    assert "TSM2" in card_of(fitted, folder)
    (folder / "config.json").unlink()
    (folder / CARD).write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=CARD):
        fitted.save(folder)


def test_many_series_and_quantiles(tmp_path: Path) -> None:
    tables = {f"shop {n}": waves(60 + n)[["sun"]] for n in range(25)}
    model = TSM2Forecaster(
        horizon=4, lookback=12, quantiles=(0.1, 0.5, 0.9), max_epochs=1, random_state=0
    ).fit(tables)
    card = card_of(model, tmp_path / "model")
    assert "1800 rows of 25 series" in card
    assert "and 5 more" in card
    assert "| quantiles | 0.1, 0.5, 0.9 |" in card
