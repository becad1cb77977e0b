"""The weights that come with tsm2: small, described, and better than the last season again."""

from pathlib import Path

import tsm2
from tsm2 import TSM2Forecaster
from tsm2.backtesting import error_table
from tsm2.datasets import load_sample
from tsm2.networks.pretrained import describe_pretrained, load_pretrained
from tsm2.pretraining.__main__ import command
from tsm2.pretraining.pretrain import PretrainingConfig

HOME = Path(tsm2.__file__).parent / "pretrained" / "zero"


def test_they_are_small_and_say_how_they_were_made() -> None:
    assert sum(each.stat().st_size for each in HOME.iterdir()) < 8e6
    facts = describe_pretrained("zero")
    config = PretrainingConfig(seed=facts["seed"], steps=facts["step"])  # not by the clock
    assert facts["command"] == command(config, facts["trust"])
    assert facts["command"] in (HOME / "README.md").read_text("utf-8")


def test_they_beat_the_last_season_again() -> None:
    frame = load_sample().iloc[:1500]
    model = TSM2Forecaster.from_pretrained("zero", device="cpu")
    floor = model.backtest_floor(frame, horizon=64, stride=97)["seasonal naive"]
    table = model.backtest(frame, horizon=64, stride=97)
    error, naive = (error_table(each)["MAE"] for each in (table, floor))
    assert (error < 0.9 * naive).all()


def test_they_learned_when_to_be_how_sure() -> None:
    network = load_pretrained("zero")
    assert network.config.horizon == 64
    assert network.inner.head.get_submodule("gaps").weight.abs().sum() > 0  # type: ignore[operator]
