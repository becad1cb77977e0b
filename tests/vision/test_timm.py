"""timm's own model tests, for our variants; skipped where timm is missing."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tsm2.errors import ParameterError
from tsm2.vision import ViM2

timm = pytest.importorskip("timm")
pytest.importorskip("tsm2.vision.timm")

from timm.models import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    create_feature_extractor,
    save_for_hf,
)
from timm.optim import create_optimizer_v2  # noqa: E402  # pyright: ignore[reportMissingImports]

NAMES = ["vim2_base", "vim2_nano", "vim2_small", "vim2_tiny"]
CHEAP: dict[str, Any] = {
    "blocks": (1, 1, 1, 1)
}  # so many mixers are enough to see how they are connected


def create(name: str = "vim2_nano", **settings: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(name, **settings)


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_the_import_registers_the_variants() -> None:
    assert timm.list_models("vim2*") == NAMES
    assert all(timm.is_model(name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_default_cfgs_name_modules_that_exist(name: str) -> None:
    model = create(name, device="meta")
    cfg = model.default_cfg
    assert cfg["architecture"] == name
    assert cfg["num_classes"] == model.num_classes == 1000
    names = dict(model.named_modules())
    assert cfg["first_conv"] in names
    assert cfg["classifier"] in names
    assert model.get_classifier() is names[cfg["classifier"]]
    pixels, whole = cfg["input_size"][-1], model.feature_info[-1]["reduction"]
    assert cfg["pool_size"] == (pixels // whole, pixels // whole)
    assert model.num_features == model.head_hidden_size == model.feature_info[-1]["num_chs"]
    assert [info["module"] in names for info in model.feature_info] == [True] * 4


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward(name: str) -> None:
    pixels = 32 if name == "vim2_nano" else 64
    model = create(name, num_classes=42, **CHEAP).train()
    scores = model(images(2, 3, pixels, pixels))
    assert scores.shape == (2, 42)
    assert bool(scores.isfinite().all())
    scores.mean().backward()
    assert [n for n, parameter in model.named_parameters() if parameter.grad is None] == []


def test_forward_features_head_and_reset() -> None:
    model = create(**CHEAP).eval()
    image = images(2, 3, 32, 32)
    features = model.forward_features(image)
    assert features.shape == (2, model.num_features, 2, 2)
    torch.testing.assert_close(model.forward_head(features), model(image))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
    model.reset_classifier(0)
    assert model(image).shape == (2, model.num_features)
    model.reset_classifier(0, "")
    assert model(image).shape == features.shape
    pooled = create(num_classes=0, **CHEAP)
    assert pooled(image).shape == (2, pooled.num_features)
    unpooled = create(num_classes=0, global_pool="", **CHEAP)
    assert unpooled(image).shape == features.shape


@pytest.mark.parametrize("feature_cls", ["list", "hook", "getter", "fx", None])
def test_features_only(feature_cls: str | None) -> None:
    settings = CHEAP | ({} if feature_cls is None else {"feature_cls": feature_cls})
    model = create(features_only=True, out_indices=(0, 2), **settings).eval()
    image = images(1, 3, 48, 40)
    whole = create(**CHEAP).eval()
    wanted = whole.forward_intermediates(image, indices=[0, 2], intermediates_only=True)
    for got, each, channels, down in zip(
        model(image),
        wanted,
        model.feature_info.channels(),
        model.feature_info.reduction(),
        strict=True,
    ):
        assert got.shape == (1, channels, 48 // down, 40 // down)
        torch.testing.assert_close(got, each)


def test_intermediates_are_the_features() -> None:
    model = create(**CHEAP).eval()
    image = images(1, 3, 32, 32)
    last, maps = model.forward_intermediates(image)
    features = create(features_only=True, **CHEAP).eval()(image)
    torch.testing.assert_close(maps, features)
    torch.testing.assert_close(last, model.forward_features(image))


@pytest.mark.parametrize("in_chans", [1, 4])
def test_other_channels_and_odd_sizes(in_chans: int) -> None:
    model = create(in_chans=in_chans, num_classes=3, **CHEAP)
    assert model(images(1, in_chans, 50, 71)).shape == (1, 3)


def test_the_meta_device_and_precisions() -> None:
    with torch.device("meta"):
        model = create("vim2_base", features_only=True)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    lowered = create(device="cpu", dtype=torch.bfloat16, **CHEAP)
    assert {parameter.dtype for parameter in lowered.parameters()} == {torch.bfloat16}


def test_graphs_of_torch_fx_have_the_stages_as_nodes() -> None:
    model = create(**CHEAP).eval()
    extractor = create_feature_extractor(model, {"stages.1": "map"})
    image = images(1, 3, 32, 32)
    wanted = model.forward_intermediates(image, indices=[1], intermediates_only=True)
    torch.testing.assert_close(extractor(image)["map"], wanted[0])


def test_layer_decay_gives_every_mixer_its_own_scale_and_rates_no_decay() -> None:
    model = create(**CHEAP)
    optimizer = create_optimizer_v2(model, opt="adamw", weight_decay=0.05, layer_decay=0.8)
    scales = {group["lr_scale"] for group in optimizer.param_groups}
    assert len(scales) == 1 + 4 * 3 + 1  # the stem, the mixers, the head
    scale_of = {
        id(parameter): group["lr_scale"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    named = dict(model.named_parameters())
    for stage in range(4):
        last = scale_of[id(named[f"stages.{stage}.steps.2.average.token"])]
        assert scale_of[id(named[f"stages.{stage}.readout.token"])] == last
    plain = create_optimizer_v2(model, opt="adamw", weight_decay=0.05)
    undecayed = {
        id(parameter)
        for group in plain.param_groups
        if not group["weight_decay"]
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        assert (id(parameter) in undecayed) == (parameter.ndim <= 1 or name.endswith("log_rate")), (
            name
        )


def test_drop_path_and_dropout_reach_the_model() -> None:
    model = create(drop_path_rate=0.3, drop_rate=0.2, **CHEAP)
    assert model.config.drop_path_rate == 0.3
    assert model.head_drop.p == 0.2


def test_a_folder_of_timm_gives_the_same_model_back(tmp_path: Path) -> None:
    model = create(num_classes=7, **CHEAP).eval()
    save_for_hf(model, tmp_path, model_args=CHEAP)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    image = images(1, 3, 32, 32)
    assert torch.equal(again(image), model(image))


def test_one_folder_is_read_by_timm_and_by_us(tmp_path: Path) -> None:
    model = create(num_classes=7, drop_path_rate=0.1, **CHEAP).eval()
    model.save_pretrained(tmp_path)
    image = images(1, 3, 32, 32)
    for again in (
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True),
        ViM2.from_pretrained(tmp_path),
    ):
        assert torch.equal(again.eval()(image), model(image))
        assert again.config == model.config
    tuned = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=3)
    assert tuned(image).shape == (1, 3)
    assert torch.equal(tuned.norm.weight, model.norm.weight)

    from_timm = tmp_path / "timm"
    save_for_hf(model, from_timm, model_args=CHEAP, safe_serialization=True)
    assert torch.equal(ViM2.from_pretrained(from_timm)(image), model(image))


@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_dilated_backbone_is_refused(output_stride: int) -> None:
    with pytest.raises(ParameterError, match=f"output_stride={output_stride} is not supported"):
        create("vim2_tiny", features_only=True, output_stride=output_stride, device="meta")


def test_the_whole_stride_is_no_dilation() -> None:
    assert create("vim2_tiny", output_stride=32, device="meta").num_classes == 1000


def test_a_pair_of_torch_and_torchvision_that_does_not_fit_is_named(tmp_path: Path) -> None:
    broken = "raise RuntimeError('operator torchvision::nms does not exist')\n"
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(broken)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "try:\n    import tsm2.vision.timm\n"
        "except ImportError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "operator torchvision::nms does not exist" in run.stdout
    assert "pip install --upgrade torch torchvision timm" in run.stdout
