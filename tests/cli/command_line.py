"""Runs commands in this process, as their own would: what they print, and their exit code."""

import contextlib
import io
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

from tsm2.cli import main

FAST = ["--lookback", "24", "--epochs", "1", "--device", "cpu", "--set", "features=8", "-q"]


def tsm2(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run `tsm2 ARGUMENTS`."""
    out, err = io.StringIO(), io.StringIO()
    words = ["tsm2", *map(str, arguments)]
    handlers = list(logging.getLogger().handlers)
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", words),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        mock.patch.dict(os.environ, {"COLUMNS": "80"}),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")  # printed, as by a program
        try:
            main()
            code = 0
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else 0 if leave.code is None else 1
        finally:
            logging.getLogger().handlers[:] = handlers
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def own_process(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python -m tsm2.cli ARGUMENTS`."""
    return subprocess.run(
        [sys.executable, "-m", "tsm2.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
    )


def refused(*arguments: object, stdin: bytes = b"") -> str:
    """Run what must fail by the user's fault, and return its one line; notes may stand before."""
    result = tsm2(*arguments, stdin=stdin)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.strip().splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("tsm2: ")
    assert result.stdout == ""
    return lines[0]
