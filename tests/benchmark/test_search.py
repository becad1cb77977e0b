"""The search for settings (`benchmarks/search.py`): which rows it may see."""

import csv
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsm2.benchmark.models import ModelName
from tsm2.benchmark.protocol import Table, load_table

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SAMPLE = load_table("sample")
MODELS = ("RLinear(max_epochs=1)", "--lookback", "48", "--horizons", "24")


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)  # this process is shared
    return runpy.run_path(str(BENCHMARKS / "search.py"))


def found(search: dict[str, Any], out: Path, *options: str) -> list[dict[str, str]]:
    search["main"](["sample", *MODELS, *options, "--out", str(out)])
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("options", [(), ("--folds", "2", "--rows", "120")])
def test_test_rows_change_nothing(
    search: dict[str, Any],
    options: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shifted(name: str, **where: Any) -> Table:
        table = load_table(name, **where)
        table.values[table.split.validation_end :] += 1e3
        return table

    as_it_is = found(search, tmp_path / "as-it-is.csv", *options)
    monkeypatch.setitem(search["main"].__globals__, "load_table", shifted)
    poisoned = found(search, tmp_path / "shifted.csv", *options)
    assert [row["validation_mse"] for row in as_it_is] == [
        row["validation_mse"] for row in poisoned
    ]
    assert all(np.isfinite(float(row["validation_mse"])) for row in as_it_is)


def test_folds_are_judged_by_rows_that_nothing_has_seen(
    search: dict[str, Any], tmp_path: Path
) -> None:
    options = ("--folds", "2", "--rows", "120", "--stride", "60")
    rows = found(search, tmp_path / "folds.csv", *options)
    end = SAMPLE.split.validation_end
    assert [(row["stops"], row["judges"]) for row in rows] == [
        (f"{end - 240}:{end - 120}", f"{end - 120}:{end}"),
        (f"{end - 300}:{end - 180}", f"{end - 180}:{end - 60}"),
    ]
    assert rows[0]["validation_mse"] != rows[1]["validation_mse"]


def test_rows_in_the_file_are_not_run_again(search: dict[str, Any], tmp_path: Path) -> None:
    once = found(search, tmp_path / "rows.csv")
    assert found(search, tmp_path / "rows.csv") == once
    assert len(found(search, tmp_path / "rows.csv", "--folds", "1", "--rows", "120")) == 2


def test_a_fold_in_the_test_rows_is_refused(search: dict[str, Any]) -> None:
    end = SAMPLE.split.validation_end
    candidate = search["Candidate"](
        "sample", f"1500:{end}", f"{end}:{end + 100}", 48, 24, "RLinear", "{}", 0
    )
    with pytest.raises(ValueError, match="reads test rows"):
        search["run"](candidate, None)


def test_ratios_are_to_the_first_model_on_the_same_rows(search: dict[str, Any]) -> None:
    def run(model: str, judges: str, error: float) -> dict[str, Any]:
        sizes = {"lookback": 48, "horizon": 24, "seed": 0, "seconds": 1, "validation_mae": 1.0}
        rows = {"dataset": "sample", "stops": "1:2", "judges": judges}
        return {**rows, **sizes, "model": model, "config": "{}", "validation_mse": error}

    quiet, lively = "2:3", "3:4"
    runs = [run("A", quiet, 1), run("A", lively, 100), run("B", quiet, 2), run("B", lively, 100)]
    means = search["means_of"](pd.DataFrame(runs), ModelName.read("A"))
    assert means["ratio"].tolist() == [1.0, 1.5]


def test_folds_that_leave_nothing_to_train_on_are_refused(
    search: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="Lower --folds or --rows"):
        found(search, tmp_path / "none.csv", "--folds", "9", "--rows", "240")
