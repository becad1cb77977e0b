"""Train an object detector over an image backbone, as one command that can be killed.

    python examples/vision/detect.py nuclei --data nuclei --out runs/nuclei
    python examples/vision/detect.py coco --data coco --out runs/coco

Layouts of --data: "coco" (`train2017/`, `val2017/`, `annotations/instances_train2017.json`, ...)
and "instances" (`train/images/`, `train/instances/`, and the same for `val`; an 8-bit PNG of the
image's name has 0 for the background and a number for each object, all of one class). A backbone
that `classify.py` trained goes in by its folder, with
``--set 'model="local-dir:runs/imagenet/model"' --set model_options.pretrained=true``.
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
import timm
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.detection import MeanAveragePrecision
from torchvision import tv_tensors
from torchvision.ops import box_convert, masks_to_boxes
from torchvision.transforms import v2

from tsm2.errors import DatasetError
from tsm2.vision.detection import faster_rcnn, mask_rcnn, retinanet

LAYOUTS = ("coco", "instances")
DETECTORS = {"mask_rcnn": mask_rcnn, "faster_rcnn": faster_rcnn, "retinanet": retinanet}


@dataclass(frozen=True, kw_only=True)
class Detection(Settings):
    """What this recipe is told beside the common settings."""

    detector: str = "mask_rcnn"
    """A builder of `tsm2.vision.detection`."""
    detector_options: dict[str, Any] = field(default_factory=dict)
    """Of torchvision's detector: `min_size`, `max_size`, thresholds, ..."""
    vertical_flips: bool = False
    """Turn half of the training images upside down, where up means nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known(self.layout, LAYOUTS, "layout")
        require_known(self.detector, DETECTORS, "detector")


# --- images ---------------------------------------------------------------------------------------

Objects = dict[str, Tensor]
"""boxes (K, 4) as corners in pixels, labels (K,) from 1, masks (K, H, W), iscrowd (K,)."""


class Instances(Dataset[tuple[Tensor, Objects]]):
    """Images with a number for each object, in folders `images` and `instances`."""

    categories = 1

    def __init__(self, folder: Path, view: nn.Module) -> None:
        self.view = view
        self.images = sorted((folder / "images").glob("*.png"))
        self.instances = [folder / "instances" / file.name for file in self.images]
        if not self.images:
            raise DatasetError(f"{folder / 'images'} has no .png images.")
        for file in self.instances:
            if not file.exists():
                raise DatasetError(f"{file} is missing: an image needs one of the same name.")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Objects]:
        numbers = torch.from_numpy(np.array(Image.open(self.instances[index])))
        present = numbers.unique()
        masks = numbers == present[present > 0][:, None, None]  # (K, H, W)
        outer_edges = torch.tensor([0.0, 0.0, 1.0, 1.0])  # of the first and the last pixels
        ones = torch.ones(len(masks), dtype=torch.int64)
        return self.view(
            *_example(
                self.images[index], masks_to_boxes(masks) + outer_edges, masks, ones, 0 * ones
            )
        )


class CocoObjects(Dataset[tuple[Tensor, Objects]]):
    """Images and the objects that a COCO file lists; its categories in order are labels from 1.

    For training, crowds are left out, and so are images without objects.
    """

    def __init__(self, folder: Path, part: str, view: nn.Module) -> None:
        self.images, self.view = folder / f"{part}2017", view
        self.coco = COCO(folder / "annotations" / f"instances_{part}2017.json")
        self.labels = {number: 1 + place for place, number in enumerate(self.coco.getCatIds())}
        self.categories = len(self.labels)
        self.crowds = {} if part == "val" else {"iscrowd": False}
        drawn = {
            each["image_id"] for each in self.coco.loadAnns(self.coco.getAnnIds(iscrowd=False))
        }
        self.ids = [each for each in self.coco.getImgIds() if part == "val" or each in drawn]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Objects]:
        (facts,) = self.coco.loadImgs(self.ids[index])
        listed = self.coco.loadAnns(self.coco.getAnnIds(self.ids[index], **self.crowds))
        listed = [each for each in listed if min(each["bbox"][2:]) > 0]
        masks = np.array([self.coco.annToMask(each) for each in listed], dtype=bool)
        boxes = torch.tensor([each["bbox"] for each in listed]).reshape(-1, 4)
        return self.view(
            *_example(
                self.images / facts["file_name"],
                box_convert(boxes, "xywh", "xyxy"),
                torch.from_numpy(masks.reshape(-1, facts["height"], facts["width"])),
                torch.tensor([self.labels[each["category_id"]] for each in listed], dtype=int),
                torch.tensor([each["iscrowd"] for each in listed], dtype=int),
            )
        )


def _example(
    file: Path, boxes: Tensor, masks: Tensor, labels: Tensor, crowds: Tensor
) -> tuple[Tensor, Objects]:
    try:
        image = tv_tensors.Image(Image.open(file).convert("RGB"))
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error}.") from error
    size = tuple(image.shape[-2:])
    if masks.shape[-2:] != size:
        raise DatasetError(f"{file} has {size} pixels, its objects {tuple(masks.shape[-2:])}.")
    return image, {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "labels": labels,
        "masks": tv_tensors.Mask(masks),
        "iscrowd": crowds,
    }


def open_images(settings: Detection, data: Path | None) -> tuple[Any, Any]:
    """Open the images to train on and those held out."""
    to_floats = [
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        v2.ToPureTensor(),
    ]
    flips = [v2.RandomHorizontalFlip()] + [v2.RandomVerticalFlip()] * settings.vertical_flips
    views = {"train": v2.Compose([*flips, *to_floats]), "val": v2.Compose(to_floats)}
    if settings.layout == "instances":
        folder = folder_of(
            data,
            "instances",
            *(f"{part}/{kind}" for part in views for kind in ("images", "instances")),
        )
        return Instances(folder / "train", views["train"]), Instances(folder / "val", views["val"])
    files = [f"annotations/instances_{part}2017.json" for part in views]
    folder = folder_of(data, "coco", "train2017", "val2017", *files)
    train, val = (CocoObjects(folder, part, view) for part, view in views.items())
    if train.labels != val.labels:
        raise DatasetError(f"{files[0]} and {files[1]} have different categories.")
    return train, val


def as_lists(batch: list[tuple[Tensor, Objects]]) -> tuple[list[Tensor], list[Objects]]:
    """Keep the images of a batch apart: their sizes differ."""
    return [image for image, _ in batch], [objects for _, objects in batch]


# --- the recipe -----------------------------------------------------------------------------------


def main(
    config: Config,
    out: Out,
    data: Data = None,
    changes: Changes = None,
    device: Device = "auto",
) -> None:
    """Train an object detector."""
    settings = read_settings(Detection, config, changes)
    train, val = open_images(settings, data)
    accelerator = begin(settings, out, device)
    with options_of("model or [model_options]"):
        backbone = timm.create_model(settings.model, features_only=True, **settings.model_options)
    with options_of("[detector_options]"):
        model = DETECTORS[settings.detector](
            backbone, num_classes=1 + train.categories, **settings.detector_options
        )

    def loss_of(model: nn.Module, batch: tuple[list[Tensor], list[Objects]]) -> Tensor:
        return torch.stack(list(model(*batch).values())).sum()

    held_out = accelerator.prepare(
        DataLoader(at_most(val, settings), 1, collate_fn=as_lists, num_workers=settings.workers)
    )
    kinds = ("bbox", "segm") if settings.detector == "mask_rcnn" else ("bbox",)

    def evaluate(model: nn.Module) -> dict[str, float]:
        precision = MeanAveragePrecision(iou_type=kinds)
        for images, objects in held_out:
            found = model(images)
            if "segm" in kinds:
                found = [each | {"masks": each["masks"][:, 0] > 0.5} for each in found]
            precision.update(found, objects)
        figures = precision.compute()
        if len(kinds) == 1:
            figures = {f"bbox_{name}": value for name, value in figures.items()}
        return {
            f"{kind}_{name}": float(figures[f"{kind}_{name}"])
            for kind in kinds
            for name in ("map", "map_50", "map_75")
        }

    training = Training(
        model,
        at_most(train, settings),
        settings,
        accelerator,
        out,
        loss_of=loss_of,
        evaluate=evaluate,
        collate=as_lists,
        part=model.backbone,
    )
    keep_result(training, training.run(), detector=settings.detector, classes=train.categories)
    write_weights(training)


if __name__ == "__main__":
    command(main)
