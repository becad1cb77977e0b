"""The backbone: sizes of images and of models, its surface, and what it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tsm2.errors import ParameterError
from tsm2.vision import VARIANTS, ViM2, ViM2Config, create_vim2, vim2_nano
from tsm2.vision.stages import DropPath

SMALL = ViM2Config(
    patch_size=2, dims=(16, 32), blocks=(1, 2), channel_expand=(2, 1), num_classes=5, d_state=4
)
PAPER_MILLIONS = {"vim2_tiny": 20, "vim2_small": 43, "vim2_base": 74}  # section 4, ImageNet table


def small(**settings: Any) -> ViM2:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ViM2(replace(SMALL, **{"zero_start": False, **settings})).eval()


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def millions(model: nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


@pytest.mark.parametrize("variant", ["vim2_small", "vim2_base"])
def test_small_and_base_have_the_papers_parameter_counts(variant: str) -> None:
    """With the paper's number of states, which it does not print, as with ours."""
    for states, within in ((16, 0.03), (4, 0.05)):
        model = create_vim2(variant, d_state=states, device="meta")
        assert millions(model) == pytest.approx(PAPER_MILLIONS[variant], rel=within)


def test_tiny_has_the_count_of_the_same_reading() -> None:
    """No reading of table 8 that fits Small and Base fits Tiny's 20 million."""
    assert millions(create_vim2("vim2_tiny", device="meta")) == pytest.approx(22.7, abs=0.1)
    with_16_states = create_vim2("vim2_tiny", d_state=16, device="meta")
    assert millions(with_16_states) == pytest.approx(24.0, abs=0.1)


def test_nano_has_under_six_million_parameters() -> None:
    assert millions(create_vim2("vim2_nano", device="meta")) < 6


