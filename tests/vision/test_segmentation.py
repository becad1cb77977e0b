"""Segmenters of other libraries over ViM2: segmentation_models_pytorch's and transformers'."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_folders
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

timm = pytest.importorskip("timm", exc_type=ImportError)
pytest.importorskip("tsm2.vision.timm")

SMALL: dict[str, Any] = {"dims": (16, 32, 48, 64), "blocks": (1, 1, 1, 1), "d_state": 4}


def labelled_images(folder: Path) -> tuple[Tensor, Tensor]:
    """Two of CamVid's images, smaller, with a class per pixel; 11 is to be ignored."""
    files = sorted((folder / "train").glob("*.png"))[:2]
    images = np.stack([image_folders.pixels(file) for file in files])
    labels = np.stack([image_folders.pixels(folder / "trainannot" / file.name) for file in files])
    step = images.shape[1] // 72
    part = slice(None), slice(0, 64 * step, step), slice(0, 96 * step, step)
    return (
        torch.tensor(images[part]).permute(0, 3, 1, 2) / 255,
        torch.tensor(labels[part]).long(),
    )


def train(
    scores: Callable[[Tensor], Tensor],
    model: torch.nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
) -> list[float]:
    """Train on the same images again and again; return the loss of each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        loss = functional.cross_entropy(scores(images), labels, ignore_index=11)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_upernet_over_vim2_learns_camvid(tmp_path: Path) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch", exc_type=ImportError)
    torch.manual_seed(0)
    model = smp.create_model(
        "upernet", encoder_name="tu-vim2_tiny", encoder_weights=None, classes=11, **SMALL
    )
    images, labels = labelled_images(image_folders.camvid(tmp_path))
    losses = train(model, model, images, labels, steps=10)
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(
    ("encoder", "decoder", "options"),
    [
        ("vim2_tiny", "upernet", {}),
        ("vim2_tiny", "fpn", {}),
        ("vim2_tiny", "unet", {}),
        ("vim2_tiny", "unetplusplus", {}),
        ("vim2_tiny", "segformer", {}),
        ("vim2_nano", "upernet", {"encoder_depth": 4}),
        ("vim2_nano", "fpn", {"encoder_depth": 4, "upsampling": 2}),
        ("vim2_nano", "unet", {"encoder_depth": 4, "decoder_channels": (64, 32, 16, 8)}),
    ],
)
def test_decoders_take_the_maps_by_the_name_of_the_encoder(
    encoder: str, decoder: str, options: dict[str, Any]
) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch", exc_type=ImportError)
    model = smp.create_model(
        decoder,
        encoder_name=f"tu-{encoder}",
        encoder_weights=None,
        classes=3,
        **options,
        **SMALL,
    )
    model.eval()
    assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 3, 64, 96)


def test_a_decoder_that_dilates_is_refused() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch", exc_type=ImportError)
    with pytest.raises(ValueError, match="output_stride=8 is not supported"):
        smp.create_model(
            "deeplabv3plus",
            encoder_name="tu-vim2_tiny",
            encoder_output_stride=8,
            encoder_weights=None,
        )


def test_transformers_upernet_over_vim2_learns_camvid(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    torch.manual_seed(0)
    backbone = transformers.TimmBackboneConfig(
        backbone="vim2_nano", out_indices=(0, 1, 2, 3), use_pretrained_backbone=False
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone,
        hidden_size=32,
        num_labels=11,
        use_auxiliary_head=False,
    )
    segmenter = transformers.UperNetForSemanticSegmentation(config)
    images, labels = labelled_images(image_folders.camvid(tmp_path))
    losses = train(lambda pixels: segmenter(pixels).logits, segmenter, images, labels, steps=12)
    assert losses[-1] < 0.9 * losses[0]
