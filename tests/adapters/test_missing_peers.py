"""An adapter without its library says what installs it."""

import subprocess
import sys

PEERS = ("darts", "neuralforecast", "sktime")
PROGRAM = f"""
import sys, traceback
from importlib import import_module
for peer in {PEERS}:
    sys.modules[peer] = None
    try:
        import_module(f"tsm2.adapters.{{peer}}")
    except Exception as error:
        print(traceback.format_exception_only(error)[-1].strip())
"""


def test_the_error_names_the_extra() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for peer, line in zip(PEERS, result.stdout.splitlines(), strict=True):
        assert line.startswith(f"tsm2.errors.DependencyError: tsm2.adapters.{peer} needs {peer}")
        assert line.endswith(f"pip install 'tsm2[{peer}]'.")
