"""Every example runs as it stands there, and the guides show no other code."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
NEEDS = {"tune_with_optuna": ("optuna",), "deploy": ("onnxscript", "onnxruntime")}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(example: Path, tmp_path: Path) -> None:
    for package in NEEDS.get(example.stem, ()):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}")
    result = subprocess.run(
        [sys.executable, "-W", "ignore", str(example)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.iterdir()) == []  # and leaves nothing behind
