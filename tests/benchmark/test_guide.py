"""What the guide shows runs as it stands there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tsm2.benchmark import runner
from tsm2.benchmark.job import measure
from tsm2.benchmark.protocol import RULES
from tsm2.benchmark.results import read_results

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "benchmark.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    known = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *([known] if known else [])]))
    return tmp_path


def test_the_python_lines_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: the test below has processes of their own for the runs."""
    monkeypatch.setattr(runner, "run_apart", lambda job, log: measure(job))
    (code,) = (block for block in blocks("python") if "outcome = run(" in block)
    exec(compile(code, "benchmark.md", "exec"), {})
    assert read_results(folder / "mine.csv")["model"].tolist() == ["RepeatLast", "sklearn:Ridge"]


def test_a_model_of_ones_own_runs(folder: Path) -> None:
    (code,) = (block for block in blocks("python") if "class Mean" in block)
    (folder / "my_models.py").write_text(code, encoding="utf-8")
    (line,) = (line for line in GUIDE.splitlines() if line.startswith("tsm2") and "my_mod" in line)
    command = [sys.executable, "-m", "tsm2.cli", *shlex.split(line)[1:]]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    table = read_results(folder / "benchmark.csv")
    assert table["model"].tolist() == ["my_models:Mean", "SeasonalNaive"]
    assert table["config"][0] == '{"share": 0.5}'


def test_every_rule_of_the_protocol_is_in_its_table() -> None:
    rows = re.findall(r"^\| (\w+) \| .* \|$", GUIDE.partition("## The protocol")[2], re.MULTILINE)
    assert rows[1 : len(RULES) + 1] == [rule.about for rule in RULES]
