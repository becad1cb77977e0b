"""Detectors train, judge images of any size, and refuse backbones that do not fit."""

from importlib import import_module
from pathlib import Path
from typing import Any

import image_folders
import pytest
import torch
from torch import Tensor

from tsm2.errors import ParameterError

torchvision = pytest.importorskip("torchvision", exc_type=ImportError)
timm = pytest.importorskip("timm", exc_type=ImportError)
detection: Any = import_module("tsm2.vision.detection")

BACKBONE = "test_convnext"  # timm's own smallest
BUILDERS = {name: getattr(detection, name) for name in ("mask_rcnn", "faster_rcnn", "retinanet")}


def small_vim2() -> Any:
    sizes = {"dims": (16, 32, 48, 64), "blocks": (1, 1, 1, 1), "d_state": 4}
    return timm.create_model("vim2_tiny", features_only=True, **sizes)


def images_and_targets() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Two images of unequal sizes with a bright square each."""
    images, targets = [], []
    for height, width in ((64, 96), (96, 64)):
        mask = torch.zeros(1, height, width, dtype=torch.bool)
        mask[0, 10:42, 20:52] = True
        images.append(mask.float().expand(3, -1, -1))
        boxes = torch.tensor([[20.0, 10.0, 52.0, 42.0]])
        targets.append({"boxes": boxes, "labels": torch.tensor([1]), "masks": mask})
    return images, targets


@pytest.mark.parametrize("name", BUILDERS)
def test_a_detector_trains_and_judges_images_of_unequal_sizes(name: str) -> None:
    torch.manual_seed(0)
    model = BUILDERS[name](small_vim2(), num_classes=2, min_size=64, max_size=96)
    images, targets = images_and_targets()
    losses = model(images, targets)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    body = model.get_submodule("backbone.body")
    assert [name for name, weight in body.named_parameters() if weight.grad is None] == []
    assert ("loss_mask" in losses) == (name == "mask_rcnn")

    model.eval()
    with torch.inference_mode():
        found = model([torch.rand(3, 50, 71), torch.rand(3, 64, 64)])
    assert len(found) == 2
    assert {"boxes", "labels", "scores"} <= found[0].keys()


@pytest.mark.parametrize("top", ["pool", "convolve"])
def test_the_strides_are_those_of_the_levels(top: Any) -> None:
    pyramid = detection.PyramidBackbone(BACKBONE, levels=3, top=top)
    levels = list(pyramid(torch.zeros(1, 3, 256, 256)).values())
    assert [256 // level.shape[-1] for level in levels] == pyramid.strides
    assert {level.shape[1] for level in levels} == {pyramid.out_channels}


def test_levels_of_sizes_that_divide_by_nothing_still_fit() -> None:
    levels = detection.PyramidBackbone(BACKBONE, levels=4, top="pool")(torch.zeros(1, 3, 75, 101))
    assert len(levels) == 5


def test_maps_with_channels_last_are_turned() -> None:
    sizes = {"depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": (1, 2, 4, 8), "img_size": 64}
    swin = timm.create_model("swin_tiny_patch4_window7_224", features_only=True, **sizes)
    assert swin.output_fmt == "NHWC"
    levels = list(
        detection.PyramidBackbone(swin, levels=4, top="pool")(torch.zeros(1, 3, 64, 64)).values()
    )
    assert levels[0].shape == (1, 256, 16, 16)


@pytest.mark.parametrize("name", ["faster_rcnn", "retinanet"])
def test_anchors_are_torchvisions_own_with_strides_of_4_to_32(name: str) -> None:
    ours = BUILDERS[name](BACKBONE, num_classes=2)
    theirs = {
        "faster_rcnn": torchvision.models.detection.fasterrcnn_resnet50_fpn,
        "retinanet": torchvision.models.detection.retinanet_resnet50_fpn,
    }[name](weights=None, weights_backbone=None, num_classes=2)
    anchors = torchvision.models.detection.anchor_utils.AnchorGenerator
    found, wanted = (
        next(part for part in model.modules() if isinstance(part, anchors))
        for model in (ours, theirs)
    )
    assert (found.sizes, found.aspect_ratios) == (wanted.sizes, wanted.aspect_ratios)


def test_options_reach_torchvision() -> None:
    model = detection.mask_rcnn(BACKBONE, num_classes=3, box_detections_per_img=7)
    heads: Any = model.roi_heads
    assert heads.detections_per_img == 7
    assert heads.box_predictor.cls_score.out_features == 3


def test_a_backbone_with_options_of_its_own_is_taken_as_it_is() -> None:
    body = timm.create_model(BACKBONE, features_only=True, in_chans=1)
    model = detection.faster_rcnn(
        body, num_classes=2, min_size=64, max_size=64, image_mean=[0.5], image_std=[0.5]
    )
    assert model.get_submodule("backbone.body") is body
    model.eval()([torch.rand(1, 64, 64)])


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("vim2_tyni", r"no backbone 'vim2_tyni'. Near it: .*vim2_tiny"),
        ("qqqqqqqq", r"no backbone 'qqqqqqqq'. timm.list_models"),
        ("test_vit", r"strides \[16, 16, 16\].* needs 4, each twice the one before"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused_by_name(backbone: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        detection.mask_rcnn(backbone, num_classes=2)


def test_too_few_maps_are_refused() -> None:
    body = timm.create_model(BACKBONE, features_only=True, out_indices=(2, 3))
    with pytest.raises(ParameterError, match=r"strides \[16, 32\], but this detector needs 3"):
        detection.retinanet(body, num_classes=2)


def test_a_classifier_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"ConvNeXt gives none.*features_only=True"):
        detection.mask_rcnn(timm.create_model(BACKBONE), num_classes=2)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_count_without_the_background_is_refused(name: str) -> None:
    with pytest.raises(ParameterError, match=r"counts the background.* at least 2, got 1"):
        BUILDERS[name](BACKBONE, num_classes=1)


def test_mask_rcnn_over_vim2_trains_on_nuclei_and_is_judged_by_torchmetrics(tmp_path: Path) -> None:
    metrics = pytest.importorskip("torchmetrics.detection")
    folder = image_folders.nuclei(tmp_path) / "train"
    images, targets = [], []
    for file in sorted((folder / "images").glob("*.png"))[:2]:
        image = torch.from_numpy(image_folders.pixels(file).copy())[..., :3]
        images.append(image.permute(2, 0, 1) / 255)
        numbers = torch.from_numpy(image_folders.pixels(folder / "instances" / file.name).copy())
        masks = numbers == torch.unique(numbers)[1:, None, None]
        boxes = torchvision.ops.masks_to_boxes(masks) + torch.tensor([0.0, 0.0, 1.0, 1.0])
        labels = torch.ones(len(masks), dtype=torch.int64)
        targets.append({"boxes": boxes, "labels": labels, "masks": masks})

    torch.manual_seed(0)
    model = detection.mask_rcnn(
        small_vim2(),
        num_classes=2,
        min_size=128,
        max_size=128,
        box_detections_per_img=10,
        rpn_post_nms_top_n_train=100,
        box_batch_size_per_image=32,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(8):
        loss = torch.stack(list(model(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]

    model.eval()
    with torch.inference_mode():
        found = [each | {"masks": each["masks"][:, 0] > 0.5} for each in model(images)]
    precision = metrics.MeanAveragePrecision(iou_type=("bbox", "segm"))
    precision.update(found, targets)
    assert 0 <= float(precision.compute()["segm_map"]) <= 1
    precision.reset()
    exact = [each | {"scores": torch.ones(len(each["labels"]))} for each in targets]
    precision.update(exact, targets)
    assert float(precision.compute()["bbox_map"]) > 0.99
