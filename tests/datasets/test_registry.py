"""The records are complete and their splits are the published ones."""

from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tsm2.datasets
from tsm2.datasets import Split, borders, describe, names
from tsm2.errors import DatasetError, ParameterError

ETT = ("ETTh1", "ETTh2", "ETTm1", "ETTm2")
ALL = (*ETT, "Weather", "Exchange", "ILI", "Traffic", "Electricity", "Solar")


def test_the_public_surface_is_this() -> None:
    assert tsm2.datasets.__all__ == [
        "SAMPLE_LINKS",
        "Dataset",
        "FileCheck",
        "Link",
        "Split",
        "Stores",
        "borders",
        "check",
        "describe",
        "fetch",
        "load",
        "load_sample",
        "load_sample_covariates",
        "load_stores",
        "names",
        "path",
    ]
    assert all(hasattr(tsm2.datasets, name) for name in tsm2.datasets.__all__)


def test_every_dataset_has_a_complete_record() -> None:
    assert names() == ALL
    for name in ALL:
        record = describe(name)
        assert record.name == name
        assert record.addresses
        assert all(address.startswith("https://") for address in record.addresses)
        assert not record.file.startswith("/")
        assert record.licence
        assert (record.sha256 is None) == (name == "Solar")
        assert (record.bytes is None) == (name == "Solar")
        assert len(record.checksum.split()[-1]) == (40 if name == "Solar" else 64)
        int(record.checksum.split()[-1], 16)
    assert len({describe(name).checksum for name in ALL}) == len(ALL)


def test_only_illness_has_horizons_of_its_own() -> None:
    horizons = {name: describe(name).horizons for name in ALL}
    assert horizons.pop("ILI") == (24, 36, 48, 60)
    assert set(horizons.values()) == {(96, 192, 336, 720)}


def test_a_record_cannot_be_changed_or_lack_a_checksum() -> None:
    record = describe("ETTh1")
    with pytest.raises(FrozenInstanceError):
        record.rows = 1  # type: ignore[misc]
    with pytest.raises(ValueError, match="needs a sha256 or a git_blob"):
        replace(record, sha256=None)


@pytest.mark.parametrize("written", ["weather", "WEATHER", " Weather "])
def test_names_are_read_in_any_case(written: str) -> None:
    assert describe(written).name == "Weather"


def test_a_record_describes_itself() -> None:
    record = describe("ILI")
    assert describe(record) is record


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("weathr", "no dataset is named 'weathr'. Did you mean Weather\\? Known: ETTh1, "),
        ("etth3", "Did you mean ETTh2 or ETTh1"),
        ("xyz", "no dataset is named 'xyz'. Known: ETTh1, "),
    ],
)
def test_an_unknown_name_names_the_nearest(written: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        describe(written)


@pytest.mark.parametrize(
    ("name", "train_end", "validation_end", "test_end"),
    [
        ("ETTh1", 8640, 11520, 14400),
        ("ETTh2", 8640, 11520, 14400),
        ("ETTm1", 34560, 46080, 57600),
        ("ETTm2", 34560, 46080, 57600),
        ("Weather", 36887, 42157, 52696),
        ("Exchange", 5311, 6071, 7588),
        ("ILI", 676, 773, 966),
        ("Traffic", 12280, 14036, 17544),
        ("Electricity", 18412, 21044, 26304),
        ("Solar", 36792, 42048, 52560),
    ],
)
def test_borders_are_the_published_ones(
    name: str, train_end: int, validation_end: int, test_end: int
) -> None:
    assert borders(name) == Split(train_end, validation_end, test_end)
    assert borders(describe(name)) == borders(name)


@pytest.mark.parametrize(
    ("name", "horizon", "n_windows"), [("ETTh1", 96, 2785), ("ETTm1", 720, 10801), ("ILI", 24, 170)]
)
def test_number_of_test_windows_at_stride_1(name: str, horizon: int, n_windows: int) -> None:
    split = borders(name)
    assert split.test_end - split.validation_end - horizon + 1 == n_windows


@given(st.integers(min_value=5, max_value=10**7))
def test_shares_use_every_row(n_rows: int) -> None:
    split = borders("Weather", n_rows)
    assert 0 < split.train_end < split.validation_end < split.test_end == n_rows
    assert split.train_end == int(n_rows * 0.7)
    assert split.test_end - split.validation_end == int(n_rows * 0.2)


def test_borders_follow_the_rows_that_are_given() -> None:
    assert borders("Traffic", 100) == Split(70, 80, 100)
    assert borders("ETTh1", 14400) == borders("ETTh1")


@pytest.mark.parametrize(("name", "n_rows"), [("ETTh1", 14399), ("Weather", 4), ("Weather", 0)])
def test_too_few_rows_for_the_borders_is_an_error(name: str, n_rows: int) -> None:
    with pytest.raises(ParameterError, match=f"{name} cannot be split at {n_rows} rows into "):
        borders(name, n_rows)
