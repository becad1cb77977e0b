"""What the guide to the recipes shows runs, and what it names exists."""

import re
import shlex
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

timm = pytest.importorskip("timm", exc_type=ImportError)
for _needed in ("torchvision", "segmentation_models_pytorch", "torchmetrics", "pycocotools"):
    pytest.importorskip(_needed, exc_type=ImportError)

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "vision-recipes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```text\n(.*?)```", GUIDE, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("python examples/")
]
KINDS = {"classify": "Classification", "segment": "Segmentation", "detect": "Detection"}

sys.path.append(str(ROOT / "examples" / "vision"))
recipe: Any = import_module("recipe")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[1:3]))
def test_a_command_has_settings_that_its_recipe_takes(command: list[str]) -> None:
    script = Path(command[1])
    assert (ROOT / script).is_file()
    changes = [after for word, after in pairwise(command) if word == "--set"]
    kind = getattr(import_module(script.stem), KINDS[script.stem])
    settings = recipe.read_settings(kind, command[2], changes)
    parameters = import_module(script.stem).main.__annotations__
    assert {"out", "data", "changes"} <= parameters.keys()
    assert {word for word in command if word.startswith("--")} <= {"--out", "--data", "--set"}
    assert settings.epochs > 0


def test_there_are_commands_for_each_recipe() -> None:
    assert {Path(command[1]).stem for command in COMMANDS} == set(KINDS)


def test_the_table_of_classifiers_names_every_configuration_of_the_recipe() -> None:
    named = set(re.findall(r"^\| `([\w-]+)` \|", GUIDE, re.MULTILINE))
    classify: Any = import_module("classify")
    assert named == {
        file.stem
        for file in recipe.CONFIGS.glob("*.toml")
        if f'layout = "{layout_of(file)}"' in file.read_text()
        and layout_of(file) in classify.LAYOUTS
    }


def layout_of(file: Path) -> str:
    found = re.search(r'^layout = "(.*)"', file.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_python_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = timm.create_model("vim2_nano", dims=(16, 32, 48, 64), num_classes=10)
    timm.models.save_for_hf(model, str(tmp_path / "runs/digits/model"), safe_serialization=True)
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 4
    names: dict[str, Any] = {}
    shapes = []
    for block in BLOCKS:
        exec(compile(block, "vision-recipes.md", "exec"), names)
        shapes.append(tuple(names["scores"].shape) if "scores" in names else None)
    assert shapes == [None, *[(1, 12, 64, 96)] * 3]
    assert [found.keys() for found in names["found"]] == [
        {"boxes", "labels", "scores", "masks"}
    ] * 2
