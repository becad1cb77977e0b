"""Train a semantic segmenter over an image backbone, as one command that can be killed.

    python examples/vision/segment.py camvid --data CamVid --out runs/camvid
    python examples/vision/segment.py ade20k --data ADEChallengeData2016 --out runs/ade20k

Layouts of --data: "camvid" (`train/`, `trainannot/`, `val/`, `valannot/`) and "ade20k"
(`images/training/`, `annotations/training/`, and the same for `validation`). An image and its
labels, an 8-bit PNG, have the same name. The decoder is one of segmentation_models_pytorch. A
backbone that `classify.py` trained goes in by its folder, with
``--set 'model="local-dir:runs/imagenet/model"' --set model_options.encoder_weights=true``.
"""

from recipe import (
    Changes,
    Config,
    Data,
    Device,
    Out,
    Settings,
    Training,
    at_most,
    begin,
    command,
    folder_of,
    keep_result,
    options_of,
    read_settings,
    require_known,
    write_weights,
)

# isort: split
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from torchvision import tv_tensors
from torchvision.transforms import v2

from tsm2.errors import DatasetError, ParameterError

LAYOUTS = {
    "camvid": {"train": ("train", "trainannot"), "val": ("val", "valannot")},
    "ade20k": {
        "train": ("images/training", "annotations/training"),
        "val": ("images/validation", "annotations/validation"),
    },
}
IGNORED = 255
"""Label of a pixel that neither trains nor counts."""


@dataclass(frozen=True, kw_only=True)
class Segmentation(Settings):
    """What this recipe is told beside the common settings; `model_options` go to smp's model."""

    decoder: str = "upernet"
    """As `segmentation_models_pytorch.create_model` names it."""
    classes: int
    """Classes, without what is ignored."""
    first_label: int = 0
    """Value of the first class in the files."""
    ignored_label: int | None = None
    """Value in the files that neither trains nor counts."""
    crop: list[int]
    """Height and width of what the model sees in training; multiples of 32."""
    shorter_side: list[int]
    """Range that an image's shorter side is resized into before a crop is taken."""
    held_out_side: int | None = None
    """Shorter side of the images that are judged; None leaves their size."""
    jitter: dict[str, Any] = field(default_factory=dict)
    """Of `torchvision.transforms.v2.ColorJitter`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known(self.layout, LAYOUTS, "layout")
        if self.classes < 2:
            raise ParameterError(f"classes must be at least 2, got {self.classes}.")
        if len(self.crop) != 2 or any(side < 32 or side % 32 for side in self.crop):
            raise ParameterError(f"crop must be two multiples of 32, got {self.crop}.")
        if len(self.shorter_side) != 2 or not 0 < self.shorter_side[0] <= self.shorter_side[1]:
            raise ParameterError(f"shorter_side must be a range, got {self.shorter_side}.")


class LabelledImages(Dataset[tuple[Tensor, Tensor]]):
    """Images with a class per pixel: floats (3, H, W) and integers (H, W)."""

    def __init__(self, images: Path, labels: Path, settings: Segmentation, view: nn.Module) -> None:
        self.settings, self.view = settings, view
        self.images = sorted(
            file for file in images.iterdir() if file.suffix.lower() in {".png", ".jpg", ".jpeg"}
        )
        self.labels = [labels / f"{file.stem}.png" for file in self.images]
        if not self.images:
            raise DatasetError(f"{images} has no .png or .jpg images.")
        for file in self.labels:
            if not file.exists():
                raise DatasetError(f"{file} is missing: an image needs labels of the same name.")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = tv_tensors.Image(Image.open(self.images[index]).convert("RGB"))
        labels = tv_tensors.Mask(self._read_labels(self.labels[index]))
        if image.shape[-2:] != labels.shape:
            raise DatasetError(
                f"{self.labels[index]} has {tuple(labels.shape)} pixels, its image "
                f"{tuple(image.shape[-2:])}."
            )
        return self.view(image, labels)

    def _read_labels(self, file: Path) -> Tensor:
        """Read the classes, counted from 0, with IGNORED for what is to be ignored."""
        settings = self.settings
        values = np.asarray(Image.open(file)).astype(np.int64)
        if values.ndim != 2:
            raise DatasetError(f"{file} is a colour image; labels are one 8-bit value per pixel.")
        classes = values - settings.first_label
        ignored = values == settings.ignored_label
        strange = np.unique(values[~ignored & ((classes < 0) | (classes >= settings.classes))])
        if len(strange):
            raise DatasetError(
                f"{file} has the labels {strange[:5].tolist()}; with classes={settings.classes}, "
                f"first_label={settings.first_label} they go from {settings.first_label} to "
                f"{settings.first_label + settings.classes - 1}, and {settings.ignored_label} is "
                f"ignored. Set what fits the files."
            )
        return torch.from_numpy(np.where(ignored, IGNORED, classes))


def training_view(settings: Segmentation) -> nn.Module:
    """Resize, crop, mirror and colour at random."""
    low, high = settings.shorter_side
    with options_of("[jitter]"):
        jitter = v2.ColorJitter(**settings.jitter)
    fill = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORED}
    return v2.Compose(
        [
            v2.RandomResize(low, high + 1, antialias=True),
            v2.RandomCrop(settings.crop, pad_if_needed=True, fill=fill),
            v2.RandomHorizontalFlip(),
            jitter,
            *_as_the_model_reads(),
        ]
    )


def held_out_view(settings: Segmentation) -> nn.Module:
    """Resize the image as set; its labels keep their size."""
    side = settings.held_out_side
    resize = [] if side is None else [v2.Resize(side, antialias=True)]
    image = v2.Compose([*resize, *_as_the_model_reads()])
    return _OnImage(image)


class _OnImage(nn.Module):
    """Transform the image of a pair and leave its labels."""

    def __init__(self, view: nn.Module) -> None:
        super().__init__()
        self.view = view

    def forward(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.view(image), labels.as_subclass(Tensor)


def _as_the_model_reads() -> list[nn.Module]:
    """Values about zero, with ImageNet's mean and deviation, as timm's weights expect them."""
    return [
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        v2.ToPureTensor(),
    ]


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the pixels that count; zero where none does."""
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)


