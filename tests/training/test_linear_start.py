"""The exact start: an untrained network forecasts what a ridge regression of scikit-learn does."""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
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
from tsm2.errors import ParameterError, WindowError
from tsm2.networks.patches import interpolate_gaps
from tsm2.networks.tsm2 import NetworkConfig, TSM2Network
from tsm2.prepared.windows import Batch, Covariates, Windows
from tsm2.training.choosing import Choosing
from tsm2.training.leading import Leading
from tsm2.training.linear_choice import Candidate, choose_linear
from tsm2.training.loop import seeded
from tsm2.training.moments import LinearInput
from tsm2.training.ridge import LEVELS, LinearMap, solve_again, solve_averaged, solve_linear
from tsm2.training.simple import Blend
from tsm2.training.start import (
    ExactStart,
    add_mixers,
    leave_out,
    refit_exactly,
    solve_exactly,
    start_exactly,
    without_mixers,
)

LOOKBACK, HORIZON, VARIATES = 24, 6, 3
ROWS, N_TRAIN = 160, 120
SIZES = NetworkConfig(
    lookback=LOOKBACK, horizon=HORIZON, n_variates=VARIATES, patch_length=8, patch_stride=8
)


LED = Leading(rows=5, strength=0.03, led=(0, 2))


def table(rows: int = ROWS, *, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    steps = torch.arange(rows, dtype=torch.float64)[:, None]
    noise = torch.randn(rows, VARIATES, generator=draw, dtype=torch.float64)
    return (torch.sin(steps * 2 * torch.pi / 12 + torch.arange(VARIATES)) + 0.3 * noise).float()


def parts(values: Tensor, **given: Any) -> tuple[Windows, Windows]:
    sizes = {"lookback": LOOKBACK, "horizon": HORIZON, **given}
    known = sizes.pop("known", None)
    train = Windows(
        values=values[:N_TRAIN], known=None if known is None else known[:N_TRAIN], **sizes
    )
    starts = later(N_TRAIN, LOOKBACK, len(values))
    return train, Windows(values=values, known=known, starts=starts, **sizes)


def later(first: int, lookback: int, rows: int) -> Tensor:
    """Return the starts of windows whose targets lie in row `first` and after it."""
    return torch.arange(first - lookback, rows - lookback - HORIZON + 1)


def last_steps(windows: Windows, lookback: int) -> Windows:
    """Return windows of the same targets that begin later."""
    starts = torch.arange(len(windows)) if windows.starts is None else windows.starts
    return replace(windows, lookback=lookback, starts=starts + windows.lookback - lookback)


def started(
    config: NetworkConfig, train: Windows, validation: Windows | None
) -> tuple[TSM2Network, LinearMap]:
    with seeded(0):
        network = TSM2Network(config).eval()
    return network, start_exactly(network, train, validation)


def every(windows: Windows) -> Batch:
    return windows.gather(torch.arange(len(windows)))


@torch.no_grad()
def forecast(network: TSM2Network, batch: Batch) -> Tensor:
    given: Tensor = network(batch.context, **batch.auxiliary())
    return given


def read(batch: Batch, level: str = "mean") -> tuple[NDArray[np.float64], ...]:
    """Contexts, targets and levels as a reader would write them down, (W, M, ...)."""
    context = batch.context.double()
    known = torch.ones_like(context, dtype=torch.bool) if batch.mask is None else batch.mask
    mean = (context * known).sum(-1, keepdim=True) / known.sum(-1, keepdim=True).clamp(min=1)
    filled = interpolate_gaps(context, known)
    base = mean if level == "mean" else filled[..., -1:]
    return tuple(each.numpy() for each in (filled - base, batch.target.double() - base, base))


def ridge(x: NDArray[Any], y: NDArray[Any], strength: float) -> Ridge:
    alpha = strength * float((x**2).sum()) / x.shape[1]  # trace over columns: the mean eigenvalue
    return Ridge(alpha=alpha, fit_intercept=False, solver="cholesky").fit(x, y)


def assert_close(got: Tensor, wanted: NDArray[Any]) -> None:
    torch.testing.assert_close(got.double(), torch.from_numpy(wanted), rtol=0, atol=1e-4)


@pytest.mark.parametrize("blocks", [0, 1, 2])
@pytest.mark.parametrize("level", ["mean", "last"])
@pytest.mark.parametrize(
    "patches", [(8, 8, 16), (8, 4, 16), (7, 7, 8), (9, 5, 9)], ids="p{0[0]}s{0[1]}f{0[2]}".format
)
def test_an_untrained_network_is_the_ridge_regression_of_scikit_learn(
    patches: tuple[int, int, int], level: Any, blocks: int
) -> None:
    length, stride, features = patches
    config = replace(
        SIZES,
        patch_length=length,
        patch_stride=stride,
        features=features,
        level=level,
        blocks=blocks,
    )
    train, validation = parts(table())
    network, found = started(config, train, validation)
    x, y, _ = read(every(train), level)
    model = ridge(x.reshape(-1, LOOKBACK), y.reshape(-1, HORIZON), float(found.strength))
    x, y, base = read(every(validation), level)
    wanted = base + model.predict(x.reshape(-1, LOOKBACK)).reshape(y.shape)
    assert_close(forecast(network, every(validation)), wanted)
    error = float(((wanted - base - y) ** 2).mean())
    assert found.error == pytest.approx(error, rel=1e-6)


def test_the_strength_of_the_lowest_validation_error_is_chosen() -> None:
    train, validation = parts(table())
    _, found = started(SIZES, train, validation)
    x, y, _ = (each.reshape(-1, each.shape[-1]) for each in read(every(train)))
    xv, yv, _ = (each.reshape(-1, each.shape[-1]) for each in read(every(validation)))
    errors = {
        s: float(((ridge(x, y, s).predict(xv) - yv) ** 2).mean())
        for s in (1e-6, 0.01, 0.1, 1.0, 10.0)
    }
    assert found.error is not None
    assert found.error <= min(errors.values()) * (1 + 1e-9)


def test_separate_heads_have_a_map_and_a_strength_of_their_own() -> None:
    train, validation = parts(table())
    network, found = started(replace(SIZES, separate_heads=True), train, validation)
    assert found.strength.shape == (VARIATES,)
    x, y, _ = read(every(train))
    xv, _, base = read(every(validation))
    assert found.shared is not None
    shared = found.shared.weights[0].numpy()  # (L, H): each map is held towards this one
    wanted = np.stack(
        [
            xv[:, m] @ shared
            + ridge(x[:, m], y[:, m] - x[:, m] @ shared, float(found.strength[m])).predict(xv[:, m])
            for m in range(VARIATES)
        ],
        axis=1,
    )
    assert_close(forecast(network, every(validation)), base + wanted)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("level", ["mean", "last"])
def test_gaps_are_filled_as_the_network_does_and_unknown_targets_weigh_nothing(
    level: Any, separate: bool
) -> None:
    known = torch.rand(ROWS, VARIATES, generator=torch.Generator().manual_seed(3)) > 0.15
    known[30:70, 1] = False  # whole targets
    values = table().where(known, 0.0)
    train, validation = parts(values, known=known)
    config = replace(SIZES, gaps=True, level=level, separate_heads=separate)
    network, found = started(config, train, validation)
    batch, judged = every(train), every(validation)
    assert batch.target_mask is not None
    x, y, _ = read(batch, level)
    xv, _, base = read(judged, level)
    weight = batch.target_mask.numpy()
    wanted = np.zeros_like(base.repeat(HORIZON, -1))
    for group in [[m] for m in range(VARIATES)] if separate else [list(range(VARIATES))]:
        strength = float(found.strength[group[0] if separate else 0])
        shared = np.zeros((LOOKBACK, HORIZON))
        if separate:
            assert found.shared is not None
            shared = found.shared.weights[0].numpy()
        for step in range(HORIZON):
            rows = weight[:, group, step]
            read_in = x[:, group][rows]
            rest = y[:, group, step][rows] - read_in @ shared[:, step]
            columns = xv[:, group].reshape(-1, LOOKBACK)
            own = ridge(read_in, rest, strength).predict(columns) + columns @ shared[:, step]
            wanted[:, group, step] = own.reshape(-1, len(group))
    assert_close(forecast(network, judged), base + wanted)


@pytest.mark.parametrize("level", ["mean", "last"])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("season", [None, 12])
def test_a_map_of_many_steps_reads_the_early_ones_in_means(
    level: Any, separate: bool, season: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 24 steps the last 8 one by one, 15 in means of three, and the first alone."""
    train, validation = parts(table())
    linear = LinearInput(level=level, fine=8)
    plain = solve_linear(train, validation, linear, separate=separate, season=season)
    monkeypatch.setattr("tsm2.training.ridge._FINE", 12)
    same = solve_linear(train, validation, linear, separate=separate, season=season)
    assert torch.equal(plain.weights, same.weights)  # up to twice as many steps are no many

    monkeypatch.setattr("tsm2.training.ridge._FINE", 6)
    monkeypatch.setattr("tsm2.training.ridge._COARSE", 3)
    whole = replace(linear, fine=None)
    same = solve_linear(train, validation, whole, separate=separate, season=season)
    assert torch.equal(plain.weights, same.weights)
    found = solve_linear(train, validation, linear, separate=separate, season=season)
    columns = np.zeros((LOOKBACK, 1 + 5 + 8))
    columns[0, 0] = 1.0
    for each in range(5):
        columns[1 + 3 * each : 4 + 3 * each, 1 + each] = 3**-0.5
    columns[16:, 6:] = np.eye(8)
    naive = np.zeros((LOOKBACK, HORIZON))
    if season is not None:
        naive[LOOKBACK - season + np.arange(HORIZON), np.arange(HORIZON)] = 1.0
    for windows in ([train], [train, validation]):
        again = found if len(windows) == 1 else solve_again(found, windows)
        x, y = (np.concatenate([read(every(w), level)[part] for w in windows]) for part in (0, 1))
        pooled = x.reshape(-1, LOOKBACK) @ columns, y.reshape(-1, HORIZON)
        shared, held = again.shared or again, columns.T @ naive
        model = ridge(pooled[0], pooled[1] - pooled[0] @ held, float(shared.strength))
        wanted = held + model.coef_.T
        np.testing.assert_allclose(shared.weights[0], columns @ wanted, atol=1e-7)
        for m in range(VARIATES) if separate else ():
            z = x[:, m] @ columns
            own = ridge(z, y[:, m] - z @ wanted, float(again.strength[m])).coef_.T
            np.testing.assert_allclose(again.weights[m], columns @ (wanted + own), atol=1e-7)


@pytest.mark.parametrize("season", [4, 12, 24, 25])
def test_a_map_can_be_held_towards_the_seasonal_naive_forecast(season: int) -> None:
    train, validation = parts(table())
    with seeded(0):
        network = TSM2Network(SIZES).eval()
    found = start_exactly(network, train, validation, ExactStart(season=season))
    x, y, _ = (each.reshape(-1, each.shape[-1]) for each in read(every(train)))
    xv, yv, base = read(every(validation))
    naive = np.zeros((LOOKBACK, HORIZON))
    for step in range(HORIZON) if season <= LOOKBACK else ():
        naive[LOOKBACK - season + step % season, step] = 1.0
    model = ridge(x, y - x @ naive, float(found.strength))
    wanted = base + xv @ naive + model.predict(xv.reshape(-1, LOOKBACK)).reshape(yv.shape)
    assert_close(forecast(network, every(validation)), wanted)


def cut_table(candidate: Candidate) -> tuple[Windows, Windows]:
    train, validation = parts(table())
    lookback = candidate.lookback
    return (
        replace(train, lookback=lookback),
        replace(validation, lookback=lookback, starts=later(N_TRAIN, lookback, ROWS)),
    )


def test_the_choice_is_the_lowest_error_of_what_was_tried() -> None:
    tried = [Candidate(lookback=lookback, level="last") for lookback in (2, 24, 12)]
    choice = choose_linear(cut_table, tried)
    errors = [each.error for each in choice.candidates]
    assert choice.best.error == min(errors)
    assert choice.best.lookback == 24
    assert [each.lookback for each in choice.candidates] == [2, 24, 12]
    wanted = started(replace(SIZES, level="last"), *cut_table(Candidate(lookback=24)))[1]
    assert choice.best.error == pytest.approx(wanted.error)
    assert choice.best.strength == pytest.approx(float(wanted.strength))


def test_the_first_candidate_stays_unless_another_is_clearly_better() -> None:
    tried = [Candidate(lookback=12), Candidate(lookback=24)]
    free = choose_linear(cut_table, tried, margin=0.0)
    assert free.best.lookback == 24
    gain = 1 - free.best.error / free.candidates[0].error
    assert choose_linear(cut_table, tried, margin=gain + 0.01).best.lookback == 12
    assert choose_linear(cut_table, tried, margin=gain - 0.01).best.lookback == 24


def test_without_windows_to_choose_by_the_choice_says_so() -> None:
    def cut(candidate: Candidate) -> tuple[Windows, None]:
        return Windows(values=table(30), lookback=candidate.lookback, horizon=HORIZON), None

    with pytest.raises(WindowError, match="set lookback"):
        choose_linear(cut, [Candidate(lookback=24)])


def test_without_instance_norm_a_constant_is_read_and_not_held_down() -> None:
    values = table() + 5.0
    train, validation = parts(values)
    network, found = started(replace(SIZES, instance_norm=False), train, validation)
    batch, judged = every(train), every(validation)
    x = batch.context.double().reshape(-1, LOOKBACK).numpy()
    y = batch.target.double().reshape(-1, HORIZON).numpy()
    alpha = float(found.strength) * float((x**2).sum()) / LOOKBACK
    model = Ridge(alpha=alpha, solver="cholesky").fit(x, y)
    wanted = model.predict(judged.context.double().reshape(-1, LOOKBACK).numpy())
    assert_close(forecast(network, judged), wanted.reshape(judged.target.shape))


@pytest.mark.parametrize(("length", "stride", "features"), [(12, 12, 3), (4, 8, 8)])
def test_what_the_network_cannot_see_the_map_does_not_read(
    length: int, stride: int, features: int
) -> None:
    """Fewer features than steps of a patch, and steps between patches that none covers."""
    config = replace(SIZES, patch_length=length, patch_stride=stride, features=features, blocks=0)
    train, validation = parts(table())
    network, found = started(config, train, validation)
    judged = every(validation)
    error = float((forecast(network, judged) - judged.target).square().mean())
    assert found.error == pytest.approx(error, rel=1e-4)
    whole = started(SIZES, train, validation)[1]
    assert whole.error is not None
    assert error < 1.15 * whole.error  # the directions that matter are kept


def with_covariates() -> tuple[Windows, Windows]:
    draw = torch.Generator().manual_seed(5)
    past = torch.randn(ROWS, 2, generator=draw)
    future = torch.randn(ROWS, 2, generator=draw)
    effects = torch.tensor([[1.0, 0.0], [0.5, -1.0], [0.0, 2.0]])
    values = 0.3 * table() + future @ effects.T
    values[1:] += past[:-1] @ torch.tensor([[0.4, 0.2, 0.1], [0.2, 0.1, 0.05]])
    static = torch.randn(1, VARIATES, 2, generator=draw)
    covariates = Covariates(past=past, future=future, static=static)
    return parts(values, covariates=covariates)


@pytest.mark.parametrize("level", ["mean", "last"])
def test_covariates_are_further_columns_of_the_same_regression(level: Any) -> None:
    train, validation = with_covariates()
    config = replace(SIZES, n_past=2, n_future=2, n_static=2, level=level)
    network, found = started(config, train, validation)
    assert network.past is not None
    assert network.future is not None

    def columns(batch: Batch) -> NDArray[np.float64]:
        pieces = [read(batch, level)[0]]
        for encoder, given in ((network.past, batch.past), (network.future, batch.future)):
            assert encoder is not None
            assert given is not None
            before = given[..., :LOOKBACK].double()
            base = before.mean(-1, keepdim=True) if level == "mean" else before[..., -1:]
            course = torch.einsum("bcs,mc->bms", given.double() - base, encoder.across.double())
            pieces.append(course[..., -LOOKBACK:].detach().numpy())
        assert batch.static is not None
        pieces.append(batch.static.double().numpy())
        return np.concatenate(pieces, -1).reshape(-1, 3 * LOOKBACK + 2)

    batch, judged = every(train), every(validation)
    y = read(batch, level)[1].reshape(-1, HORIZON)
    model = ridge(columns(batch), y, float(found.strength))
    base = read(judged, level)[2]
    wanted = base + model.predict(columns(judged)).reshape(judged.target.shape)
    assert_close(forecast(network, judged), wanted)
    blind = started(replace(SIZES, level=level), train, validation)[1]
    assert found.error is not None
    assert blind.error is not None
    assert found.error < 0.3 * blind.error


@pytest.mark.parametrize("kind", ["past", "future"])
def test_a_course_starts_as_least_squares_of_values_on_covariates_at_the_same_step(
    kind: str,
) -> None:
    train, validation = with_covariates()
    network, _ = started(replace(SIZES, n_past=2, n_future=2, n_static=2), train, validation)
    batch = every(train)
    values = torch.cat((batch.context, batch.target), -1).double()
    values = values - values[..., :LOOKBACK].mean(-1, keepdim=True)
    given = getattr(batch, kind).double()
    given = given - given[..., :LOOKBACK].mean(-1, keepdim=True)
    columns = given.transpose(1, 2).reshape(-1, 2)
    encoder = getattr(network, kind)
    for variate in range(VARIATES):
        target = values[:, variate, : given.shape[-1]].reshape(-1)
        wanted = np.linalg.lstsq(columns.numpy(), target.numpy(), rcond=None)[0]
        assert_close(encoder.across[variate].detach(), wanted)


QUANTILES = (0.1, 0.25, 0.5, 0.9)


@pytest.mark.parametrize("separate", [False, True])
def test_quantiles_start_around_the_map_with_the_spread_of_the_validation_errors(
    separate: bool,
) -> None:
    train, validation = parts(table(600))
    config = replace(SIZES, separate_heads=separate)
    point = started(config, train, validation)[0]
    quantile, _ = started(replace(config, quantiles=QUANTILES), train, validation)
    judged = every(validation)
    bands = forecast(quantile, judged)
    torch.testing.assert_close(bands[..., 2], forecast(point, judged), rtol=0, atol=1e-5)
    covered = (judged.target[..., None] <= bands).double().mean((0, 1, 2))
    median = covered[2]  # the map's own bias is not taken out
    assert torch.allclose(covered - median, torch.tensor(QUANTILES).double() - 0.5, atol=0.05)
    assert (bands.diff(dim=-1) > 0).all()


def test_of_a_distribution_the_location_starts_at_the_map() -> None:
    train, validation = parts(table())
    network, _ = started(replace(SIZES, outputs=("location", "scale")), train, validation)
    point, _ = started(SIZES, train, validation)
    judged = every(validation)
    got = forecast(network, judged)[..., 0]
    torch.testing.assert_close(got, forecast(point, judged), rtol=0, atol=1e-5)


@pytest.mark.parametrize("level", ["mean", "last", "zero"])
@pytest.mark.parametrize("separate", [False, True])
def test_the_moments_of_rolled_windows_are_those_of_gathered_ones(
    level: Any, separate: bool
) -> None:
    """Windows in any order are summed in batches, those in every row along diagonals."""
    train, validation = parts(table() + 0.5)
    shuffled = replace(train, starts=torch.arange(len(train)).flip(0))
    linear = LinearInput(level=level)
    one, two = (
        solve_linear(each, validation, linear, separate=separate) for each in (train, shuffled)
    )
    torch.testing.assert_close(one.weights, two.weights, rtol=1e-8, atol=1e-10)


def test_a_map_from_zero_is_the_ridge_regression_of_the_values_themselves() -> None:
    train, validation = parts(table() + 0.5)
    found = solve_linear(train, validation, LinearInput(level="zero"))
    batch = every(train)
    x, y = batch.context.flatten(0, 1).numpy(), batch.target.flatten(0, 1).numpy()
    wanted = ridge(x.astype(np.float64), y.astype(np.float64), float(found.strength[0]))
    np.testing.assert_allclose(found.weights[0].numpy(), wanted.coef_.T, rtol=1e-6, atol=1e-8)


def test_balanced_windows_weigh_every_series_the_same() -> None:
    values = torch.cat((table(100), 3 * table(60, seed=1)))
    starts = torch.cat((torch.arange(71), 100 + torch.arange(31)))
    series = torch.cat((torch.zeros(71), torch.ones(31))).long()
    given: dict[str, Any] = {"values": values, "lookback": LOOKBACK, "horizon": HORIZON}
    windows = Windows(starts=starts, series=series, balanced=True, **given)
    repeated = torch.cat((starts[:71].repeat(31), starts[71:].repeat(71)))
    equal = Windows(starts=repeated, **given)
    one, two = (started(SIZES, each, windows)[1] for each in (windows, equal))
    torch.testing.assert_close(one.weights, two.weights, rtol=0, atol=1e-7)


def test_without_validation_the_last_tenth_of_the_rows_chooses_and_all_rows_solve() -> None:
    values = table()
    whole = Windows(values=values, lookback=LOOKBACK, horizon=HORIZON)
    network, found = started(SIZES, whole, None)
    held = replace(whole, starts=later(ROWS - 16, LOOKBACK, ROWS))
    chosen = started(SIZES, replace(whole, values=values[:-16]), held)[1]
    assert float(found.strength) == float(chosen.strength)
    x, y, base = read(every(whole))
    model = ridge(x.reshape(-1, LOOKBACK), y.reshape(-1, HORIZON), float(found.strength))
    wanted = base + model.predict(x.reshape(-1, LOOKBACK)).reshape(y.shape)
    assert_close(forecast(network, every(whole)), wanted)


def test_a_single_window_is_enough() -> None:
    whole = Windows(values=table(LOOKBACK + HORIZON), lookback=LOOKBACK, horizon=HORIZON)
    network, found = started(SIZES, whole, None)
    assert found.error is None
    assert forecast(network, every(whole)).isfinite().all()


def test_a_constant_table_is_forecast_as_it_is() -> None:
    train, validation = parts(torch.full((ROWS, VARIATES), 2.0))
    network, _ = started(SIZES, train, validation)
    assert_close(forecast(network, every(validation)), every(validation).target.double().numpy())


def test_the_refit_reads_both_parts_at_the_same_strength() -> None:
    train, validation = parts(table())
    network, found = started(SIZES, train, validation)
    again = refit_exactly(network, train, validation)
    pieces = [read(every(each)) for each in (train, validation)]
    x, y, _ = (
        np.concatenate(each).reshape(-1, each[0].shape[-1]) for each in zip(*pieces, strict=True)
    )
    model = ridge(x, y, float(again.strength))
    xv, yv, base = pieces[1]
    wanted = base + model.predict(xv.reshape(-1, LOOKBACK)).reshape(yv.shape)
    assert_close(forecast(network, every(validation)), wanted)
    assert torch.equal(again.strength, found.strength)


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({}, {}),
        ({"level": "last", "separate_heads": True}, {"averaged": True, "lookbacks": (9, LOOKBACK)}),
        ({"separate_heads": True, "reverts": True}, {"averaged": True}),
        ({"instance_norm": False}, {}),
        ({"blocks": 0}, {"blend": Blend(regressed=14, season=12)}),
        ({"averaging": "mean"}, {}),
        ({"quantiles": (0.1, 0.5, 0.9)}, {}),
        ({"outputs": ("location", "scale")}, {}),
        ({"features": 3, "averaging": "mean"}, {}),
        ({"n_past": 2, "n_future": 2, "n_static": 2}, {}),
        ({"n_static": 2, "features": 3, "instance_norm": False}, {}),
        ({"leaders": 5, "separate_heads": True, "quantiles": (0.1, 0.5, 0.9)}, {"leading": LED}),
        ({"leaders": 5, "separate_heads": True, "n_past": 2, "n_future": 2}, {"leading": LED}),
    ],
    ids=str,
)
def test_a_refit_changes_a_trained_network_by_what_it_changes_its_start(
    changes: dict[str, Any], how: dict[str, Any]
) -> None:
    """Whatever else was learnt, an embedding that shows all steps too."""
    sees_as_before = {"features", "n_past", "n_static"} & set(changes)
    train, validation = with_covariates() if sees_as_before else parts(table())
    asked, judged = ExactStart(**how), every(validation)
    with seeded(0):
        network = TSM2Network(replace(SIZES, **changes)).eval()
    start_exactly(network, train, validation, asked)
    start = forecast(network, judged)
    trained = copy.deepcopy(network)
    learnt: list[Tensor] = list(trained.head.parameters())
    learnt += [] if trained.static is None else [trained.static.weight]
    learnt += [] if sees_as_before else list(trained.embedding.parameters())
    with seeded(1), torch.no_grad():
        for each in learnt:
            each.add_(0.05 * torch.randn_like(each))
    before = forecast(trained, judged)
    refit_exactly(network, train, validation, asked)
    refit_exactly(trained, train, validation, asked, trained=True)
    wanted = forecast(network, judged) - start
    assert (before - start).abs().max() > 0.1
    assert wanted.abs().max() > 0.01
    torch.testing.assert_close(forecast(trained, judged) - before, wanted, rtol=1e-3, atol=1e-4)


def test_a_refit_leaves_a_network_alone_whose_mixers_bend_it() -> None:
    """They are read by the same head: large ones move with what is added to it."""
    train, validation = parts(table())
    network, _ = started(SIZES, train, validation)
    judged, start = every(validation), forecast(network, every(validation))
    linear, *bent = (copy.deepcopy(network) for _ in range(3))
    refit_exactly(linear, train, validation)
    wanted = forecast(linear, judged) - start
    missed = []
    for other, size in zip(bent, (0.1, 1.0), strict=True):
        with seeded(1), torch.no_grad():
            for each in other.mixer_parameters():
                each.add_(size * torch.randn_like(each))
        before = forecast(other, judged)
        refit_exactly(other, train, validation, trained=True)
        miss = forecast(other, judged) - before - wanted
        missed.append(float(miss.square().sum() / wanted.square().sum()))
    assert 0 < missed[0] < 0.25
    assert missed[1] == 1.0  # nothing was added


@pytest.mark.parametrize("averaging", ["stream", "mean"])
def test_the_linear_path_alone_forecasts_the_same(averaging: Any) -> None:
    train, validation = parts(table())
    config = replace(SIZES, averaging=averaging, quantiles=QUANTILES)
    network, _ = started(config, train, validation)
    alone = without_mixers(network)
    assert alone.config.blocks == 0
    judged = every(validation)
    torch.testing.assert_close(forecast(alone, judged), forecast(network, judged))
    with seeded(1):
        again = TSM2Network(config)
    add_mixers(again, alone)
    torch.testing.assert_close(forecast(again.eval(), judged), forecast(network, judged))


@pytest.mark.parametrize(
    "changes",
    [{"zero_start": False}, {"averaging": "identity"}, {"outputs": ("free",)}],
    ids=str,
)
def test_a_network_that_cannot_start_there_says_why(changes: dict[str, Any]) -> None:
    train, validation = parts(table())
    with pytest.raises(ParameterError, match="linear_start='random'"):
        started(replace(SIZES, **changes), train, validation)


@pytest.mark.parametrize("level", ["mean", "last"])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("season", [None, 12])
@pytest.mark.parametrize("reverts", [False, True])
@pytest.mark.parametrize("lookbacks", [(), (9, LOOKBACK)])
def test_an_averaged_start_is_the_mean_of_the_maps_from_both_levels(
    level: Any, separate: bool, season: int | None, reverts: bool, lookbacks: tuple[int, ...]
) -> None:
    """Of each variate with the one that all share, by their errors; solved again too.

    If it reverts, that from zero counts half; of several lookbacks each counts as much.
    """
    train, validation = parts(table() + 0.5)
    each = [
        solve_linear(
            last_steps(train, lookback),
            last_steps(validation, lookback),
            LinearInput(level=own),
            separate=separate,
            season=season,
        )
        for own in counted_from(reverts=reverts)
        for lookback in lookbacks or (LOOKBACK,)
    ]
    config = replace(SIZES, level=level, separate_heads=separate, reverts=reverts)
    how = ExactStart(season=season, averaged=True, lookbacks=lookbacks)
    with seeded(0):
        network = TSM2Network(config).eval()
    start_exactly(network, train, validation, how)
    judged = every(validation)
    assert_close(forecast(network, judged), mean_forecast(each, each, judged, judged))
    refit_exactly(network, train, validation, how)
    known = [train, validation]
    again = [solve_again(one, [last_steps(w, one.weights.shape[1]) for w in known]) for one in each]
    assert_close(forecast(network, judged), mean_forecast(again, each, judged, judged))


@pytest.mark.parametrize("features", [16, 3])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("blended", [False, True])
@pytest.mark.parametrize("reverts", [False, True])
@pytest.mark.parametrize("lookbacks", [(), (9, 14)])
def test_what_is_solved_once_is_what_each_network_would_solve(
    features: int, separate: bool, blended: bool, reverts: bool, lookbacks: tuple[int, ...]
) -> None:
    """Written, solved again with the validation windows, and without blocks of them."""
    _, validation = parts(table())
    train = replace(validation, starts=later(LOOKBACK, LOOKBACK, N_TRAIN))
    blend = Blend(regressed=14, season=12) if blended else None
    how = ExactStart(season=12, blend=blend, averaged=features > 8, lookbacks=lookbacks)
    sizes: dict[str, Any] = {"features": features, "separate_heads": separate, "reverts": reverts}
    config = replace(SIZES, blocks=0, **sizes)
    solved = solve_exactly(config, train, validation, how)
    assert (solved is None) == (features < 8 and not blended)

    def forecasts(how: ExactStart) -> list[Tensor]:
        with seeded(0):
            network = TSM2Network(config).eval()
            start_exactly(network, train, validation, how)
            found = [forecast(network, every(validation))]
            refit_exactly(network, train, validation, how)
            found.append(forecast(network, every(validation)))
            for other, block in leave_out(config, train, validation, how):
                found.append(forecast(other, every(block)))
        return found

    for one, two in zip(forecasts(replace(how, solved=solved)), forecasts(how), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    "given", [{"n_past": 1}, {"n_future": 2}, {"n_static": 1}, {"patch_stride": 9}], ids=str
)
def test_what_a_network_reads_by_weights_of_its_own_is_not_solved_for_all(given: Any) -> None:
    assert solve_exactly(replace(SIZES, **given), *parts(table())) is None


def test_the_map_of_all_variates_says_what_a_narrow_embedding_shows() -> None:
    """Maps of single variates would take as many solutions, of fewer rows each."""
    train, validation = parts(table())
    shown = [
        started(replace(SIZES, features=3, separate_heads=apart), train, validation)[0].embedding
        for apart in (False, True)
    ]
    assert torch.equal(shown[0].weight, shown[1].weight)


def test_members_of_an_ensemble_are_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So are its intervals' blocks and its refit: of both levels in the choice and in the fit."""
    solved: list[str] = []

    def counted(name: str, solve: Callable[..., LinearMap]) -> Callable[..., LinearMap]:
        def solve_and_count(*given: Any, **how: Any) -> LinearMap:
            solved.append(name)
            return solve(*given, **how)

        return solve_and_count

    given: dict[str, Any] = {"horizon": 4, "lookback": 16, "max_epochs": 1, "random_state": 0}
    given |= {"separate_heads": False, "patch_length": 8}
    for module in ("linear_choice", "ridge"):
        monkeypatch.setattr(f"tsm2.training.{module}.solve_linear", counted("new", solve_linear))
    monkeypatch.setattr("tsm2.training.start.solve_again", counted("again", solve_again))
    TSM2Forecaster(**given).fit(table(200).numpy())
    alone = Counter(solved)
    assert set(alone) == {"new", "again"}
    TSM2Forecaster(**given, n_estimators=3).fit(table(200).numpy())
    assert Counter(solved) == alone + alone


def test_a_mean_is_of_the_maps_that_the_choice_has_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    solved: list[str | None] = []

    def counted(*given: Any, **how: Any) -> LinearMap:
        if how.get("separate"):
            solved.append(given[2].level)
        return solve_linear(*given, **how)

    for module in ("linear_choice", "ridge"):
        monkeypatch.setattr(f"tsm2.training.{module}.solve_linear", counted)
    model = TSM2Forecaster(LOOKBACK, HORIZON, blocks=0, separate_heads=True, random_state=0)
    (kept,) = model.fit(table().numpy()).choices_.query("chosen").to_dict("records")
    assert kept["averaged"]
    assert sorted(map(str, solved)) == ["last", "mean"]


@pytest.mark.parametrize("lookbacks", [(), (9, LOOKBACK)])
def test_what_is_known_is_not_solved_again(
    lookbacks: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps of all steps: of a mean over several lookbacks those of the longest."""
    train, validation = parts(table())
    known = [solve_linear(train, validation, LinearInput(level=level)) for level in LEVELS]
    read: list[int] = []

    def counted(windows: Windows, *given: Any, **how: Any) -> LinearMap:
        read.append(windows.lookback)
        return solve_linear(windows, *given, **how)

    monkeypatch.setattr("tsm2.training.ridge.solve_linear", counted)
    one, two = (
        solve_averaged(
            train, validation, LinearInput(level="mean"), lookbacks=lookbacks, solved=solved
        )
        for solved in ([], known)
    )
    assert torch.equal(one.weights, two.weights)
    of_each = [9, 9] * bool(lookbacks)
    assert read == [*of_each, LOOKBACK, LOOKBACK, *of_each]


def test_an_average_that_the_longest_lookback_cannot_show_is_not_promised() -> None:
    """Numbered rows try lookbacks of 8, 16 and 32 rows: nine features see the first alone."""
    given: dict[str, Any] = {"horizon": 4, "features": 9, "max_epochs": 1, "random_state": 0}
    model = TSM2Forecaster(**given).fit(table(400).numpy())
    assert not model.choices_["averaged"].any()


def forecast_by(found: LinearMap, batch: Batch) -> Tensor:
    """Return the forecasts of a map, (W, M, H), which may read the last steps of contexts."""
    if found.linear.plain:
        reads = found.weights.shape[1]
        mask = None if batch.mask is None else batch.mask[..., -reads:]
        batch = replace(batch, context=batch.context[..., -reads:], mask=mask)
    x, y = found.linear.read(batch)
    weights = found.weights.expand(batch.target.shape[1], -1, -1)
    unit = 1.0 if batch.error_unit is None else batch.error_unit
    return batch.target.double() + unit * (torch.einsum("wmd,mdh->wmh", x, weights) - y)


def errors_by(found: LinearMap, batch: Batch) -> Tensor:
    """Return the mean squared error of each variate, (M,), in the units that errors count in."""
    unit = torch.ones(1) if batch.error_unit is None else batch.error_unit
    errors = ((forecast_by(found, batch) - batch.target) / unit).square()
    if batch.target_mask is not None:
        errors = errors.where(batch.target_mask, torch.nan)
    return errors.transpose(0, 1).flatten(1).nanmean(1)


def mean_forecast(
    maps: list[LinearMap], solved: list[LinearMap], judged: Batch, batch: Batch
) -> NDArray[Any]:
    """Mean over levels; own and shared map weigh by the errors, over `judged`, of those solved.

    Maps that count from zero are half of it.
    """
    found = []
    for each, first in zip(maps, solved, strict=True):
        found.append(forecast_by(each, batch))
        if each.shared is not None and first.shared is not None:
            own, shared = (errors_by(one, judged) ** -3 for one in (first, first.shared))
            share = (own / (own + shared))[:, None]
            found[-1] = share * found[-1] + (1 - share) * forecast_by(each.shared, batch)
    pairs = list(zip(maps, found, strict=True))
    halves = [
        [each for one, each in pairs if (one.linear.level == "zero") == zero]
        for zero in (False, True)
    ]
    means = [torch.stack(half).mean(0) for half in halves if half]
    return torch.stack(means).mean(0).numpy()


def counted_from(*, reverts: bool) -> list[Any]:
    return ["mean", "last", "zero"] if reverts else ["mean", "last"]


def two_kinds(rows: int = 400) -> Tensor:
    """A variate that goes on as it went, and two that do not."""
    draw = torch.Generator().manual_seed(0)
    shocks = torch.randn(rows, VARIATES, generator=draw)
    values = torch.zeros(rows, VARIATES)
    for row in range(2, rows):
        last, before = values[row - 1], values[row - 2]
        values[row] = 0.95 * last + shocks[row]
        values[row, 0] += (0.95 * (last - 0.95 * before))[0]
    return values / values.std(0)


def cases_of_two_kinds() -> dict[str, tuple[Windows, Windows]]:
    values, known = two_kinds(), torch.ones(400, VARIATES, dtype=torch.bool)
    known[50:350:7, 0] = known[300:330, 1] = False
    units: dict[str, Any] = {"error_units": torch.tensor([[0.2, 1.0, 3.0]])}
    train = Windows(values=values[:300], lookback=LOOKBACK, horizon=HORIZON)
    whole = replace(train, values=values)
    panel = replace(
        whole,
        starts=torch.cat((torch.arange(150), 200 + torch.arange(60))),
        series=torch.cat((torch.zeros(150), torch.ones(60))).long(),
        error_units=torch.tensor([[0.2, 1.0, 3.0], [1.0, 2.0, 0.5]]),
    )
    judged = replace(whole, starts=later(300, LOOKBACK, 400))
    of_panel = torch.cat((180 - LOOKBACK + torch.arange(15), 300 - LOOKBACK + torch.arange(90)))
    return {
        "plain": (train, judged),
        "gaps": (replace(train, known=known[:300]), replace(judged, known=known)),
        "units": (replace(train, **units), replace(judged, **units)),
        "panel": (
            replace(panel, balanced=True),
            replace(panel, starts=of_panel, series=(torch.arange(105) > 14).long()),
        ),
    }


@pytest.mark.parametrize("case", ["plain", "gaps", "units", "panel"])
@pytest.mark.parametrize("reverts", [False, True])
def test_a_variate_that_differs_keeps_its_own_map(case: str, reverts: bool) -> None:
    """Each by its validation errors, in the units that errors count in, at either level."""
    train, validation = cases_of_two_kinds()[case]
    each = [
        solve_linear(train, validation, LinearInput(level=own), separate=True)
        for own in counted_from(reverts=reverts)
    ]
    config = replace(SIZES, separate_heads=True, reverts=reverts)
    with seeded(0):
        network = TSM2Network(config).eval()
    start_exactly(network, train, validation, ExactStart(averaged=True))
    judged = every(validation)
    got = forecast(network, judged)
    assert_close(got, mean_forecast(each, each, judged, judged))
    refit_exactly(network, train, validation, ExactStart(averaged=True))
    again = [solve_again(one, [train, validation]) for one in each]
    assert_close(forecast(network, judged), mean_forecast(again, each, judged, judged))

    if reverts:
        return
    own = (forecast_by(each[0], judged) + forecast_by(each[1], judged)) / 2
    away = [(one[:, 0] - judged.target[:, 0]).square() for one in (got, own)]
    if judged.target_mask is not None:
        away = [one[judged.target_mask[:, 0]] for one in away]
    assert away[0].mean() < 1.02 * away[1].mean()


@pytest.mark.parametrize("missing", ["raise", "mask"])
@pytest.mark.parametrize("more", [{}, {"quantiles": (0.1, 0.5, 0.9), "n_estimators": 2}], ids=len)
def test_a_forecaster_errs_as_its_choice_did_saved_and_fitted_again_too(
    missing: Any, more: dict[str, Any], tmp_path: Path
) -> None:
    values = two_kinds().numpy()
    if missing == "mask":
        values[50:380:7, 0] = values[300:330, 1] = np.nan
    how: dict[str, Any] = {"missing": missing, "max_epochs": 1, "random_state": 0} | more
    model = TSM2Forecaster(LOOKBACK, HORIZON, **how).fit(values[:390])
    (taken,) = model.choices_[model.choices_["chosen"]].to_dict("records")
    assert taken["separate_heads"]
    assert taken["averaged"]
    if not more:  # else quantiles count by their loss
        assert model.floor_["linear"] == pytest.approx(taken["validation_mse"], rel=1e-4)
    model.save(tmp_path / "model")
    wanted = np.asarray(model.predict())
    np.testing.assert_array_equal(TSM2Forecaster.load(tmp_path / "model").predict(), wanted)
    fresh = TSM2Forecaster(LOOKBACK, HORIZON, **how)
    table = fresh.backtest(values, start=390, stride=100, refit=100)
    got = table["forecast"].to_numpy().reshape(HORIZON, VARIATES)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    later = np.asarray(model.predict(values[:395]))
    np.testing.assert_allclose(model.update(values[390:395]).predict(), later, rtol=1e-5, atol=1e-6)


def test_what_nothing_judges_counts_half() -> None:
    """Neither a variate without a known target, nor a table of one window, says what is better."""
    train, validation = cases_of_two_kinds()["gaps"]
    known = torch.ones_like(validation.values, dtype=torch.bool)
    known[300:, 0] = False
    found = solve_linear(
        replace(train, known=known[:300]),
        replace(validation, known=known),
        LinearInput(level="mean"),
        separate=True,
    )
    assert found.own_share is not None
    assert found.own_share[0] == 0.5
    assert (found.own_share[1:] != 0.5).all()
    single = replace(train, values=train.values[: LOOKBACK + HORIZON], known=None)
    alone = solve_linear(single, None, LinearInput(level="mean"), separate=True)
    assert alone.own_share is not None
    assert alone.own_share.tolist() == [0.5] * VARIATES


def test_without_validation_the_held_out_tenth_says_how_far_a_variate_goes_its_own_way() -> None:
    train, _ = cases_of_two_kinds()["plain"]
    found = solve_linear(train, None, LinearInput(level="last"), separate=True)
    held = replace(train, starts=later(270, LOOKBACK, 300))
    before = replace(train, values=train.values[:270])
    wanted = solve_linear(before, held, LinearInput(level="last"), separate=True)
    assert found.own_share is not None
    assert wanted.own_share is not None
    assert torch.equal(found.own_share, wanted.own_share)
    assert found.own_share[0] > 0.6


@pytest.mark.parametrize(
    ("given", "averaged"),
    [
        ({}, True),
        ({"quantiles": (0.1, 0.9), "n_estimators": 2}, True),
        ({"missing": "mask"}, True),
        ({"level": "last"}, False),
        ({"features": 6}, False),
        ({"instance_norm": False}, False),
        ({"linear_start": "random"}, False),
        ({"calendar": ("month",)}, False),
    ],
    ids=str,
)
def test_a_fit_averages_where_nothing_but_the_values_is_read_and_no_level_is_set(
    given: dict[str, Any], averaged: bool
) -> None:
    index = pd.date_range("2010-01-01", periods=ROWS, freq="MS")
    frame = pd.DataFrame(table().numpy(), index).add_prefix("y")
    model = TSM2Forecaster(LOOKBACK, HORIZON, max_epochs=1, random_state=0, **given).fit(frame)
    choices = model.choices_[model.choices_["chosen"]]
    assert choices["averaged"].tolist() == [averaged]
    if averaged and not given:
        error = model.floor_["linear"]
        assert error == pytest.approx(choices["validation_mse"].item(), rel=1e-4)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"lookback": (12, LOOKBACK), "separate_heads": True},
        {"lookback": "auto", "quantiles": (0.1, 0.9), "n_estimators": 2},
        {"missing": "mask", "logarithms": True},
        {"scaled_errors": True},
        {"sampling": "series"},
        {"level": "last"},
        {"target": "y0"},
        {"features": 6},
    ],
    ids=str,
)
@pytest.mark.parametrize("several", [False, True])
def test_a_start_that_the_choice_has_solved_is_the_one_that_a_fit_would_solve(
    given: dict[str, Any], several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.DataFrame(5 + table(200).numpy()).add_prefix("y")
    if given.get("missing") == "mask":
        frame.iloc[20:60:7, 0] = np.nan
    data: Any = {"a": frame, "b": 3 * frame.iloc[::-1].reset_index(drop=True)} if several else frame
    how: dict[str, Any] = {"lookback": LOOKBACK, "max_epochs": 1, "random_state": 0} | given
    known = TSM2Forecaster(horizon=HORIZON, **how).fit(data)
    choice = Choosing.choice
    monkeypatch.setattr(Choosing, "choice", lambda choosing: replace(choice(choosing), solved=None))
    anew = TSM2Forecaster(horizon=HORIZON, **how).fit(data)
    for one, two in zip(known.network_.parameters(), anew.network_.parameters(), strict=True):
        assert torch.equal(one, two)


def test_what_the_choice_has_solved_is_not_solved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("it is solved again")

    monkeypatch.setattr("tsm2.fitting.solve_exactly", refused)
    TSM2Forecaster(LOOKBACK, HORIZON, max_epochs=1, random_state=0).fit(table().numpy())
    with pytest.raises(AssertionError, match="solved again"):
        TSM2Forecaster(LOOKBACK, HORIZON, max_epochs=1, level="last").fit(table().numpy())
