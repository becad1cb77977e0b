"""Selections are the step lengths of the scans, and the picture shows them where they were."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tsm2.errors import ParameterError
from tsm2.networks.mixers import DirectedScan, SelectiveMixer
from tsm2.vision import Selection, ViM2, ViM2Config, inspect, plot_selection

CONFIG = ViM2Config(
    patch_size=2, dims=(16, 32), blocks=(1, 1), channel_expand=(2, 1), num_classes=5, d_state=4
)


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model() -> ViM2:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ViM2(replace(CONFIG, zero_start=False))


@pytest.fixture(scope="module")
def selections(model: ViM2) -> list[Selection]:
    return inspect(model, images(2, 3, 12, 10))


def test_every_mixer_has_an_entry_of_its_map(selections: list[Selection]) -> None:
    kinds = ["token", "token", "channel"]
    assert [(each.stage, each.mixer, each.kind) for each in selections] == [
        (stage, place, kind) for stage in (0, 1) for place, kind in enumerate(kinds)
    ]
    for each in selections:
        height, width = ((6, 5), (3, 3))[each.stage]
        assert each.patches.shape == (2, height, width)
        assert bool((each.steps > 0).all())
        if each.kind == "token":
            assert each.orders == ("rows", "rows reversed", "columns", "columns reversed")
            assert each.steps.shape == (2, 4, height, width)
            with pytest.raises(ParameterError, match="selects patches"):
                _ = each.groups
        else:
            assert each.orders == ("groups", "groups reversed")
            assert each.steps.shape == (2, 2, height, width, 2)
            assert each.groups.shape == (2, 2)


def test_the_steps_are_those_that_the_scan_takes(model: ViM2) -> None:
    """A mixer's steps, computed once more by hand from what went into it."""
    image = images(1, 3, 8, 8)
    model.eval()
    (first, *_) = inspect(model, image)
    step = model.stages[0].get_submodule("steps.0")
    mixer = step.get_submodule("branch.mixer")
    assert isinstance(mixer, SelectiveMixer)
    assert mixer.image_conv is not None
    patches = model.stem(image).permute(0, 2, 3, 1)
    value = mixer.project_in(step.get_submodule("branch.norm")(patches))
    value = functional.silu(mixer.image_conv(value.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    for number, scan in enumerate(mixer.scans):
        assert isinstance(scan, DirectedScan)
        rank = scan.select(value)[..., : scan.sizes[0]]
        wanted = functional.softplus(scan.step(rank)).mean(-1)
        torch.testing.assert_close(first.steps[:, number], wanted)


def test_inspecting_leaves_no_trace(model: ViM2) -> None:
    model.train()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    inspect(model, images(1, 3, 8, 8))
    assert model.training
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
    with pytest.raises(ParameterError, match="this model reads"):
        inspect(model, images(1, 1, 8, 8))
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())


def test_an_mlp_selects_nothing() -> None:
    model = ViM2(replace(CONFIG, channel_mixer="mlp"))
    assert {each.kind for each in inspect(model, images(1, 3, 8, 8))} == {"token"}


@pytest.mark.parametrize("shape", [(3, 12, 10), (1, 12, 10), (12, 10)])
def test_the_picture_has_a_panel_per_mixer(
    selections: list[Selection], shape: tuple[int, ...]
) -> None:
    pytest.importorskip("matplotlib")
    axes = plot_selection(images(*shape), selections, index=1).axes
    panels = [each for each in axes if each.get_title()]  # the others are scales of colours
    assert len(panels) == 6
    for panel, each in zip(panels, selections, strict=True):
        background, shown = panel.get_images()
        assert list(background.get_extent()) == list(shown.get_extent()) == [0, 10, 12, 0]
        drawn = torch.as_tensor(shown.get_array()).float()
        torch.testing.assert_close(drawn, each.patches[1])


def test_what_cannot_be_drawn_is_refused(selections: list[Selection]) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ParameterError, match="no selections to draw"):
        plot_selection(images(3, 8, 8), [])
    with pytest.raises(ParameterError, match="one of the 2 images, got 2"):
        plot_selection(images(3, 8, 8), selections, index=2)
    with pytest.raises(ParameterError, match="one image is needed"):
        plot_selection(images(2, 3, 8, 8), selections)


def test_a_missing_matplotlib_is_named() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = sys.modules['matplotlib.figure'] = None\n"
        "import torch\nfrom tsm2.errors import ParameterError\n"
        "from tsm2.vision import plot_selection\n"
        "try:\n    plot_selection(torch.zeros(4, 4), [])\n"
        "except ParameterError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'tsm2[plot]'" in run.stdout
