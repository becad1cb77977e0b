"""The result file loses no row and keeps no torn one, whoever writes and whatever is killed."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tsm2.benchmark.results import COLUMNS, KEY, append_row, finished, read_results, run_stem
from tsm2.benchmark.settings import load_settings
from tsm2.errors import OutputError

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def row(seed: int = 0, **changes: str) -> dict[str, str]:
    values = {
        "dataset": "ETTh1",
        "lookback": "512",
        "horizon": "96",
        "model": "TSM2",
        "config": '{"max_epochs": 6, "loss": "mse"}',
        "seed": str(seed),
        "n_windows": "2785",
        "mse": "0.370000",
        "mae": "0.390000",
    }
    return dict.fromkeys(COLUMNS, "") | values | changes


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    assert len(read_results(file)) == 0
    assert finished(file) == set()
    append_row(file, row(0))
    append_row(file, row(1, mse="0.5"))
    table = read_results(file)
    assert list(table.columns) == list(COLUMNS)
    assert table["mse"].tolist() == [0.37, 0.5]
    assert table["config"][0] == row()["config"]
    assert table["commit"].tolist() == ["", ""]
    assert finished(file) == {tuple(row(seed)[name] for name in KEY) for seed in (0, 1)}


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_torn_last_line_is_dropped_and_then_cut_off(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "r.csv"
    append_row(file, row(0))
    whole = file.read_bytes()
    append_row(file, row(1))
    file.write_bytes(file.read_bytes()[:-cut])
    assert read_results(file)["seed"].tolist() == [0]
    append_row(file, row(2))
    assert file.read_bytes().startswith(whole)
    assert read_results(file)["seed"].tolist() == [0, 2]


def test_a_torn_header_starts_anew(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    file.write_text("dataset,look")
    assert len(read_results(file)) == 0
    append_row(file, row(0))
    assert read_results(file)["seed"].tolist() == [0]


def test_writers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: append_row(file, row(seed)), range(60)))
    assert sorted(read_results(file)["seed"]) == list(range(60))


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    file.write_text("date,load\n2024-01-01,3\n")
    with pytest.raises(OutputError, match="no result file"):
        finished(file)
    file.write_text(",".join(COLUMNS) + "\nETTh1,512\n")
    with pytest.raises(OutputError, match="damaged in line 2"):
        read_results(file)
    with pytest.raises(OutputError, match="cannot"):
        append_row(tmp_path / "no" / "r.csv", row())


def test_a_stem_tells_runs_apart_and_is_a_file_name() -> None:
    keys = [tuple(row(seed, model=m)[n] for n in KEY) for seed in (0, 1) for m in ("a:b", "a b")]
    stems = {run_stem(key) for key in keys}
    assert len(stems) == 4
    assert all(set(stem) <= set("abcdefghijklmnopqrstuvwxyzETh0123456789_-") for stem in stems)


@pytest.mark.parametrize(
    "changes",
    [{"mse": "low"}, {"seed": "0.5"}, {"device": "x" * 200_000}, {"n_windows": ""}],
    ids=str,
)
def test_a_damaged_cell_is_told_by_its_line(tmp_path: Path, changes: dict[str, str]) -> None:
    file = tmp_path / "results.csv"
    append_row(file, row())
    append_row(file, row(seed=1) | changes)
    for use in (read_results, finished):
        with pytest.raises(OutputError, match=r"damaged in line 3. Correct or delete"):
            use(file)


def test_the_committed_rows_are_one_table() -> None:
    """Each cell of TSM2 has the settings of today; other settings are in the archive."""
    with (RESULTS / "long_horizon.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        best = load_settings(row["dataset"], "best").at(int(row["horizon"]))
        wanted = best if row["model"] == "TSM2" else {}
        assert json.loads(row["config"]) == wanted, row
    keys = [tuple(row[name] for name in ("dataset", "horizon", "model", "seed")) for row in rows]
    assert len(set(keys)) == len(keys)
