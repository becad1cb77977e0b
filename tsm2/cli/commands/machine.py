"""`tsm2 demo` and `tsm2 info`: does it run here, and on what."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from tsm2.cli.options import AsJson, Quiet
from tsm2.cli.printing import print_json, print_line, print_rows, print_table

__all__ = ["demo", "info"]

_SHOWN_PACKAGES = (
    "tsm2",
    "torch",
    "numba",
    "triton",
    "mamba-ssm",
    "numpy",
    "pandas",
    "scikit-learn",
    "accelerate",
)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fit, backtest, forecast and plot the generated sample; needs no data."""
    from tsm2.demo import run_demo
    from tsm2.training.memory import keep_freed_memory

    keep_freed_memory()
    result = run_demo(out, verbose=0 if quiet else 1)
    title = f"Errors over {result.n_windows} test windows, standardised values"
    print_table(result.errors, "model", title, as_json=as_json)
    for what, path in result.written.items():
        if as_json:
            print_json({"written": what, "path": path})
        else:
            print_line(f"{what}: {path}")


def info(
    warm_up: Annotated[
        bool, typer.Option("--warm-up", help="Compile the kernels now and keep them on disk.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show versions, devices, threads, and which kernels and steps run here and why."""
    import torch

    from tsm2 import kernels
    from tsm2.training.capture import why_not_captured
    from tsm2.training.loop import choose_device

    if warm_up:
        kernels.warm_up()
    device = choose_device("auto")
    rows = {f"{name} version": _version(name) for name in _SHOWN_PACKAGES}
    rows |= {
        "Python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "threads": str(torch.get_num_threads()),
    }
    for name, reason in kernels.explain_backends(device).items():
        rows[f"kernels: {name}"] = "usable" if reason is None else f"not usable: {reason}"
    rows["kernels in use"] = kernels.available_backends(device)[0]
    obstacle = why_not_captured(device)
    rows["training steps"] = (
        "replayed as CUDA graphs" if obstacle is None else f"not captured: {obstacle}"
    )
    if as_json:
        print_json(rows)
    else:
        print_rows((), list(rows.items()))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
