"""Calibration: lines and scores undo each other, levels hold on outcomes like those held out."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tsm2.errors import ParameterError
from tsm2.fitted.calibration import Calibration, ForecastLine, calibrate, draw_paths, read_quantiles
from tsm2.prepared.windows import Windows

LEVELS = (0.1, 0.5, 0.9)
NORMAL = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))


class RepeatLast(nn.Module):
    """Forecasts that nothing changes, two steps ahead, or with `spread` quantiles around that."""

    def __init__(self, spread: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.spread = nn.Parameter(torch.tensor(spread))

    def forward(self, context: Tensor, *, mask: Tensor | None = None) -> Tensor:
        point = context[..., -1:].expand(-1, -1, 2)
        return point[..., None] + self.spread if len(self.spread) else point


def noise(rows: int, n_variates: int = 2, seed: int = 0) -> Tensor:
    """Skewed and independent, of unit mean."""
    generator = torch.Generator().manual_seed(seed)
    return -torch.rand(rows, n_variates, generator=generator).log()


def quantile_forecasts() -> Tensor:
    """Three windows of one variate and two steps; the last has no width at all."""
    rows = [[[-1.0, 0.0, 3.0], [5.0, 6.0, 6.5]], [[-9.0, -2.0, 0.0], [0.0, 1.0, 2.0]]]
    return torch.tensor([*rows, [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]])[:, None]


# --- lines ----------------------------------------------------------------------------------------


def test_a_line_passes_through_the_quantiles_and_goes_on_straight() -> None:
    line = ForecastLine.of(quantile_forecasts()[:2], torch.zeros(2, 1, 4), quantiles=LEVELS)
    torch.testing.assert_close(
        line.value(NORMAL.expand(2, 1, 2, 3)), quantile_forecasts()[:2].double()
    )
    up = NORMAL[2]
    further = line.value(torch.stack((-2 * up, up / 2, 2 * up)).expand(2, 1, 2, 3))
    assert further[0, 0, 0].tolist() == pytest.approx([-2.0, 1.5, 6.0])
    assert further[1, 0, 0].tolist() == pytest.approx([-16.0, -1.0, 2.0])


def test_the_line_of_a_point_rises_by_the_deviation_of_the_context() -> None:
    context = torch.tensor([[[1.0, 3.0, 1.0, 3.0]]])
    line = ForecastLine.of(torch.tensor([[[7.0, 8.0]]]), context)
    values = line.value(torch.tensor([-2.0, 0.0, 1.0]).expand(1, 1, 2, 3))
    wanted = torch.tensor([[[[5.0, 7.0, 8.0], [6.0, 8.0, 9.0]]]], dtype=torch.float64)
    torch.testing.assert_close(values, wanted, rtol=0, atol=1e-4)
    broken = torch.tensor([[[1.0, 99.0, 3.0, 1.0, 3.0]]])
    masked = ForecastLine.of(torch.tensor([[[7.0, 8.0]]]), broken, mask=broken < 9)
    torch.testing.assert_close(masked.values, line.values)


@pytest.mark.parametrize("quantiles", [(), LEVELS], ids=["point", "quantiles"])
def test_scores_and_values_undo_each_other(quantiles: tuple[float, ...]) -> None:
    forecast = quantile_forecasts()[:2]
    line = ForecastLine.of(
        forecast if quantiles else forecast[..., 0],
        noise(8).T.reshape(2, 1, 8),
        quantiles=quantiles,
    )
    outcomes = torch.linspace(-30, 30, 40).double().reshape(40, 1, 1, 1)
    for outcome in outcomes.expand(40, 2, 1, 2):
        scores = line.score(outcome)
        torch.testing.assert_close(line.value(scores[..., None])[..., 0], outcome)
    rising = torch.stack([line.score(each) for each in outcomes.expand(40, 2, 1, 2)])
    assert bool((rising.diff(dim=0) > 0).all())


def test_a_forecast_without_width_has_finite_scores() -> None:
    line = ForecastLine.of(quantile_forecasts(), torch.zeros(3, 1, 4), quantiles=LEVELS)
    assert bool(line.score(torch.full((3, 1, 2), 4.0)).isfinite().all())


# --- levels ---------------------------------------------------------------------------------------


def test_a_calibrated_level_is_the_share_that_falls_below_it() -> None:
    """Split conformal prediction: exact on average over calibrations, for any distribution."""
    shares = []
    for seed in range(300):
        scores = noise(19, seed=seed)[:, :, None]
        bounds = Calibration(scores=scores).at((0.1, 0.5, 0.95))  # (M, 1, Q)
        later = noise(200, seed=1000 + seed)[:, :, None, None]
        shares.append((later <= bounds).double().mean((0, 1, 2)))
    share = torch.stack(shares).mean(0)
    torch.testing.assert_close(share, torch.tensor([0.1, 0.5, 0.95]).double(), rtol=0, atol=0.012)


def test_a_level_that_needs_more_windows_says_how_many() -> None:
    few = Calibration(scores=noise(7)[:, :, None])
    few.at((0.2, 0.8))
    with pytest.raises(ParameterError, match=r"0.1 or 0.9 .* has 7 errors, and 9 are needed"):
        few.at((0.1, 0.9))
    more = Calibration(scores=noise(18)[:, :, None])
    with pytest.raises(ParameterError, match=r"0.05 or 0.95 .* has 18 errors, and 19 are needed"):
        more.at((0.05, 0.95))
    Calibration(scores=noise(19)[:, :, None]).at((0.05, 0.95))


def test_few_windows_share_the_shape_of_their_errors_among_the_steps() -> None:
    """Steps whose errors grow: each keeps its own size, and 16 windows tell of 64 errors."""
    sizes = torch.tensor([1.0, 2.0, 4.0, 8.0])
    scores = torch.randn(16, 1, 4, generator=torch.Generator().manual_seed(3)) * sizes
    found = Calibration(scores=scores).at((0.02, 0.98))  # (1, 4, 2)
    widths = found.diff(dim=-1).flatten()
    spread = scores.double().square().mean(0).sqrt().flatten()
    torch.testing.assert_close(widths / spread, (widths / spread)[0].expand(4))


def test_one_window_gives_all_steps_the_same_width() -> None:
    scores = torch.randn(1, 2, 40, generator=torch.Generator().manual_seed(3))
    widths = Calibration(scores=scores).at((0.1, 0.9)).diff(dim=-1)  # (2, 40, 1)
    torch.testing.assert_close(widths, widths[:, :1].expand(2, 40, 1))
    assert (widths[0] != widths[1]).all()


@pytest.mark.parametrize("n_stretches", [3, 5])
def test_errors_that_hang_together_make_wider_intervals(n_stretches: int) -> None:
    """Twenty windows in a stretch, with one error: there are as many errors as stretches."""
    generator = torch.Generator().manual_seed(5)
    errors = torch.randn(2000, n_stretches, generator=generator)
    outcomes = torch.randn(2000, generator=generator)
    covered = []
    for stretches in (math.inf, float(n_stretches)):
        inside = []
        for own, outcome in zip(errors, outcomes.tolist(), strict=True):
            scores = own.repeat_interleave(20).reshape(-1, 1, 1)
            low, high = Calibration(scores=scores, stretches=stretches).at((0.1, 0.9)).flatten()
            inside.append(float(low) <= outcome <= float(high))
        covered.append(float(np.mean(inside)))
    before, after = covered
    assert before + 0.05 < after < 0.82


def test_stretches_are_the_horizons_that_fit_into_the_longest_series() -> None:
    windows = Windows(
        values=torch.randn(90, 1),
        lookback=2,
        horizon=2,
        starts=torch.tensor([0, 1, 2, 30, 31, 32, 33, 34, 35, 36]),
        series=torch.tensor([0] * 3 + [1] * 7),
    )
    assert calibrate([(RepeatLast(), windows)]).stretches == 6 / 2 + 1
    assert calibrate([(RepeatLast(), windows)] * 2).stretches == 8.0
    whole = Windows(values=torch.randn(90, 1), lookback=2, horizon=2)  # 87 windows
    assert calibrate([(RepeatLast(), whole)]).stretches == 86 / 2 + 1


@pytest.mark.parametrize("spread", [(), (-0.1, 0.0, 0.1)], ids=["point", "quantiles"])
def test_intervals_hold_on_rows_to_come(spread: tuple[float, ...]) -> None:
    """Skewed noise whose size doubles for the second variate, forecast by its last value."""
    table = noise(1400) * torch.tensor([1.0, 2.0])
    levels = LEVELS if spread else ()
    cut = Windows(values=table[:700], lookback=40, horizon=2)
    calibration = calibrate([(RepeatLast(spread), cut)], quantiles=levels)
    assert calibration.scores.shape == (512, 2, 2)
    later = Windows(values=table[700:], lookback=40, horizon=2)
    batch = later.gather(torch.arange(len(later)))
    line = ForecastLine.of(RepeatLast(spread)(batch.context), batch.context, quantiles=levels)
    bounds = read_quantiles(line, LEVELS, calibration=calibration, quantiles=levels)
    shares = (batch.target[..., None] <= bounds).double().mean(0)
    torch.testing.assert_close(
        shares, torch.tensor(LEVELS).double().expand(2, 2, 3), rtol=0, atol=0.05
    )


def test_scores_count_in_the_windows_own_deviation() -> None:
    """A window ten times as wild gets an interval ten times as wide."""
    calibration = Calibration(scores=torch.linspace(-1, 1, 99).reshape(99, 1, 1).expand(99, 1, 2))
    context = torch.stack((noise(40, 1), 10 * noise(40, 1))).transpose(1, 2)
    line = ForecastLine.of(torch.zeros(2, 1, 2), context)
    bounds = read_quantiles(line, (0.1, 0.9), calibration=calibration)
    widths = bounds[..., 1] - bounds[..., 0]
    torch.testing.assert_close(widths[1], 10 * widths[0], rtol=1e-3, atol=0)


def test_calibrated_quantiles_never_cross() -> None:
    calibration = Calibration(scores=noise(200)[:, :1, None].expand(200, 1, 2))
    line = ForecastLine.of(quantile_forecasts(), torch.zeros(3, 1, 4), quantiles=LEVELS)
    levels = tuple((np.arange(99) + 1) / 100)
    bounds = read_quantiles(line, levels, calibration=calibration, quantiles=LEVELS)
    assert bounds.shape == (3, 1, 2, 99)
    assert bool((bounds.diff(dim=-1) >= 0).all())


def test_without_calibration_the_network_is_taken_at_its_word() -> None:
    line = ForecastLine.of(quantile_forecasts(), torch.zeros(3, 1, 4), quantiles=LEVELS)
    bounds = read_quantiles(line, (0.1, 0.9), calibration=None, quantiles=LEVELS)
    torch.testing.assert_close(
        bounds, quantile_forecasts()[..., [0, 2]].double(), rtol=0, atol=2e-6
    )
    with pytest.raises(ParameterError, match=r"0.05, 0.9 were asked .* from 0.1 to 0.9"):
        read_quantiles(line, (0.05, 0.9), calibration=None, quantiles=LEVELS)
    point = ForecastLine.of(torch.zeros(1, 1, 2), torch.zeros(1, 1, 4))
    with pytest.raises(
        ParameterError, match=r"forecasts a point and was not calibrated\. Fit with"
    ):
        read_quantiles(point, (0.1, 0.9), calibration=None)


# --- windows --------------------------------------------------------------------------------------


def test_a_wide_table_is_calibrated_on_fewer_windows() -> None:
    windows = Windows(values=noise(120, 40_000), lookback=4, horizon=2)
    assert calibrate([(RepeatLast(), windows)]).scores.shape == (64, 40_000, 2)


def test_unknown_outcomes_leave_the_known_scores_as_they_are() -> None:
    table = noise(100)
    known = noise(100, seed=1) > 0.4
    whole = calibrate([(RepeatLast(), Windows(values=table, lookback=8, horizon=2))])
    gaps = Windows(values=table, lookback=8, horizon=2, known=known)
    targets = gaps.gather(torch.arange(len(gaps))).target_mask
    assert targets is not None
    masks = gaps.gather(torch.arange(len(gaps))).mask
    assert masks is not None
    scores = calibrate([(RepeatLast(), gaps)]).scores
    assert bool(scores.isfinite().all())
    for variate in range(2):
        for step in range(2):
            kept = targets[:, variate, step]
            filled = set(scores[~kept, variate, step].tolist())
            assert filled <= set(scores[kept, variate, step].tolist())
    unmasked = dataclasses.replace(gaps, known=known | True)
    assert torch.equal(calibrate([(RepeatLast(), unmasked)]).scores, whole.scores)


def test_a_variate_that_is_never_known_has_no_scores_and_the_others_keep_theirs() -> None:
    known = torch.ones(100, 2, dtype=torch.bool)
    known[8:, 1] = False
    gaps = Windows(values=noise(100), lookback=8, horizon=2, known=known)
    calibration = calibrate([(RepeatLast(), gaps)])
    assert calibration.lacking.tolist() == [[False, False], [True, True]]
    levels = calibration.at((0.2, 0.8))
    assert levels.isfinite().all(-1).tolist() == [[True, True], [False, False]]
    nothing = Windows(values=noise(100), lookback=8, horizon=2, known=known & False)
    with pytest.raises(ParameterError, match="nothing is known in any of the held-out windows"):
        calibrate([(RepeatLast(), nothing)])


# --- paths ----------------------------------------------------------------------------------------


def test_whole_windows_of_scores_are_drawn() -> None:
    scores = torch.arange(24.0).reshape(6, 2, 2)
    drawn = Calibration(scores=scores).draw(200, np.random.RandomState(0))
    numbers = drawn[:, 0, 0] / 4
    assert torch.equal(drawn, scores[numbers.long()])
    assert set(numbers.tolist()) == set(range(6))


def test_paths_err_as_whole_windows_did() -> None:
    """Scores of +1 or -1 at all steps and variates together: no path mixes the two."""
    calibration = Calibration(scores=torch.tensor([1.0, -1.0])[:, None, None].expand(2, 2, 2))
    context = noise(40).T.expand(400, -1, -1)
    paths = draw_paths(
        RepeatLast(),
        context,
        2,
        calibration=calibration,
        quantiles=(),
        generator=np.random.RandomState(0),
    )
    signs = (paths - context[..., -1:]).sign()
    assert bool((signs == signs[:, :1, :1]).all())
    assert signs[:, 0, 0].mean().abs() < 0.2


def test_paths_of_the_same_context_begin_with_one_forecast() -> None:
    seen: list[int] = []

    def network(context: Tensor, **_: Tensor) -> Tensor:
        seen.append(len(context))
        return context[..., -1:].expand(-1, -1, 2)

    calibration = Calibration(scores=torch.tensor([1.0, -1.0, 0.5])[:, None, None].expand(3, 2, 2))
    context = noise(120).T.reshape(2, 3, 40).transpose(0, 1).repeat_interleave(50, dim=0)

    def paths(alike: int) -> Tensor:
        generator = np.random.RandomState(0)
        how: Any = {"calibration": calibration, "quantiles": (), "generator": generator}
        return draw_paths(network, context, 4, alike=alike, **how)

    assert torch.equal(paths(50), paths(1))
    assert seen == [3, 150, 150, 150]


def test_a_long_path_goes_on_from_its_own_end() -> None:
    """Each roll of two steps starts where the last one ended and adds an error of its own."""
    calibration = Calibration(scores=torch.tensor([1.0, -1.0])[:, None, None].expand(2, 1, 2))
    context = torch.tensor([[[1.0, -1.0] * 500]]).expand(2000, -1, -1)  # of unit deviation
    paths = draw_paths(
        RepeatLast(),
        context,
        5,
        calibration=calibration,
        quantiles=(),
        generator=np.random.RandomState(0),
    )
    assert paths.shape == (2000, 1, 5)
    moves = (paths - paths.roll(2, dims=-1))[..., 2:]
    torch.testing.assert_close(moves.abs(), torch.ones_like(moves), rtol=0, atol=0.05)
    spread = paths.std(0)[0]
    assert spread.tolist() == pytest.approx([1, 1, 2**0.5, 2**0.5, 3**0.5], rel=0.06)


@pytest.mark.parametrize(("n_windows", "n_errors"), [(5, 15), (20, 60), (100, 100)])
def test_a_calibration_says_which_coverage_it_can_know(n_windows: int, n_errors: int) -> None:
    scores = torch.randn(n_windows, 2, 3, generator=torch.Generator().manual_seed(0))
    calibration = Calibration(scores=scores)
    widest = 1 - 2 / (n_errors + 1)
    assert calibration.widest == pytest.approx(widest)
    calibration.at([(1 - widest) / 2])
    with pytest.raises(ParameterError, match=f"has {n_errors} "):
        calibration.at([0.99 * (1 - widest) / 2])
    shown = calibration._repr_html_()
    assert f"by {n_windows} held-out windows" in shown
    assert f"a coverage of {100 * widest:.1f} %" in shown
