"""The command line: `tsm2 demo | fit | update | predict | backtest | compare | benchmark | ...`.

Results go to files or standard output, progress and messages to standard error. Exit codes: 0 for
success, 1 for a check that found a fault, 2 for a mistake in what was asked, 130 when interrupted,
143 when ended by SIGTERM.

`commands` holds one function per command, `options` the options that they share, `values` what
their texts mean, `files` how files are read and written, `known` what a saved model knows of them,
`advice` puts the library's advice into options, and `printing`
and `pictures` show results. pandas, torch and scikit-learn are imported when a command runs, so
that `--help` is quick.
"""

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, TextIO

import typer

from tsm2 import __version__
from tsm2.cli.commands.benchmark import benchmark
from tsm2.cli.commands.compare import compare
from tsm2.cli.commands.data import data_check, data_get, data_list
from tsm2.cli.commands.fit import export, fit, update
from tsm2.cli.commands.forecast import backtest, inspect, predict
from tsm2.cli.commands.machine import demo, info
from tsm2.cli.printing import print_line, say

__all__ = ["app", "main"]

app = typer.Typer(
    name="tsm2",
    help="Forecast your own tables with TSM2, a selective state-space model.",
    no_args_is_help=True,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def version(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", is_eager=True)
    ] = False,
) -> None:
    """Forecast your own tables with TSM2, a selective state-space model."""
    if version:
        print_line(f"tsm2 {__version__}")
        raise typer.Exit


for command in (demo, fit, update, predict, backtest, inspect, export, compare, benchmark, info):
    app.command()(command)

data_app = typer.Typer(help="List, fetch and check the benchmark datasets.", no_args_is_help=True)
data_app.command("list")(data_list)
data_app.command("get")(data_get)
data_app.command("check")(data_check)
app.add_typer(data_app, name="data")


class _EndedError(BaseException):
    """Ctrl-C, or a scheduler that ends what runs too long; typer has its own way with Ctrl-C."""

    def __init__(self, number: int) -> None:
        is_key = number == signal.SIGINT
        super().__init__("interrupted" if is_key else f"ended by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise, as far as this thread may say so."""

    def end(number: int, _: object) -> None:
        raise _EndedError(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, end) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _kept(words: list[str]) -> str:
    """Say what an interrupted command leaves, and how to go on."""
    if words[:1] in (["benchmark"], ["compare"]):
        return "finished runs are kept, and the same command goes on with the others."
    if any(word.split("=")[0] == "--checkpoint" for word in words):
        return "the checkpoint is kept, and the same command goes on from it."
    return "nothing was written that is not whole."


def _say_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Say our own warnings in the words of a command line, and others as Python does."""
    if category.__module__ != "tsm2.errors":
        text = warnings.formatwarning(message, category, filename, lineno, line)
        (file or sys.stderr).write(text)
        return
    from tsm2.cli.advice import for_command_line

    say(f"tsm2: {for_command_line(str(message))}")


def main() -> None:
    """Run the command line and leave with its exit code."""
    logging.basicConfig(format="tsm2: %(message)s")
    logging.getLogger("tsm2").setLevel(logging.INFO)  # such as: kernels are being compiled
    warnings.showwarning = _say_warning
    try:
        with _ended_by_signals():
            app()
    except _EndedError as end:
        say(f"tsm2: {end}; {_kept(sys.argv[1:])}")
        sys.exit(128 + end.number)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        from tsm2.cli.advice import for_command_line
        from tsm2.errors import TSM2Error  # imports scikit-learn, which help does not need

        if not isinstance(error, TSM2Error):
            raise
        say(f"tsm2: {for_command_line(str(error))}")
        sys.exit(2)
