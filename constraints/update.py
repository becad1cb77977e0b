#!/usr/bin/env python3
"""Write the constraints: for each environment of the tests, the versions that they run with.

    python constraints/update.py                 # all of them: some GB, some minutes
    python constraints/update.py sktime oldest   # these
    python constraints/update.py --extras darts  # what its environment is installed with

Each environment is made anew in a folder that is deleted again, with the newest versions that
`pyproject.toml` and the pins below allow, and frozen; "oldest" with the lowest that
`pyproject.toml` allows of what tsm2 itself asks for, and the newest of all else that go with them.
Run it with the oldest Python that tsm2 supports, and the tests of an environment before its file
is committed.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What one file of constraints is made from."""

    ran: str
    """Which tests run in it, for the file's first line."""
    extras: str
    """The extras of tsm2 that are installed in it, between commas."""
    pins: tuple[str, ...] = ("torch==2.13.0",)  # has a build without CUDA, 5 GB smaller
    """What is held back."""
    file: str | None = None
    """Where the file is, if not in this folder under the environment's name."""
    oldest: bool = False
    """Whether the lowest versions are taken instead of the newest."""


ENVIRONMENTS = {
    "core": Environment(
        ran="the core's tests",
        extras="dev,docs",
        # soupsieve from 3.0 needs Python 3.11.5, and Debian 12 has 3.11.2.
        pins=("torch==2.13.0", "soupsieve==2.10"),
        file="constraints.txt",
    ),
    "oldest": Environment(
        ran="the quick tests",
        extras="plot,tune,tensorboard,onnx,parquet,polars,holidays,test",
        # pandas 3.0 fails with dateutil 4.0's zones, matplotlib 3.9 warns with pyparsing 3.3.
        pins=("python-dateutil==2.9.0.post0", "pyparsing==3.2.3"),
        oldest=True,
    ),
    "darts": Environment(
        ran="the tests of tsm2.adapters.darts", extras="darts,onnx,test,notebooks"
    ),
    "neuralforecast": Environment(
        ran="the tests of tsm2.adapters.neuralforecast", extras="neuralforecast,test"
    ),
    "sktime": Environment(ran="the tests of tsm2.adapters.sktime", extras="sktime,test"),
    "engines": Environment(
        ran="the tests of tsm2.engines on Dask, Ray and Spark, and of rivals in tsm2 compare",
        extras="dask,ray,spark,compare,plotly,parquet,test",
    ),
    "vision": Environment(
        ran="the tests of tsm2.vision with its ecosystem",
        extras="vision-recipes,onnx,test",
        pins=("torch==2.14.1", "torchvision==0.29.1"),  # a pair, made for each other
    ),
}


def lowest(extras: str) -> list[str]:
    """Pin tsm2's requirements, with those of its extras, to the lowest versions they allow."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = list(project["dependencies"])
    for extra in extras.split(","):
        requirements += project["optional-dependencies"][extra]
    pins = []
    for requirement in requirements:
        name, found, bound = requirement.partition(";")[0].partition(">=")
        if not found:
            raise SystemExit(f"pyproject.toml has no lowest version of {name}: write {name}>=...")
        pins.append(f"{name.strip()}=={bound.partition(',')[0].strip()}")
    return pins


def freeze(environment: Environment) -> list[str]:
    """Return "name==version" of all that lies in an environment made anew, without tsm2."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [str(Path(folder, "bin", "python")), "-m", "pip", "--disable-pip-version-check"]
        pins = Path(folder, "pins.txt")
        lines = [*environment.pins, *(lowest(environment.extras) if environment.oldest else ())]
        pins.write_text("\n".join(lines) + "\n", encoding="utf-8")
        wanted = f"{ROOT}[{environment.extras}]"
        subprocess.run([*pip, "install", "--quiet", "-c", str(pins), wanted], check=True)
        command = [*pip, "freeze", "--exclude", "tsm2"]
        frozen = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    # Which build of a version is taken ("+cpu") is left to the index of who installs it.
    return sorted((line.partition("+")[0] for line in frozen.splitlines()), key=str.lower)


def header(name: str) -> str:
    """Return the first lines of an environment's file."""
    environment = ENVIRONMENTS[name]
    which = "lowest versions promised, which" if environment.oldest else "versions that"
    return (
        f"# The {which} {environment.ran} run with, on Python {platform.python_version()}.\n"
        f"# Written by constraints/update.py. To install them:\n"
        f"# pip install -c {_file(name).relative_to(ROOT)} -e '.[{environment.extras}]'\n"
    )


def write(name: str) -> None:
    """Write the constraints of an environment."""
    text = header(name) + "\n".join(freeze(ENVIRONMENTS[name])) + "\n"
    _file(name).write_text(text, encoding="utf-8")


def _file(name: str) -> Path:
    return ROOT / (ENVIRONMENTS[name].file or f"constraints/{name}.txt")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ENVIRONMENTS))
    parser.add_argument("--extras", metavar="NAME", choices=ENVIRONMENTS)
    options = parser.parse_args()
    if unknown := set(options.names) - set(ENVIRONMENTS):
        parser.error(
            f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(ENVIRONMENTS)}"
        )
    if options.extras:
        print(ENVIRONMENTS[options.extras].extras)
        return
    for name in options.names or ENVIRONMENTS:
        write(name)
        print(f"wrote {_file(name).relative_to(ROOT)}", flush=True)


if __name__ == "__main__":
    main()
