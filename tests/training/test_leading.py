"""Columns that lead: what is solved, beside plain least squares, and when it is taken."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tsm2.networks.leaders import Leaders
from tsm2.networks.tsm2 import NetworkConfig
from tsm2.prepared.windows import Covariates, Windows
from tsm2.training.leading import Leading, choose_leading, most_rows, solve_led
from tsm2.training.moments import LinearInput, columns_above_level
from tsm2.training.ridge import LinearMap, solve_linear
from tsm2.training.start import ExactStart, leave_out

LOOKBACK, HORIZON, LAG = 12, 6, 4


def followers(count: int = 600, *, seed: int = 0, noise: float = 0.1) -> torch.Tensor:
    """A smooth column, one that follows four rows later, and one that follows nothing."""
    draw = np.random.default_rng(seed)
    first, alone = (
        pd.DataFrame(draw.normal(size=(count + LAG, 2))).ewm(alpha=0.2).mean().to_numpy().T
    )
    second = first[:-LAG] + noise * draw.normal(size=count)
    return torch.from_numpy(np.column_stack([first[LAG:], second, alone[LAG:]])).float()


def windows(values: torch.Tensor, **given: Any) -> Windows:
    return Windows(values=values, lookback=LOOKBACK, horizon=HORIZON, **given)


def own_map(train: Windows, **given: Any) -> LinearMap:
    return solve_linear(train, None, LinearInput(), **given)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("level", ["mean", "last"])
def test_it_is_ridge_regression_with_a_free_share(level: Any, separate: bool) -> None:
    train = windows(followers(1500, noise=0.5))
    found = solve_linear(train, None, LinearInput(level=level), separate=separate)
    how = Leading(rows=5, strength=0.3, led=(0, 1, 2))
    led = solve_led(found, [train], how)

    batch = train.gather(torch.arange(len(train)))
    x, target = found.linear.read(batch)
    own = found.applied(x)
    columns = columns_above_level(batch, level)[..., -5:].flatten(1)
    penalty = 0.3 * (columns.mT @ columns).diagonal().mean()
    inside = 0
    for variate in range(3):
        for step in range(HORIZON):
            both = torch.cat((own[:, variate, step, None], columns), 1)
            held = penalty * torch.eye(len(both.mT), dtype=torch.float64)
            held[0, 0] = 0.0
            wanted = torch.linalg.solve(both.mT @ both + held, both.mT @ target[:, variate, step])
            share = led.share[variate, step]
            if 0 < share < 1:
                inside += 1
                torch.testing.assert_close(share, wanted[0], rtol=1e-6, atol=1e-8)
                torch.testing.assert_close(
                    led.weights[:, variate, step], wanted[1:], rtol=1e-6, atol=1e-8
                )
            else:  # a share that would lie outside ends at the border
                assert (wanted[0] <= 1e-6) if share == 0 else (wanted[0] >= 1 - 1e-6)
    assert inside > 5


def test_windows_in_parts_are_windows_together() -> None:
    values = followers(300)
    whole = windows(values)
    found = own_map(whole)
    half = torch.arange(len(whole)) < 150
    how = Leading(rows=4, strength=0.1, led=(1,))
    together, apart = (
        solve_led(found, each, how) for each in ([whole], [whole.only(half), whole.only(~half)])
    )
    torch.testing.assert_close(together.weights, apart.weights)
    torch.testing.assert_close(together.share, apart.share)
    torch.testing.assert_close(together.largest, apart.largest)


def test_series_that_count_alike_count_alike() -> None:
    """Windows of a short series weigh as if they were there more often."""
    values, how = followers(500), Leading(rows=4, strength=0.1, led=(0, 1, 2))
    starts = torch.cat((torch.arange(300), torch.arange(350, 450)))
    series = (starts >= 350).long()
    balanced = windows(values, starts=starts, series=series, balanced=True)
    often = torch.cat((starts, starts[300:], starts[300:]))
    repeated = windows(values, starts=often)
    found = own_map(windows(values))
    one, other = (solve_led(found, [each], how) for each in (balanced, repeated))
    torch.testing.assert_close(one.weights, other.weights)
    torch.testing.assert_close(one.share, other.share)
    alike = solve_led(found, [windows(values, starts=starts, series=series)], how)
    assert not torch.allclose(alike.weights, one.weights, rtol=1e-3)


def test_rows_that_are_unknown_ask_for_nothing() -> None:
    """As after gaps in rows that came later than the choice."""
    values, how = followers(), Leading(rows=6, strength=0.1, led=(1,))
    found = own_map(windows(values))
    known = torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) > 0.02
    far = values.where(known, 1e6)
    whole = solve_led(found, [windows(values)], how)
    holed = solve_led(found, [windows(far, known=known)], how)
    assert (whole.weights[:, 1] - holed.weights[:, 1]).abs().max() < 0.25
    assert holed.largest.max() < 3 * whole.largest.max()


def test_past_covariates_count_from_their_levels() -> None:
    values, how = followers(), Leading(rows=4, strength=0.1, led=(0,))
    found = own_map(windows(values[:, 1:2]))
    one, other = (
        solve_led(found, [windows(values[:, 1:2], covariates=Covariates(past=past))], how)
        for past in (values[:, :1], values[:, :1] + 100)
    )
    torch.testing.assert_close(one.weights, other.weights, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one.share, other.share, rtol=1e-3, atol=1e-4)


def test_fewer_rows_are_read_where_they_tell_as_much() -> None:
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(260, 10))
    noise[2:, 0] = noise[:-2, 1] + 0.1 * draw.normal(size=258)  # two rows later
    values = torch.from_numpy(noise).float()
    train, judge = windows(values[:160]), windows(values[160 - LOOKBACK :])
    leading = choose_leading(own_map(train), train, judge)
    assert leading is not None
    assert leading[0].rows == LOOKBACK // 4
    assert leading[0].led == (0,)


def test_who_is_not_led_forecasts_itself_alone() -> None:
    train = windows(followers())
    led = solve_led(own_map(train), [train], Leading(rows=4, strength=0.1, led=(1,)))
    assert (led.share[[0, 2]] == 1).all()
    assert not led.weights[:, [0, 2]].any()
    assert not led.largest[[0, 2]].any()
    assert led.weights[:, 1].any()


def test_leaders_are_found_and_told() -> None:
    values = followers(800)
    train, judge = windows(values[:600]), windows(values[600 - LOOKBACK :])
    found = own_map(train)
    leading = choose_leading(found, train, judge)
    assert leading is not None
    how, ratio, of_all = leading
    assert how.led == (1,)
    assert ratio < 0.8
    assert ratio <= of_all < 0.85
    led = solve_led(found, [train], how)
    assert led.share[1, :LAG].max() < 0.2
    # Row k of the first column, counted from the end, is step LAG - k of the second.
    weights = led.weights[:, 1].reshape(3, how.rows, HORIZON)
    for step in range(LAG):
        assert weights[0, step - LAG, step] > 0.7


def test_nothing_leads_where_columns_are_apart() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(800, 3))).float().cumsum(0)
    train, judge = windows(values[:600]), windows(values[600 - LOOKBACK :])
    leading = choose_leading(own_map(train), train, judge)
    assert leading is None or leading[2] > 0.95


def test_a_block_that_is_held_out_has_no_part_in_what_leads() -> None:
    values = followers(800)
    train, judge = windows(values[:600]), windows(values[600 - LOOKBACK :])
    sizes: dict[str, Any] = {"lookback": LOOKBACK, "horizon": HORIZON, "n_variates": 3}
    config = NetworkConfig(
        **sizes, patch_length=4, patch_stride=4, leaders=8, separate_heads=True, blocks=0
    )
    how = Leading(rows=8, strength=0.1, led=(1,))
    found = []
    for network, block in leave_out(config, train, judge, ExactStart(leading=how)):
        assert network.leaders is not None
        batch = block.gather(torch.arange(len(block)))
        missed = (network(batch.context) - batch.target).square().mean((0, 2))
        assert missed[1] < 0.7 * missed[0]
        found.append(network.leaders.weight)
    assert len(found) == 5
    assert not torch.equal(found[0], found[1])


def test_what_is_added_stays_within_what_was_added() -> None:
    values = followers()
    train = windows(values)
    led = solve_led(own_map(train), [train], Leading(rows=4, strength=0.1, led=(1,)))
    leaders = Leaders(3, 3, rows=4, horizon=HORIZON)
    assert not leaders(torch.ones(1, 3, LOOKBACK)).any()
    led.write(leaders)
    batch = train.gather(torch.arange(len(train)))
    columns = columns_above_level(batch, "mean")
    added = leaders(columns.float())
    torch.testing.assert_close(added.abs().amax(0), led.largest.float())
    torch.testing.assert_close(added, led.added(columns[..., -4:].flatten(1)).float())
    torch.testing.assert_close(leaders.size(columns.float()), added.abs())
    far = leaders(1000 * columns.float())
    torch.testing.assert_close(far.abs().amax(0), led.largest.float())
    assert torch.autograd.gradcheck(leaders.double(), columns[:3].mul(0.5).requires_grad_())


@pytest.mark.parametrize(
    ("values", "given", "rows"),
    [
        (followers(), {}, LOOKBACK),
        (followers()[:, :1], {}, 0),
        (followers()[:, :1], {"covariates": Covariates(past=followers()[:, 1:])}, LOOKBACK),
        (followers(), {"known": torch.ones(600, 3, dtype=torch.bool)}, 0),
        (followers(), {"error_units": torch.ones(1, 3)}, 0),
        (torch.zeros(600, 300), {}, 3),  # 900 columns of at most 1,024
        (torch.zeros(600, 1200), {}, 0),
    ],
    ids=["columns", "one", "one and past", "gaps", "scaled errors", "many", "too many"],
)
def test_how_many_rows_are_read(values: torch.Tensor, given: dict[str, Any], rows: int) -> None:
    assert most_rows(windows(values, **given)) == rows
    if not rows:
        train = windows(values, **given)
        assert choose_leading(own_map(train), train, train) is None
