#!/usr/bin/env python3
"""Run every example and notebook, and write what they print and draw into `docs/made`.

    python examples/render.py             # all of them, two at a time: some minutes
    python examples/render.py quickstart  # these

The pages include these files, so that code never stands beside an output that it did not make.
An example or a notebook that fails ends the run with its message, and that is their test.

Of `examples/NAME.py` comes `NAME-SECTION.txt`, what was printed from the marker
`# --8<-- [start:SECTION]` to the next one, and `NAME-FILE.png` for each picture that it saved.
Of `examples/notebooks/NAME.ipynb` comes the page `notebooks/NAME.md` with its pictures. That of
Darts runs in the environment `.venvs/darts`.
"""

import argparse
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
MADE = EXAMPLES.parent / "docs" / "made"
PYTHON_OF = {"darts": EXAMPLES.parent / ".venvs" / "darts" / "bin" / "python"}  # by notebook
_START = re.compile(r"# --8<-- \[start:([\w-]+)\]")


def run_example(path: Path) -> None:
    """Run one example in a folder of its own, and write its outputs and pictures."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.use("agg")
    printed: dict[str, io.StringIO] = {}
    outputs = contextlib.ExitStack()

    def section(name: str) -> None:
        outputs.close()
        outputs.enter_context(contextlib.redirect_stdout(printed.setdefault(name, io.StringIO())))

    save = Figure.savefig
    drawn: set[str] = set()

    def save_twice(figure: Figure, file: object, **settings: object) -> None:
        save(figure, file, **settings)
        if not isinstance(file, str | Path):
            return  # a picture within a page
        name = Path(str(file)).name
        save(figure, MADE / f"{path.stem}-{name}", dpi=150, bbox_inches="tight")
        drawn.add(name)

    Figure.savefig = save_twice  # this process runs one example and ends
    code = _START.sub(r'__section__("\1")', path.read_text(encoding="utf-8"))
    names = {"__name__": "__main__", "__file__": str(path), "__section__": section}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), outputs:
        exec(compile(code, str(path), "exec"), names)
        for picture in Path(folder).glob("*.png"):
            if picture.name not in drawn:  # another process drew it
                shutil.copy(picture, MADE / f"{path.stem}-{picture.name}")
    for name, text in printed.items():
        (MADE / f"{path.stem}-{name}.txt").write_text(text.getvalue(), encoding="utf-8")


def run_notebook(path: Path) -> None:
    """Execute a notebook, and write it as a page with its pictures beside it."""
    import nbformat
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbconvert import MarkdownExporter

    python = PYTHON_OF.get(path.stem, Path(sys.executable))
    if not python.exists():
        sys.exit(f"it needs {python}: make it with `make {python.parents[1]}/made`")
    kernel = AsyncKernelManager()
    kernel._kernel_spec = KernelSpec(  # that of an environment, without registering it for the user
        argv=[str(python), "-W", "ignore", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    )
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, km=kernel, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    page, resources = MarkdownExporter().from_notebook_node(
        notebook, resources={"unique_key": path.stem, "output_files_dir": f"{path.stem}_files"}
    )
    folder = MADE / "notebooks"
    for name, data in resources["outputs"].items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    source = f"\n\nThis page is `examples/notebooks/{path.name}`, run when the site was built.\n"
    (folder / f"{path.stem}.md").write_text(page.rstrip() + source, encoding="utf-8")


def run(path: Path) -> str | None:
    """Run an example or a notebook in a process of its own; return what went wrong."""
    settings = {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--one", str(path)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    print(f"{'ran' if done.returncode == 0 else 'FAILED'} {path.name}", flush=True)
    return None if done.returncode == 0 else f"{path.name} failed:\n{done.stdout}{done.stderr}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="without the ending")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    (MADE / "notebooks").mkdir(parents=True, exist_ok=True)
    if options.one:
        (run_notebook if options.one.suffix == ".ipynb" else run_example)(options.one)
        return
    paths = [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("notebooks/*.ipynb")]
    paths = [each for each in paths if each.name != Path(__file__).name]
    if unknown := set(options.names) - {each.stem for each in paths}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    wanted = [each for each in sorted(paths) if not options.names or each.stem in options.names]
    with ThreadPoolExecutor(2) as pool:
        failures = [message for message in pool.map(run, wanted) if message]
    if failures:
        sys.exit("\n\n".join(failures))


if __name__ == "__main__":
    main()