@pytest.mark.parametrize(("height", "width"), [(32, 32), (50, 71), (2, 2), (3, 9), (1, 40)])
def test_images_of_any_size_and_shape_pass(height: int, width: int) -> None:
    model = small() if min(height, width) > 1 else small(patch_size=1)
    image = images(2, 3, height, width)
    assert model(image).shape == (2, 5)
    maps = model.forward_intermediates(image, intermediates_only=True)
    for each, info in zip(maps, model.feature_info, strict=True):
        down = info["reduction"]
        assert isinstance(each, Tensor)
        assert each.shape == (2, info["num_chs"], -(-height // down), -(-width // down))


def test_the_last_row_and_column_of_an_odd_image_count() -> None:
    model, image = small(), images(1, 3, 9, 11)
    for edge in ((..., 8, 4), (..., 4, 10)):
        changed = image.clone()
        changed[edge] += 1
        assert not torch.equal(model(changed), model(image))


def test_every_parameter_gets_a_gradient() -> None:
    model = small().train()
    model(images(2, 3, 16, 16)).square().sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


def test_a_fresh_model_passes_its_input_through_the_stages() -> None:
    model = small(zero_start=True)
    stage = model.stages[0]
    patches = model.stem(images(2, 3, 8, 8))
    torch.testing.assert_close(stage(patches), patches)


def test_maps_lie_channels_last_and_are_never_copied() -> None:
    model = small()
    for each in model.forward_intermediates(images(2, 3, 16, 16), intermediates_only=True):
        assert isinstance(each, Tensor)
        assert each.is_contiguous(memory_format=torch.channels_last)


def test_intermediates() -> None:
    model, image = small(), images(2, 3, 16, 16)
    last, maps = model.forward_intermediates(image)
    torch.testing.assert_close(last, model.forward_features(image))
    assert [each.shape[1] for each in maps] == [16, 32]

    only = model.forward_intermediates(
        image, indices=[0], stop_early=True, output_fmt="NHWC", intermediates_only=True
    )
    assert len(only) == 1
    torch.testing.assert_close(only[0], maps[0].permute(0, 2, 3, 1))

    normal = model.forward_intermediates(image, indices=1, norm=True, intermediates_only=True)
    torch.testing.assert_close(normal[0], last)
    torch.testing.assert_close(
        model.forward_intermediates(image, indices=[-1], intermediates_only=True)[0], maps[1]
    )


@pytest.mark.parametrize("indices", [[2], [-3], 3, 0, []])
def test_stages_that_do_not_exist_are_refused(indices: int | list[int]) -> None:
    with pytest.raises(ParameterError, match="indices must name some of the 2 stages"):
        small().forward_intermediates(images(1, 3, 8, 8), indices=indices)
    with pytest.raises(ParameterError, match="output_fmt"):
        small().forward_intermediates(images(1, 3, 8, 8), output_fmt="NLC")


def test_pruning_keeps_what_is_asked_for() -> None:
    model, image = small(), images(1, 3, 8, 8)
    wanted = model.forward_intermediates(image, indices=[0], intermediates_only=True)[0]
    assert model.prune_intermediate_layers([0]) == [0]
    assert len(model.stages) == len(model.feature_info) == 1
    assert model.num_features == 16
    assert model.num_classes == 0
    torch.testing.assert_close(model(image), wanted)


@pytest.mark.parametrize("num_classes", [0, 7])
@pytest.mark.parametrize("global_pool", ["avg", "max", ""])
def test_the_classifier_can_be_replaced(num_classes: int, global_pool: Any) -> None:
    model, image = small(), images(2, 3, 16, 16)
    model.reset_classifier(num_classes, global_pool)
    outputs = num_classes or 32
    assert model(image).shape == ((2, outputs) if global_pool else (2, outputs, 4, 4))
    features = model.forward_features(image)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == ((2, 32) if global_pool else (2, 32, 4, 4))
    if num_classes:
        assert model.get_classifier() is model.head
    with pytest.raises(ParameterError, match="global_pool must be"):
        model.reset_classifier(3, "median")  # type: ignore[arg-type]


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for enable in (False, True):
        model = small().train()
        model.set_grad_checkpointing(enable)
        model(images(2, 3, 16, 16)).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for got, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted)


def test_checkpointing_keeps_fewer_tensors() -> None:
    kept = []
    for enable in (False, True):
        model, sizes = small().train(), list[int]()
        model.set_grad_checkpointing(enable)

        def keep(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(images(2, 3, 16, 16))
        kept.append(sum(sizes))
    assert kept[1] < 0.5 * kept[0]


def test_drop_path_leaves_out_whole_images_and_keeps_the_mean() -> None:
    layer, x = DropPath(0.25), torch.ones(4000, 2, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dropped = layer.train()(x)
    per_image = dropped.flatten(1)
    assert bool((per_image == per_image[:, :1]).all())
    assert float(per_image.mean()) == pytest.approx(1.0, abs=0.03)
    assert sorted(set(per_image[:, 0].tolist())) == pytest.approx([0.0, 4 / 3])
    assert layer.eval()(x) is x


def test_drop_path_rises_to_its_rate_over_all_mixers() -> None:
    model = ViM2(replace(SMALL, drop_path_rate=0.4))
    rates = [module.rate for module in model.modules() if isinstance(module, DropPath)]
    assert len(rates) == 9
    assert rates[0] == 0.0
    assert rates[-1] == pytest.approx(0.4)
    assert rates == sorted(rates)


def test_rates_and_averaging_weights_are_not_decayed() -> None:
    model = small()
    names = dict(model.named_parameters())
    kept = model.no_weight_decay()
    assert kept <= set(names)
    for name in names:
        rate_like = name.endswith(("log_rate", "skip", "step.bias")) or ".average." in name
        assert (name in kept) == (rate_like or ".readout." in name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_are_made_in_the_precision_that_is_asked_for(dtype: torch.dtype) -> None:
    model = ViM2(replace(SMALL, backend="torch"), device="cpu", dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model(images(1, 3, 8, 8).to(dtype)).dtype == dtype
    model.reset_classifier(3)
    assert model.head.weight.dtype == dtype


def test_a_model_is_built_without_memory_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = ViM2(SMALL)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    model.reset_classifier(3)
    assert model.head.weight.device.type == "meta"
    filled = model.to_empty(device="cpu")
    filled.load_state_dict(ViM2(replace(SMALL, num_classes=3)).state_dict())
    assert filled(images(1, 3, 8, 8)).shape == (1, 3)


def test_autocast_keeps_the_scores_close() -> None:
    model, image = small(), images(2, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = model(image)
    torch.testing.assert_close(lowered.float(), model(image), atol=0.05, rtol=0.05)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # what torch's tracer does
def test_compiling_breaks_no_graph_forward_or_backward() -> None:
    model, image = small(blocks=(1, 1)).train(), images(2, 3, 16, 16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False)
    parameters = list(model.parameters())
    for got, wanted in zip(
        torch.autograd.grad(compiled(image).square().sum(), parameters),
        torch.autograd.grad(model(image).square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("image_shape", [(1, 1, 8, 8), (3, 8, 8), (1, 8, 8, 3)])
def test_other_channels_than_the_models_are_refused(image_shape: tuple[int, ...]) -> None:
    with pytest.raises(ParameterError, match=r"this model reads \(batch, 3, height, width\)"):
        small()(torch.zeros(image_shape))


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"images are torch.uint8.*image.float\(\) / 255"):
        small()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_an_image_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(ParameterError, match="3 x 50 pixels is smaller than one patch of 4 x 4"):
        small(patch_size=4)(images(1, 3, 3, 50))


def test_an_unknown_variant_or_setting_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ParameterError, match=r"no variant 'vim2_tine'.*did you mean 'vim2_tiny'"):
        create_vim2("vim2_tine")
    with pytest.raises(ParameterError, match=r"no setting 'in_chan'.*did you mean 'in_chans'"):
        vim2_nano(in_chan=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dims": (16,)}, "one entry per stage"),
        ({"patch_size": 0}, "patch_size must be whole and at least 1, got 0"),
        ({"dims": (16, -1)}, "dims must be whole"),
        ({"num_classes": -1}, "num_classes must be whole and at least 0"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate must lie in \[0, 1\)"),
        ({"global_pool": "mean"}, "global_pool must be one of"),
        ({"channel_mixer": "linear"}, "channel_mixer must be one of"),
        ({"image_conv": 2}, "image_conv must be an odd number"),
        ({"channel_group": 24}, r"channel_group \(24\) must divide the 32"),
        ({"averaging": "identity", "zero_start": True}, "zero_start=False"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        replace(SMALL, **settings)


def test_weights_of_another_variant_are_refused_key_by_key() -> None:
    model, other = small(), small(dims=(32, 32), num_classes=7)
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(other.state_dict())
    theirs = other.state_dict()
    differing = [
        name for name, value in model.state_dict().items() if value.shape != theirs[name].shape
    ]
    assert "head.weight" in differing
    assert [name for name in differing if name not in str(caught.value)] == []


def test_the_mlp_and_no_channel_mixer_are_settings() -> None:
    for kind, settings in (("mlp", {"averaging_learned": False}), ("none", {})):
        model = small(channel_mixer=kind, **settings)
        assert model(images(1, 3, 8, 8)).shape == (1, 5)
    assert millions(create_vim2("vim2_tiny", channel_mixer="mlp", device="meta")) > millions(
        create_vim2("vim2_tiny", device="meta")
    )


def test_every_variant_is_a_builder() -> None:
    import tsm2.vision

    for name, config in VARIANTS.items():
        assert getattr(tsm2.vision, name)(device="meta").config == config
