#!/usr/bin/env python3
"""Make an environment with a newer Python than the machine's, on Debian and without root.

    python constraints/newest.py .venvs/newest

Debian unstable has a Python with a build of torch for the CPU, 250 MB in all, where PyPI has only
one with CUDA. Its packages are unpacked into a folder, where they run with the C library that came
along; what else the quick tests need is installed beside them from `constraints.txt`.

Unstable moves, tests should not: where it has other versions than those below, or where this is no
Debian, that is said, and there is no environment.
"""

import argparse
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

PYTHON, TORCH = "3.14", "2.14"  # that the tests ran with
PACKAGES = (f"python{PYTHON}", "python3-pip-whl", "python3-torch", "libopenblas0-pthread")
EXTRAS = "plot,parquet,polars,holidays,test"

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class UnavailableError(Exception):
    """A newer Python cannot be had on this machine."""


def run(*command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it printed."""
    settings = os.environ | (env or {})
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    if done.returncode:
        raise UnavailableError(
            f"{' '.join(map(str, command))} failed: {done.stderr.strip()[-500:]}"
        )
    return done.stdout


def mirror() -> str:
    """Return where this machine's own Debian comes from."""
    if not shutil.which("apt-get") or not KEYS.exists():
        raise UnavailableError("this is no Debian")
    found = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    for address in found.split():
        if address.rstrip("/").endswith("/debian"):
            return address
    raise UnavailableError("apt knows no archive of Debian")


def unpack(folder: Path, downloads: Path) -> None:
    """Download the packages, with all that they need, and unpack them into a folder."""
    folder.mkdir()
    for package in fetch(downloads):
        run("dpkg-deb", "--extract", package, folder)


def fetch(folder: Path) -> list[Path]:
    """Download the packages by an apt that leaves the machine's alone."""
    for name in ("lists", "cache/archives"):
        (folder / name / "partial").mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={KEYS}] {mirror()} unstable main\n")
    settings = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Acquire::Languages": "none",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "true",
    }
    config = folder / "apt.conf"
    config.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    apt = {"APT_CONFIG": str(config)}
    run("apt-get", "--quiet", "update", env=apt)
    found = run("apt-cache", "show", "--no-all-versions", "python3", "python3-torch", env=apt)
    versions = [line.split()[1] for line in found.splitlines() if line.startswith("Version:")]
    if [".".join(version.split(".")[:2]) for version in versions] != [PYTHON, TORCH]:
        raise UnavailableError(
            f"Debian unstable has Python and torch {' and '.join(versions)}, the tests ran with "
            f"{PYTHON} and {TORCH}: try the new ones, and name them in constraints/newest.py"
        )
    run("apt-get", "--quiet", "--yes", "--download-only", "install", *PACKAGES, env=apt)
    return sorted((folder / "cache/archives").glob("*.deb"))


def start(debian: Path, environment: Path) -> Path:
    """Make the environment, whose Python is started by the loader that was unpacked with it."""
    libraries = next((debian / "usr/lib").glob("*-linux-gnu"))
    loader = next(libraries.glob("ld-linux-*.so.*"))
    paths = ":".join(map(str, (libraries, libraries.parent, libraries / "openblas-pthread")))
    real = debian / f"usr/bin/python{PYTHON}"
    by = shlex.join([str(loader), "--library-path", paths])
    command = f'exec {by} --argv0 "$0" {shlex.quote(str(real))} "$@"\n'
    python = environment / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{command}")
    python.chmod(0o755)
    (environment / "pyvenv.cfg").write_text(
        f"home = {real.parent}\ninclude-system-site-packages = true\n"
    )
    return python


def install(python: Path, debian: Path) -> None:
    """Install tsm2, and what Debian has no package of that fits, with the pip that came along."""
    pins = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    mine = python.parents[1] / "constraints.txt"
    ours = [line for line in pins if not line.startswith(("torch==", "triton=="))]
    mine.write_text("\n".join(ours) + "\n", encoding="utf-8")
    (pip,) = (debian / "usr/share/python-wheels").glob("pip-*.whl")
    what = f"{CONSTRAINTS.parent}[{EXTRAS}]"
    quietly = ("--quiet", "--disable-pip-version-check", "--root-user-action=ignore")
    run(python, pip / "pip", "install", *quietly, "--no-compile", "-c", mine, "-e", what)
    run(python, "-c", "import torch, tsm2")


def remove(*folders: Path) -> None:
    """Remove folders that may be there."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("environment", type=Path, help="its folder, made anew")
    folder = parser.parse_args().environment.absolute()
    # Their names do not begin with the environment's, or pip would take Debian's packages for its.
    debian, downloads = (folder.with_name(f"{it}-{folder.name}") for it in ("debian", "downloads"))
    places = (folder, debian, downloads)
    remove(*places)
    try:
        unpack(debian, downloads)
        install(start(debian, folder), debian)
        remove(downloads)
    except UnavailableError as reason:
        remove(*places)
        print(f"SKIPPED: there is no newer Python to test with: {reason}")


if __name__ == "__main__":
    main()
