"""Folders of images for the tests: the real subsets where they are, small generated ones else.

A generated image shows what its labels say, so that a network can learn it: classes differ in
colour, objects are bright discs on a dark ground.
"""

import gzip
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

SIBLING = Path(__file__).parents[2].parent / "shared" / "data" / "vision"
HOME = Path(os.environ.get("TSM2_VISION_DATA_HOME") or SIBLING)

COLOURS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [220, 220, 80]], dtype=np.uint8)


def camvid(folder: Path) -> Path:
    """Return the real CamVid subset, or one of its layout and labels."""
    real = HOME / "camvid_subset"
    return real if real.is_dir() else write_camvid(folder)


def nuclei(folder: Path) -> Path:
    """Return the real nuclei subset, or one of its layout."""
    real = HOME / "dsb2018_nuclei_subset"
    return real if real.is_dir() else write_instances(folder)


def write_camvid(folder: Path, *, count: int = 4, shift: int = 0, void: int = 11) -> Path:
    """Write images whose quarters are of classes 0 to 3, with a line of pixels to ignore."""
    generator = np.random.default_rng(0)
    for part in ("train", "val"):
        for number in range(count):
            labels = np.repeat(np.repeat(generator.permutation(4).reshape(2, 2), 36, 0), 48, 1)
            _save(folder / part / f"{number}.png", _noisy(COLOURS[labels], generator))
            values = (labels + shift).astype(np.uint8)
            values[35] = void
            _save(folder / f"{part}annot" / f"{number}.png", values)
    return folder


def write_ade20k(folder: Path) -> Path:
    """Write the same in ADE20K's layout: 0 is to be ignored, classes count from 1."""
    plain = write_camvid(folder / "plain", shift=1, void=0)
    for part, name in (("train", "training"), ("val", "validation")):
        for kind, source in (("images", part), ("annotations", f"{part}annot")):
            (folder / kind).mkdir(exist_ok=True)
            (plain / source).rename(folder / kind / name)
    return folder


def write_instances(folder: Path, *, count: int = 4) -> Path:
    """Write images of discs, and the number of the disc that each pixel belongs to."""
    for part in ("train", "val"):
        for number in range(count):
            image, numbers = _discs(number)
            _save(folder / part / "images" / f"{number}.png", image)
            _save(folder / part / "instances" / f"{number}.png", numbers)
    return folder


def write_coco(folder: Path) -> Path:
    """Write COCO's layout: two categories with a gap in their numbers, a crowd, an empty image."""
    for part in ("train", "val"):
        images: list[dict[str, object]] = []
        objects: list[dict[str, object]] = []
        for number in range(4):
            image, numbers = _discs(number)
            _save(folder / f"{part}2017" / f"{number}.jpg", image)
            images.append({"id": number, "file_name": f"{number}.jpg", "height": 96, "width": 96})
            for disc in range(1, 1 + numbers.max() if number else 1):  # none in the first image
                rows, columns = np.nonzero(numbers == disc)
                top, left = int(rows.min()), int(columns.min())
                height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
                objects.append(
                    {
                        "id": len(objects) + 1,
                        "image_id": number,
                        "category_id": (3, 90)[disc % 2],
                        "bbox": [left, top, width, height],
                        "area": height * width,
                        "iscrowd": int(disc == 3),
                        "segmentation": {
                            "size": [96, 96],
                            "counts": _runs((numbers == disc).ravel(order="F")),
                        },
                    }
                )
        content = {
            "images": images,
            "annotations": objects,
            "categories": [{"id": 3, "name": "odd"}, {"id": 90, "name": "even"}],
        }
        file = folder / "annotations" / f"instances_{part}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return folder


def write_classes(folder: Path, *, parts: tuple[str, ...] = ("train", "val")) -> Path:
    """Write ImageNet's layout: two classes that differ in colour."""
    generator = np.random.default_rng(0)
    for part in parts:
        for name, colour in zip(("red", "green"), COLOURS, strict=False):
            for number in range(6):
                plain = np.broadcast_to(colour, (20 + number, 24, 3))
                _save(folder / part / name / f"{number}.png", _noisy(plain, generator))
    return folder


def write_fashion_mnist(folder: Path, *, count: int = 20) -> Path:
    """Write the four files of Fashion-MNIST: the class is the brightness of the image."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.broadcast_to(labels[:, None, None] * 25, (count, 28, 28))
        for kind, header, values in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            content = bytes(header) + values.astype(np.uint8).tobytes()
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    return folder


def pixels(file: Path) -> np.ndarray:
    """Read an image, (H, W) or (H, W, channels)."""
    with Image.open(file) as image:
        return np.asarray(image)


def _discs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw five discs that do not touch, (96, 96, 3), and their numbers, (96, 96)."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:96, :96]
    numbers = np.zeros((96, 96), dtype=np.uint8)
    for disc, place in enumerate(generator.permutation(9)[:5], start=1):
        middle = 16 + 32 * np.array(divmod(int(place), 3))
        radius = generator.uniform(5, 13)
        numbers[np.hypot(rows - middle[0], columns - middle[1]) < radius] = disc
    grey = np.where(numbers > 0, 210, 30).astype(np.uint8)
    return _noisy(np.repeat(grey[..., None], 3, axis=2), generator), numbers


def _runs(mask: np.ndarray) -> list[int]:
    """Return the lengths of the runs of a mask, beginning with those that are not in it."""
    changes = np.flatnonzero(np.diff(mask.astype(np.int8))) + 1
    borders = np.concatenate([[0], changes, [len(mask)]])
    lengths = np.diff(borders).tolist()
    return [0, *lengths] if mask[0] else lengths


def _noisy(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    noise = generator.normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _save(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
