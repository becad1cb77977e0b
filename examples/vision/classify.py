"""Train an image classifier, from scratch or from weights, as one command that can be killed.

    python examples/vision/classify.py digits --out runs/digits
    python examples/vision/classify.py fashion-mnist --data fashion-mnist --out runs/fashion
    python examples/vision/classify.py cifar10 --data cifar10 --out runs/cifar10
    accelerate launch examples/vision/classify.py imagenet --data imagenet --out runs/imagenet

Layouts of --data: "digits" (scikit-learn's, no folder), "fashion-mnist" (the four published
files), "cifar10" (the published folder, or folders of classes), "folder" (`train/CLASS/` and
`val/CLASS/`, as ImageNet's). The trained model is in `model/` of the run's folder:
``timm.create_model("local-dir:runs/digits/model", pretrained=True)``.
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
)

# isort: split
import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
from PIL import Image
from timm.data import ImageDataset, Mixup, create_transform
from timm.models import save_for_hf
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision.datasets import CIFAR10

from tsm2.errors import DatasetError, ParameterError


@dataclass(frozen=True, kw_only=True)
class Classification(Settings):
    """What this recipe is told beside the common settings."""

    image_size: int
    """Height and width that the model sees."""
    channels: int = 3
    """1 for grey images, 3 for coloured ones."""
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    """Of each channel, values in [0, 1]; the default is ImageNet's."""
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    """Of each channel."""
    label_smoothing: float = 0.0
    """Share of a label that is spread over all classes."""
    augment: dict[str, Any] = field(default_factory=dict)
    """Of `timm.data.create_transform` in training."""
    view: dict[str, Any] = field(default_factory=dict)
    """Of `timm.data.create_transform` in evaluation."""
    mixup: dict[str, Any] = field(default_factory=dict)
    """Of `timm.data.Mixup`; empty for no mixing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known(self.layout, LAYOUTS, "layout")
        if not self.channels == len(self.mean) == len(self.std):
            raise ParameterError(
                f"mean and std need a value for each of {self.channels} channels, got "
                f"{self.mean} and {self.std}."
            )
        if self.mixup and self.batch_size % (2 * self.accumulate):
            raise ParameterError(
                f"[mixup] mixes pairs, so batch_size / accumulate must be even, got "
                f"{self.batch_size} / {self.accumulate}."
            )


# --- images ---------------------------------------------------------------------------------------


class ArrayImages(Dataset[tuple[Any, int]]):
    """Images that lie in memory, (N, H, W) bytes."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.images[index])
        return self.transform(image) if self.transform else image, int(self.labels[index])


def digits(settings: Settings, data: Path | None) -> tuple[Any, Any, int]:
    """Take scikit-learn's 1797 digits of 8 x 8 pixels; a fifth of each class is held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    parts = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
    return ArrayImages(parts[0], parts[2]), ArrayImages(parts[1], parts[3]), 10


def fashion_mnist(settings: Settings, data: Path | None) -> tuple[Any, Any, int]:
    """Read the 70,000 images of 28 x 28 pixels from the four files as they are published."""
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in _IDX_HEADERS]
    folder = folder_of(data, settings.layout, *names)
    arrays = [_idx(folder / name, _IDX_HEADERS[name.split("-", 1)[1][:11]]) for name in names]
    images = arrays[0].reshape(-1, 28, 28), arrays[2].reshape(-1, 28, 28)
    return ArrayImages(images[0], arrays[1]), ArrayImages(images[1], arrays[3]), 10


_IDX_HEADERS = {"images-idx3": 16, "labels-idx1": 8}
"""Bytes before the values of the IDX format."""


def _idx(file: Path, header: int) -> np.ndarray:
    try:
        return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=header)
    except (OSError, EOFError, ValueError) as error:
        raise DatasetError(f"{file} is damaged: {error}. Fetch it again.") from error


def cifar10(settings: Settings, data: Path | None) -> tuple[Any, Any, int]:
    """Read 60,000 images of 32 x 32 pixels: `cifar-10-batches-py`, or else folders of classes."""
    if data is None or not (data / "cifar-10-batches-py").is_dir():
        return folders(settings, data)
    return CIFAR10(data, train=True), CIFAR10(data, train=False), 10


def folders(settings: Settings, data: Path | None) -> tuple[Any, Any, int]:
    """Open `train/CLASS/` and `val/CLASS/`, or `test/CLASS/` where there is no `val/`."""
    folder = folder_of(data, settings.layout, "train")
    held_out = "val" if (folder / "val").is_dir() else "test"
    folder_of(data, settings.layout, held_out)
    try:
        train, test = (ImageDataset(str(folder / part)) for part in ("train", held_out))
    except RuntimeError as error:
        raise DatasetError(f"{error} A layout of folders is {folder}/train/CLASS/*.jpg.") from error
    classes = train.reader.class_to_idx
    if classes != test.reader.class_to_idx:
        differ = sorted(classes.keys() ^ test.reader.class_to_idx.keys())
        raise DatasetError(
            f"{folder}: train and {held_out} need the same classes; only one of them has "
            f"{', '.join(differ[:5])}{' and others' if len(differ) > 5 else ''}."
        )
    return train, test, len(classes)


LAYOUTS = {"digits": digits, "fashion-mnist": fashion_mnist, "cifar10": cifar10, "folder": folders}


# --- the recipe -----------------------------------------------------------------------------------


def main(
    config: Config,
    out: Out,
    data: Data = None,
    changes: Changes = None,
    device: Device = "auto",
) -> None:
    """Train an image classifier."""
    settings = read_settings(Classification, config, changes)
    train, test, classes = LAYOUTS[settings.layout](settings, data)
    looks = {"input_size": (settings.channels, settings.image_size, settings.image_size)}
    looks |= {"mean": tuple(settings.mean), "std": tuple(settings.std)}
    with options_of("[augment]"):
        train.transform = create_transform(**looks, is_training=True, **settings.augment)
    with options_of("[view]"):
        test.transform = create_transform(**looks, **settings.view)
    accelerator = begin(settings, out, device)
    with options_of("model or [model_options]"):
        model = timm.create_model(
            settings.model,
            num_classes=classes,
            in_chans=settings.channels,
            **settings.model_options,
        )
    mix = None
    if settings.mixup:
        smoothing = {"label_smoothing": settings.label_smoothing, "num_classes": classes}
        with options_of("[mixup]"):
            mix = Mixup(**smoothing, **settings.mixup)

    def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch  # mixed labels: (N, classes), smoothed
        smoothing = settings.label_smoothing if mix is None else 0.0
        return functional.cross_entropy(model(images), labels, label_smoothing=smoothing)

    held_out = accelerator.prepare(
        DataLoader(at_most(test, settings), settings.batch_size, num_workers=settings.workers)
    )

    def evaluate(model: nn.Module) -> dict[str, float]:
        accuracy = MulticlassAccuracy(classes, average="micro").to(accelerator.device)
        for images, labels in held_out:
            accuracy.update(model(images), labels)
        return {"accuracy": float(accuracy.compute())}

    training = Training(
        model,
        at_most(train, settings),
        settings,
        accelerator,
        out,
        loss_of=loss_of,
        prepare=None if mix is None else lambda batch: mix(*batch),
        evaluate=evaluate,
    )
    keep_result(training, training.run(), classes=classes)
    if accelerator.is_main_process:
        save_for_hf(
            training.trained,
            str(out / "model"),
            model_args=settings.model_options,
            safe_serialization=True,
        )


if __name__ == "__main__":
    command(main)
