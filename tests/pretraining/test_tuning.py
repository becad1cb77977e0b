"""What tuning solves exactly: what forecasts miss of a table, kept if held-out windows say so."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from torch import Tensor

from tsm2 import TSM2Forecaster
from tsm2.errors import WindowError
from tsm2.fitted import pretrained
from tsm2.networks.classical import NAMES
from tsm2.networks.pretrained import load_pretrained
from tsm2.networks.zero import SolvedPath, Told, ZeroShotNetwork
from tsm2.prepared.windows import Windows
from tsm2.training.missed import solve_missed
from tsm2.training.told import ToldNetwork, keep_told, told_of

LAG = 37
GENTLE: dict[str, Any] = {"warm_start": True, "max_epochs": 1, "epoch_steps": 2, "random_state": 0}


def echo(rows: int, seed: int = 0, sign: float = 1.0) -> NDArray[np.float64]:
    """Values that come again, turned over, at a lag which no calendar knows, and noise."""
    values = np.random.default_rng(seed).standard_normal(rows + LAG)
    for k in range(LAG, rows + LAG):
        values[k] = 0.5 * values[k] - 0.85 * sign * values[k - LAG]
    return values[LAG:]


def table(values: NDArray[np.float64]) -> pd.DataFrame:
    index = pd.date_range("2024-01-01", periods=len(values), freq="h")
    return pd.DataFrame({"a": values[:, 0], "b": values[:, 1]}, index)


def pair(rows: int) -> pd.DataFrame:
    return table(np.stack([echo(rows), 5 + 2 * echo(rows, seed=1)], 1))


def mean_error(model: TSM2Forecaster, frame: pd.DataFrame, first: int) -> float:
    errors = model.backtest(frame, start=frame.index[first], stride=8)
    scale = errors["variate"].astype(str).map(frame.std())
    return float((np.abs(errors["forecast"] - errors["actual"]) / scale).mean())


def path_of(model: TSM2Forecaster) -> SolvedPath | None:
    assert isinstance(model.network_, ZeroShotNetwork)
    return model.network_.solved


@pytest.fixture
def model(zero_weights: str) -> TSM2Forecaster:
    return TSM2Forecaster.from_pretrained(zero_weights, device="cpu", **GENTLE)


def test_a_linear_structure_that_classical_forecasts_miss_is_learned(
    model: TSM2Forecaster, zero_weights: str
) -> None:
    frame = pair(900)
    zero = TSM2Forecaster.from_pretrained(zero_weights, device="cpu")
    tuned = model.fit(frame.iloc[:700])
    error, before = mean_error(tuned, frame, 700), mean_error(zero, frame, 700)
    assert error < 0.75 * before
    gently = TSM2Forecaster.from_pretrained(
        zero_weights, device="cpu", linear_start="random", **GENTLE
    ).fit(frame.iloc[:700])
    assert error < 0.75 * mean_error(gently, frame, 700)
    assert path_of(gently) is None


def test_what_was_solved_is_in_the_choices_and_is_epoch_0(model: TSM2Forecaster) -> None:
    model.fit(pair(700))
    choices = model.choices_
    assert choices["solved"].tolist() == ["", "courses", "courses, history"]
    assert choices["chosen"].tolist() == [False, False, True]
    assert choices["strength"].iloc[0] == np.inf
    assert choices["validation_mse"].iloc[2] < 0.7 * choices["validation_mse"].iloc[0]
    assert model.history_["epoch"].tolist() == [0, 1]
    random = TSM2Forecaster.from_pretrained(
        str(model.pretrained), device="cpu", linear_start="random", **GENTLE
    ).fit(pair(700))
    assert "solved" not in random.choices_
    start, gently = (each.history_["validation_loss"].iloc[0] for each in (model, random))
    assert start < 0.75 * gently


@pytest.mark.parametrize("seed", range(3))
def test_white_noise_is_forecast_no_worse(
    model: TSM2Forecaster, zero_weights: str, seed: int
) -> None:
    frame = table(np.random.default_rng(seed).standard_normal((900, 2)))
    zero = TSM2Forecaster.from_pretrained(zero_weights, device="cpu")
    model.fit(frame.iloc[:700])
    assert mean_error(model, frame, 700) < 1.02 * mean_error(zero, frame, 700)


def some_windows(rows: int, first: int, *, gaps: bool = False, sign: float = 1.0) -> Windows:
    values = torch.from_numpy(np.stack([echo(rows, sign=sign), echo(rows, 1, sign)], 1)).float()
    known = None
    if gaps:
        known = torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) > 0.1
    return Windows(
        values=values,
        lookback=64,
        horizon=8,
        starts=torch.arange(first, rows - 72),
        known=known,
    )


def missed(
    network: ZeroShotNetwork, windows: Windows
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64], NDArray[np.bool_]]:
    """Return what may be read, what is missed, and where it is known, as it is written down."""
    batch = windows.gather(torch.arange(len(windows)))
    told = network.tell(batch.context, batch.mask)
    target = (batch.target - told.level) / told.deviation
    away = (target - told.base) / told.scale - network.answer(told)[..., 1]
    apart = told.static[..., 8 : 8 * (len(NAMES) + 1)].reshape(-1, len(NAMES), 8)
    both = torch.cat((apart, torch.linspace(-1, 1, 8) * apart), 1)
    context = (told.context - told.context[..., -1:]) / told.scale
    known = torch.ones_like(batch.target) if batch.target_mask is None else batch.target_mask
    columns = {"courses": both.mT, "history": context.flatten(0, 1)}
    return (
        {name: each.double().numpy() for name, each in columns.items()},
        away.detach().flatten(0, 1).clamp(-15, 15).double().numpy(),
        known.flatten(0, 1).bool().numpy(),
    )


@pytest.mark.parametrize("gaps", [False, True])
def test_both_solutions_are_ridge_regressions_of_what_is_missed(
    zero_weights: str, gaps: bool
) -> None:
    network = load_pretrained(zero_weights)
    train = some_windows(400, 0, gaps=gaps)
    judged = some_windows(600, 400, gaps=gaps)
    better, tried = solve_missed(network, train, judged, chosen=torch.arange(len(train)))
    assert tried[2].solved == ("courses", "history")
    assert tried[2].chosen
    solved = better.solved
    assert solved is not None
    columns, error, known = missed(network, train)
    x, y = columns["courses"][known], error[known]
    penalty = tried[1].strength * np.trace(x.T @ x) / x.shape[1]
    ridge = Ridge(alpha=penalty, fit_intercept=False).fit(x, y)
    np.testing.assert_allclose(solved.courses.detach(), ridge.coef_, rtol=1e-3, atol=1e-4)
    error = error - columns["courses"] @ ridge.coef_
    for step in range(8):
        rows = known[:, step]
        x, y = columns["history"][rows], error[rows, step]
        penalty = tried[2].strength * np.trace(x.T @ x) / 64
        ridge = Ridge(alpha=penalty, fit_intercept=False).fit(x, y)
        own = solved.history[:, step].detach()
        np.testing.assert_allclose(own, ridge.coef_, rtol=1e-2, atol=1e-4)
    after = missed(better, train)[1][known]
    assert np.abs(after).mean() < 0.8 * np.abs(missed(network, train)[1][known]).mean()


def test_what_held_out_windows_contradict_is_not_kept(zero_weights: str) -> None:
    network = load_pretrained(zero_weights)
    train, judged = some_windows(400, 0), some_windows(600, 400, sign=-1.0)
    better, tried = solve_missed(network, train, judged, chosen=torch.arange(len(train)))
    assert tried[2].solved[-1] == "history"
    assert not tried[2].chosen
    assert better.solved is None or not better.solved.history.any()


def test_where_nothing_is_missed_the_network_is_left_as_it_is(zero_weights: str) -> None:
    network = load_pretrained(zero_weights)
    still = Windows(values=torch.full((200, 1), 3.0), lookback=64, horizon=8)
    kept, tried = solve_missed(network, still, still, chosen=torch.arange(len(still)))
    assert kept is network
    assert [each.chosen for each in tried] == [True, False, False]
    assert tried[0].strength == np.inf


def test_all_quantiles_move_alike(zero_weights: str) -> None:
    network = load_pretrained(zero_weights)
    other = network.with_solved()
    assert other.solved is not None
    context = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(other(context), network(context))
    torch.nn.init.normal_(other.solved.history, std=0.1)
    moved = (other(context) - network(context)).detach()
    assert moved.abs().max() > 0.1
    torch.testing.assert_close(moved, moved[..., :1].expand_as(moved), rtol=1e-4, atol=1e-5)


def test_tuning_again_goes_on_from_what_was_solved(model: TSM2Forecaster) -> None:
    frame = pair(700)
    first = path_of(model.fit(frame))
    loss = model.history_["validation_loss"].min()
    again = path_of(model.fit(frame))
    assert model.history_["validation_loss"].iloc[0] <= loss * 1.001
    assert first is not None
    assert again is not None
    torch.testing.assert_close(again.history, first.history, rtol=0, atol=0.2)


@pytest.mark.parametrize("sampling", ["windows", "series"])
def test_it_goes_with_many_series_gaps_quantiles_and_files(
    model: TSM2Forecaster, tmp_path: Path, sampling: Any
) -> None:
    gaps = pair(500)
    gaps.iloc[100:130, 0] = np.nan
    gaps.iloc[300:303] = np.nan
    series = {"a": gaps, "b": pair(600).iloc[50:], "short": pair(30)}
    model.set_params(sampling=sampling).fit(series)
    assert "history" in model.choices_["solved"][model.choices_["chosen"]].item()
    bounds = model.predict_interval(coverage=0.8, horizon=20)
    for name, each in bounds.items():
        assert np.isfinite(each.to_numpy()).all(), name
        assert (each["b"][0.9] > each["b"][0.1]).all()
    model.save(tmp_path / "model")
    loaded = TSM2Forecaster.load(tmp_path / "model")
    assert isinstance(loaded.network_, ZeroShotNetwork)
    for name, each in loaded.predict_interval(coverage=0.8, horizon=20).items():
        pd.testing.assert_frame_equal(each, bounds[name])
    loaded.update({"b": pair(700).iloc[600:610]})
    history = {"b": pair(700).iloc[50:610]}
    later = model.predict(history)["b"]
    np.testing.assert_allclose(loaded.predict()["b"], later, rtol=1e-5)
    whole = {"b": pair(700).iloc[50:]}
    tested = model.backtest(whole, start=whole["b"].index[560], stride=1000, coverage=0.8)
    np.testing.assert_allclose(tested["forecast"], later.to_numpy().ravel(), rtol=1e-4, atol=1e-5)
    interval = model.predict_interval(history, coverage=0.8)["b"]
    for side, level in (("lo-80", 0.1), ("hi-80", 0.9)):
        wanted = interval.xs(level, axis=1, level=1).to_numpy().ravel()
        np.testing.assert_allclose(tested[side], wanted, rtol=1e-4, atol=1e-5)


def test_without_rows_to_judge_nothing_is_solved(model: TSM2Forecaster) -> None:
    model.set_params(validation_fraction=0.0).fit(pair(300))
    assert path_of(model) is None
    assert "solved" not in model.choices_


@pytest.mark.parametrize("more", [1, 5, 20])
def test_few_rows_are_tuned_on(model: TSM2Forecaster, more: int) -> None:
    forecast = model.fit(pair(model.horizon + more)).predict(horizon=6)
    assert np.isfinite(forecast).all(axis=None)
    assert len(model.history_) == 2


def test_too_few_rows_are_refused_in_words(model: TSM2Forecaster) -> None:
    horizon = model.horizon
    message = rf"the {horizon} rows .* at most {horizon}\. .* warm_start=False"
    with pytest.raises(WindowError, match=message):
        model.fit({"a": pair(horizon), "b": pair(horizon - 2)})


@pytest.mark.parametrize("gaps", [False, True])
def test_what_is_kept_is_what_is_told_to_the_bit(zero_weights: str, gaps: bool) -> None:
    network = load_pretrained(zero_weights).with_solved()
    assert network.solved is not None
    torch.nn.init.normal_(network.solved.history, std=0.1)
    windows = some_windows(200, 0, gaps=gaps)
    kept, whole = keep_told(network, windows, 24), ToldNetwork(network)
    for which in windows.batches(24):
        plain, batch = windows.gather(which), kept.gather(which)
        anew, found = network.tell(plain.context, plain.mask), told_of(network, batch)
        for name in ("context", "mask", "static", "base", "scale", "level", "deviation"):
            one, two = getattr(anew, name), getattr(found, name)
            assert one.dtype == two.dtype, name
            assert torch.equal(one, two), name
        assert anew.context.stride() == found.context.stride()
        forecast = whole(batch.context, **batch.auxiliary())
        assert torch.equal(forecast, network(plain.context, mask=plain.mask))
        assert torch.equal(forecast, whole(plain.context, mask=plain.mask))


@pytest.mark.parametrize("batch_size", [32, 16])
def test_a_window_is_told_of_once_and_no_loss_moves(
    zero_weights: str, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    asked = GENTLE | {"max_epochs": 3, "epoch_steps": 8, "batch_size": batch_size}
    counted = 0
    tell = ZeroShotNetwork.tell

    def count(self: ZeroShotNetwork, context: Tensor, *rest: Any, **more: Any) -> Told:
        nonlocal counted
        counted += len(context)
        return tell(self, context, *rest, **more)

    monkeypatch.setattr(ZeroShotNetwork, "tell", count)
    found = []
    for kept in (8192, 0):
        monkeypatch.setattr(pretrained, "_KEPT", kept)
        counted = 0
        model = TSM2Forecaster.from_pretrained(zero_weights, device="cpu", **asked).fit(pair(400))
        found.append((counted, model.history_, model.choices_))
    (once, *losses), (anew, *same) = found
    assert once < 0.6 * anew
    for one, two in zip(losses, same, strict=True):
        pd.testing.assert_frame_equal(one, two, check_exact=True)
