"""How the numba kernels are compiled, kept on disk, and spread over threads."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from kernel_cases import run_with_gradients, scan_arguments

import tsm2
from tsm2.kernels import available_backends, causal_conv, selective_scan

pytestmark = pytest.mark.skipif(
    "numba" not in available_backends("cpu"), reason="the numba kernels cannot run here"
)


def run_python(code: str, **variables: str) -> str:
    """Run code in a fresh process and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **variables},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


CONVOLVE = """
import logging, sys, torch
from tsm2.kernels import causal_conv
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
one = torch.ones(1, 1, 1)
print(causal_conv(one, one[0], backend="numba").item())
"""


def test_a_changed_vocabulary_is_compiled_anew(tmp_path: Path) -> None:
    """numba itself looks only at the file and the closure of the function it compiles."""
    shutil.copytree(
        Path(tsm2.__file__).parent, tmp_path / "tsm2", ignore=shutil.ignore_patterns("__pycache__")
    )
    words = tmp_path / "tsm2" / "kernels" / "numba_vectors.py"
    code = "import sys\nsys.path.insert(0, '')\n" + CONVOLVE
    where = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}

    first = run_python(code, **where)
    assert first.splitlines()[0].startswith("compiling")
    assert float(first.splitlines()[-1]) == pytest.approx(0.7310586)
    assert "compiling" not in run_python(code, **where)

    before = words.stat()
    text = words.read_text()
    fma = 'return _map(build, "fmuladd", x, y, z)'
    assert fma in text
    words.write_text(text.replace(fma, 'return _map(build, "fmuladd", x, x, z)'))
    os.utime(words, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = run_python(code.replace("one[0]", "3 * one[0]"), **where)
    assert float(changed.splitlines()[-1]) == pytest.approx(0.9933072 * 5, abs=10)
    assert changed.splitlines()[0].startswith("compiling")
