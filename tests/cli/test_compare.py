"""`tsm2 compare` prints its leaderboard and writes one page."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import tsm2

from tsm2.benchmark import runner
from tsm2.benchmark.job import measure


def test_a_table_is_printed_and_the_page_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run_apart", lambda job, log: measure(job))
    data, out = tmp_path / "waves.csv", tmp_path / "out"
    rows = np.arange(120)
    stamps = pd.date_range("2024-01-01", periods=120, freq="h")
    sun = np.sin(rows * 2 * np.pi / 24) + 0.1 * np.cos(rows)
    pd.DataFrame({"sun": sun}, stamps).to_csv(data, index_label="time")
    given = ("--horizon", 6, "--models", "RepeatLast,SeasonalNaive", "--out", out, "-q")
    result = tsm2("compare", data, *given)
    assert result.returncode == 0, result.stderr
    assert "SeasonalNaive" in result.stdout
    assert "waves: forecasts compared" in (out / "compare.html").read_text(encoding="utf-8")
    result = tsm2("compare", data, *given, "--json")
    printed = [json.loads(line) for line in result.stdout.splitlines()]
    assert {row["model"] for row in printed[:2]} == {"RepeatLast", "SeasonalNaive"}
    assert printed[0]["MASE"] <= printed[1]["MASE"]
    assert printed[2] == {"written": "page", "path": str(out / "compare.html")}
    long = pd.DataFrame({"unique_id": "north", "ds": stamps, "y": sun})
    both = pd.concat([long, long.iloc[:100].assign(unique_id="south")])
    both.to_csv(tmp_path / "panel.csv", index=False)
    result = tsm2("compare", tmp_path / "panel.csv", *given)
    assert "2 series of 100-120 rows" in (out / "compare.html").read_text(encoding="utf-8")
