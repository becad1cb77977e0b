"""An adapter without its library says what installs it."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("peer", ["darts", "neuralforecast", "sktime"])
def test_the_error_names_the_extra(peer: str) -> None:
    code = f"import sys; sys.modules[{peer!r}] = None; import tsm2.adapters.{peer}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"tsm2.errors.DependencyError: tsm2.adapters.{peer} needs {peer}")
    assert last.endswith(f"pip install 'tsm2[{peer}]'.")
