"""Windows are views that cover every position once."""

from dataclasses import replace

import pytest
import torch

from tsm2.errors import WindowError
from tsm2.prepared.windows import Covariates, Windows


def table(rows: int = 20, variates: int = 3) -> torch.Tensor:
    return torch.arange(rows * variates, dtype=torch.float32).view(rows, variates)


def test_a_batch_holds_the_rows_it_names() -> None:
    values = table()
    windows = Windows(values=values, lookback=4, horizon=2, starts=torch.tensor([3, 8, 13]))
    assert len(windows) == 3
    batch = windows.gather(torch.tensor([2, 0]))
    torch.testing.assert_close(batch.context[0], values[13:17].T)
    torch.testing.assert_close(batch.target[0], values[17:19].T)
    torch.testing.assert_close(batch.context[1], values[3:7].T)
    assert batch.auxiliary() == {}


@pytest.mark.parametrize("seed", [None, 0])
def test_batches_cover_every_window_once(seed: int | None) -> None:
    windows = Windows(values=table(29), lookback=4, horizon=2)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    seen = torch.cat(list(windows.batches(5, generator=generator)))
    assert sorted(seen.tolist()) == list(range(len(windows)))


def test_shuffling_follows_its_generator() -> None:
    windows = Windows(values=table(40), lookback=4, horizon=2)

    def order(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat(list(windows.batches(7, generator=generator))).tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_the_table_is_not_copied() -> None:
    values = table()
    windows = Windows(values=values, lookback=4, horizon=2)
    before = windows.gather(torch.tensor([0])).context
    values[0, 0] = -1
    assert before[0, 0, 0] == 0  # a batch is its own
    assert windows.gather(torch.tensor([0])).context[0, 0, 0] == -1


def test_a_short_table_says_what_is_missing() -> None:
    with pytest.raises(WindowError, match=r"has 5 rows.*needs 6 \(lookback=4 \+ horizon=2\)"):
        Windows(values=table(5), lookback=4, horizon=2)


def two_series() -> Windows:
    """Windows of a series in rows 0 to 5 and of one in rows 6 to 19, none across both."""
    starts = torch.tensor([0, *range(6, 15)])
    series = torch.tensor([0] + [1] * 9)
    return Windows(values=table(), lookback=4, horizon=2, starts=starts, series=series)


def test_windows_of_several_series_start_where_they_are_told() -> None:
    windows = two_series()
    assert len(windows) == 10
    batch = windows.gather(torch.tensor([0, 1, 9]))
    for place, start in enumerate((0, 6, 14)):
        torch.testing.assert_close(batch.context[place], table()[start : start + 4].T)
        torch.testing.assert_close(batch.target[place], table()[start + 4 : start + 6].T)
    with pytest.raises(WindowError, match="no series has the 6 rows"):
        Windows(values=table(), lookback=4, horizon=2, starts=torch.tensor([], dtype=torch.long))


def test_a_balanced_pass_draws_as_often_from_every_series() -> None:
    generator = torch.Generator().manual_seed(0)
    windows = replace(two_series(), balanced=True)
    passes = [list(windows.batches(4, generator=generator)) for _ in range(50)]
    draws = torch.stack([torch.cat(each) for each in passes])
    assert draws.shape == (50, 10)
    assert ((draws == 0).sum(1) == 5).all()  # half of each pass, of one window alone
    assert set(draws.flatten().tolist()) == set(range(10))
    unshuffled = torch.cat(list(windows.batches(4)))
    assert unshuffled.tolist() == list(range(10))
    every = torch.cat(list(two_series().batches(4, generator=generator)))
    assert sorted(every.tolist()) == list(range(10))


def test_covariates_and_masks_are_those_of_the_same_rows() -> None:
    past, future = table(20, 2) + 1000, table(20, 1) + 2000
    known, past_mask = table() % 7 != 0, past % 3 != 0
    windows = Windows(
        values=table(),
        lookback=4,
        horizon=2,
        starts=torch.tensor([3, 8, 13]),
        known=known,
        covariates=Covariates(past=past, past_mask=past_mask, future=future),
    )
    batch = windows.gather(torch.tensor([2, 0]))
    wanted = {
        "mask": known[13:17],
        "target_mask": known[17:19],
        "past": past[13:17],
        "past_mask": past_mask[13:17],
        "future": future[13:19],
    }
    for name, rows in wanted.items():
        torch.testing.assert_close(getattr(batch, name)[0], rows.T, msg=name)
    assert set(batch.auxiliary()) == set(wanted) - {"target_mask"}


def test_static_covariates_are_those_of_the_series() -> None:
    static = torch.arange(12.0).view(2, 3, 2)
    first, series = torch.tensor([0, 9, 1]), torch.tensor([0, 1, 0])
    batch = Covariates(static=static).gather(first, 4, 2, series)
    torch.testing.assert_close(batch["static"], static[[0, 1, 0]])
    alone = Covariates(static=static[1:]).gather(first, 4, 2)
    torch.testing.assert_close(alone["static"], static[[1, 1, 1]])


def test_all_of_the_windows_moves_to_a_device() -> None:
    windows = Windows(
        values=table(),
        lookback=4,
        horizon=2,
        starts=torch.tensor([0, 3]),
        known=table() > 5,
        covariates=Covariates(future=table()),
    ).to("meta")
    assert windows.known is not None
    assert windows.covariates.future is not None
    assert windows.starts is not None
    moved = (windows.values, windows.known, windows.covariates.future, windows.starts)
    assert {tensor.device.type for tensor in moved} == {"meta"}


def test_masks_in_which_all_is_known_are_left_out_of_a_lean_batch() -> None:
    known = table() > 5  # of the rows 0 and 1 not all is
    windows = Windows(values=table(), lookback=4, horizon=2, known=known)
    assert windows.gather(torch.tensor([2, 3])).lean().mask is None
    mixed = windows.gather(torch.tensor([0, 2])).lean()
    assert mixed.mask is not None
    torch.testing.assert_close(mixed.mask[0], known[:4].T)
    assert mixed.target_mask is not None


def test_stretches_count_the_horizons_that_follow_each_other_in_a_series() -> None:
    values = torch.randn(90, 1)
    starts = torch.tensor([0, 1, 2, 30, 31, 32, 33, 34, 35, 36])
    series = torch.tensor([4] * 3 + [7] * 7)  # others have no window
    some = Windows(values=values, lookback=2, horizon=4, starts=starts, series=series)
    assert some.stretches().tolist() == [1.5, 2.5]
    every = Windows(values=values, lookback=2, horizon=4)
    assert every.stretches().tolist() == [84 / 4 + 1]
    one = Windows(values=values, lookback=2, horizon=4, starts=torch.tensor([9]))
    assert one.stretches().tolist() == [1.0]


@pytest.mark.parametrize("starts", [None, [0, 3, 9]], ids=["every row", "some"])
def test_a_mean_over_batches_counts_every_known_target_once(starts: list[int] | None) -> None:
    values = torch.arange(40.0).reshape(20, 2)
    known = torch.ones(20, 2, dtype=torch.bool)
    known[4:7, 0] = False
    known[10:16] = False
    windows = Windows(
        values=values,
        lookback=3,
        horizon=2,
        starts=None if starts is None else torch.tensor(starts),
        known=known,
    )
    whole = windows.gather(torch.arange(len(windows)))
    assert whole.target_mask is not None
    for size in (1, 2, 7):
        batches, means = list(windows.batches(size)), []
        for which in batches:
            batch = windows.gather(which)
            assert batch.target_mask is not None
            means.append(float(batch.target[batch.target_mask].mean().nan_to_num()))
        wanted = float(whole.target[whole.target_mask].mean())
        assert windows.mean_over(batches, means) == pytest.approx(wanted, rel=1e-6)
    windows = replace(windows, known=None)
    batches = list(windows.batches(2))
    means = [float(windows.gather(which).target.mean()) for which in batches]
    assert windows.mean_over(batches, means) == pytest.approx(float(whole.target.mean()), rel=1e-6)


@pytest.mark.parametrize(
    ("most", "wanted"),
    [(1, [0]), (2, [0, 6]), (4, [0, 2, 4, 6]), (7, [*range(7)]), (99, [*range(7)])],
)
def test_some_windows_are_spread_from_first_to_last(most: int, wanted: list[int]) -> None:
    windows = Windows(values=torch.zeros(12, 1), lookback=4, horizon=2)
    assert windows.spread(most).tolist() == wanted