def class_scores(model: nn.Module, image: Tensor, size: torch.Size) -> Tensor:
    """Score the classes of a whole image, (1, 3, H, W), at the size of its labels."""
    height, width = image.shape[-2:]
    padded = functional.pad(image, (0, -width % 32, 0, -height % 32))  # what decoders need
    scores = model(padded)[..., :height, :width]
    return functional.interpolate(scores, size, mode="bilinear", align_corners=False)


def main(
    config: Config,
    out: Out,
    data: Data = None,
    changes: Changes = None,
    device: Device = "auto",
) -> None:
    """Train a semantic segmenter."""
    settings = read_settings(Segmentation, config, changes)
    parts = LAYOUTS[settings.layout]
    folder = folder_of(data, settings.layout, *parts["train"], *parts["val"])
    views = {"train": training_view(settings), "val": held_out_view(settings)}
    train, val = (
        LabelledImages(folder / images, folder / labels, settings, views[part])
        for part, (images, labels) in parts.items()
    )
    accelerator = begin(settings, out, device)
    options = {"encoder_weights": None} | settings.model_options
    with options_of("decoder, model or [model_options]"):
        model = smp.create_model(
            settings.decoder,
            encoder_name=f"tu-{settings.model}",
            classes=settings.classes,
            **options,
        )

    def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return pixel_loss(model(images), labels)

    held_out = accelerator.prepare(
        DataLoader(at_most(val, settings), 1, num_workers=settings.workers)  # sizes may differ
    )

    def evaluate(model: nn.Module) -> dict[str, float]:
        ignoring = {"num_classes": settings.classes, "ignore_index": IGNORED}
        overlap = MulticlassJaccardIndex(**ignoring).to(accelerator.device)
        accuracy = MulticlassAccuracy(**ignoring, average="micro").to(accelerator.device)
        for image, labels in held_out:
            found = class_scores(model, image, labels.shape[-2:]).argmax(1)
            overlap.update(found, labels)
            accuracy.update(found, labels)
        return {"mean_iou": float(overlap.compute()), "pixel_accuracy": float(accuracy.compute())}

    training = Training(
        model,
        at_most(train, settings),
        settings,
        accelerator,
        out,
        loss_of=loss_of,
        evaluate=evaluate,
    )
    keep_result(training, training.run(), decoder=settings.decoder, classes=settings.classes)
    write_weights(training)


if __name__ == "__main__":
    command(main)
