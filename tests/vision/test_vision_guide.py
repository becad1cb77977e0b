"""What the guide shows runs as it stands there, and its table is the models'."""

import re
from pathlib import Path

import pytest

from tsm2.vision import VARIANTS, create_vim2
from tsm2.vision.stages import MixerStep

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "vision.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, sign in (("timm", "import timm"), ("matplotlib", "plot_selection")):
        if sign in BLOCKS[number]:
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], "vision.md", "exec"), {})


@pytest.mark.parametrize("name", VARIANTS)
def test_the_table_counts_right(name: str) -> None:
    row = next(line for line in GUIDE.splitlines() if line.startswith(f"| `{name}`"))
    _, _, patch, widths, mixers, count, _ = (cell.strip() for cell in row.strip("|").split("|"))
    model, config = create_vim2(name, device="meta"), VARIANTS[name]
    assert int(patch) == config.patch_size
    assert tuple(int(width) for width in widths.split(",")) == config.dims
    kinds = [module.kind for module in model.modules() if isinstance(module, MixerStep)]
    assert mixers == f"{kinds.count('token')} / {kinds.count('channel')}"
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(float(count), abs=0.06)
