"""Seasons of frequencies, and the lookbacks that are worth a try."""

import pytest

from tsm2.prepared.seasons import lookbacks, season_of
from tsm2.tables.layout import Layout


def rows(frequency: str | int, kind: str = "datetime") -> Layout:
    return Layout(kind="frame", columns=("a",), index_kind=kind, frequency=frequency)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frequency", "season"),
    [
        *(("30min", 48), ("2h", 12), ("5h", None), ("D", 7), ("2D", 3), ("B", 5), ("W-SUN", 52)),
        *(("MS", 12), ("ME", 12), ("BME", 12), ("2MS", 6), ("QS-OCT", 4), ("YE-DEC", None)),
    ],
)
def test_a_season_is_a_day_a_week_or_a_year(frequency: str, season: int | None) -> None:
    assert season_of(rows(frequency)) == season


@pytest.mark.parametrize(("frequency", "season"), [("M", 12), ("Q-DEC", 4), ("h", 24), ("D", 7)])
def test_periods_have_the_seasons_of_their_frequency(frequency: str, season: int) -> None:
    assert season_of(rows(frequency, "period")) == season


def test_lookbacks_hold_the_season_as_far_as_the_rows_go() -> None:
    assert lookbacks(rows("h"), 24, 10_000) == [48, 192, 336]
    assert lookbacks(rows("h"), 24, 100) == [48, 100]
    assert lookbacks(rows("MS"), 36, 10_000) == [72]
    assert lookbacks(rows(1, "range"), 6, 40) == [12, 24, 40]
    assert season_of(rows(1, "range")) is None
