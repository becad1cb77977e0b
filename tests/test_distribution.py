"""What is handed to others holds what it should, and says the same everywhere."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import tsm2

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"tsm2-{tsm2.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    assert {name.split("/")[0] for name in names} == {"tsm2", info}
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tsm2").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("tsm2/")} == ours
    assert "tsm2/py.typed" in names
    assert f"{info}/licenses/LICENSE" in names
    assert f"Version: {tsm2.__version__}\n" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert "tsm2 = tsm2.cli:main" in entry_points


def test_the_source_holds_what_its_tests_and_examples_need(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in ("pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff"):
        assert needed in names
    assert "tests/test_distribution.py" in names
    assert "examples/notebooks/quickstart.ipynb" in names
    assert "constraints.txt" in names
    made = [n for n in names if re.match(r"(site|docs/made|\.venv|demo|\.cache)", n)]
    assert made == []


def test_every_place_names_one_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    recipe = (ROOT / "recipe" / "meta.yaml").read_text(encoding="utf-8")
    assert re.search(rf"^version: {re.escape(tsm2.__version__)}$", citation, re.MULTILINE)
    assert f'{{% set version = "{tsm2.__version__}" %}}' in recipe


def test_the_recipe_asks_for_what_the_package_asks_for() -> None:
    recipe = (ROOT / "recipe" / "meta.yaml").read_text(encoding="utf-8")
    run = recipe.partition("  run:\n")[2].partition("\n\n")[0]
    asked = {line.strip(" -") for line in run.splitlines()}
    wanted = {
        re.sub(r"^torch\b", "pytorch", need).replace(">=", " >=")
        for need in [f"python{PROJECT['requires-python']}", *PROJECT["dependencies"]]
    }
    assert asked == wanted


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_pages_install_from_a_checkout_and_name_extras_that_exist(page: Path) -> None:
    """Until there is a release, `pip install tsm2` finds nothing."""
    if "made" in page.parts:
        return
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"pip install (?:-c \S+ )?(?:-e )?(\S+)", text):
        wanted = target.strip("`'.,;)")
        name, _, extras = wanted.rstrip("]").partition("[")
        is_addition = name == "tsm2" and page.name == "install.md"
        assert name == "" or is_addition, f"{page.name}: pip install {wanted}"
        for extra in filter(None, extras.split(",")):
            assert extra in PROJECT["optional-dependencies"], f"{page.name}: {extra}"
