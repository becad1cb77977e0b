"""Detectors over an image backbone: Mask R-CNN, Faster R-CNN and RetinaNet, of torchvision's parts.

    image -> backbone: maps of strides 4, 8, 16, 32 -> feature pyramid -> torchvision's heads

The backbone is any that timm builds with ``features_only=True``; ViM2 is one by its name. Its maps
go through `FeaturePyramidNetwork`; R-CNNs add a pooled level to the last four maps, RetinaNet two
convolved levels to the last three. Anchors follow the strides, so that with strides 4 to 32 they
are those of the papers.

Sources: Lin et al. (2017), arXiv:1612.03144 (pyramid) and arXiv:1708.02002 (RetinaNet); Ren et al.
(2015), arXiv:1506.01497; He et al. (2017), arXiv:1703.06870.
"""

import tsm2.vision.timm  # noqa: F401 - before timm: says which torchvision this torch needs

# isort: split
import difflib
from collections import OrderedDict
from typing import Any, Literal

from timm.models import (  # pyright: ignore[reportMissingImports]
    create_model,
    is_model,
    list_models,
)
from torch import Tensor, nn
from torchvision.models.detection import (  # pyright: ignore[reportMissingImports]
    FasterRCNN,
    MaskRCNN,
    RetinaNet,
)
from torchvision.models.detection.anchor_utils import (  # pyright: ignore[reportMissingImports]
    AnchorGenerator,
)
from torchvision.ops.feature_pyramid_network import (  # pyright: ignore[reportMissingImports]
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from tsm2.errors import ParameterError

__all__ = ["PyramidBackbone", "faster_rcnn", "mask_rcnn", "retinanet"]

_CHANNELS = 256
_RATIOS = (0.5, 1.0, 2.0)


class PyramidBackbone(nn.Module):
    """A backbone's last maps through a feature pyramid, as torchvision's detectors read them.

    Parameters
    ----------
    backbone
        Name that timm knows, or a model that it made with ``features_only=True``.
    levels
        Maps of the backbone that are used, the last ones.
    top
        Levels on top of them: "pool" adds one, "convolve" two.
    channels
        Width of every level.

    Raises
    ------
    ParameterError
        The backbone is unknown, or does not give so many feature maps.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        *,
        levels: int,
        top: Literal["pool", "convolve"],
        channels: int = _CHANNELS,
    ) -> None:
        super().__init__()
        self.body = _features(backbone)
        maps: Any = self.body.feature_info
        widths, strides = maps.channels()[-levels:], maps.reduction()[-levels:]
        doubling = [strides[0] * 2**level for level in range(levels + (1 if top == "pool" else 2))]
        if strides != doubling[:levels]:
            raise ParameterError(
                f"the last feature maps of the backbone have strides {strides}, but this detector "
                f"needs {levels}, each twice the one before. Take a backbone with stages, and all "
                f"of its out_indices."
            )
        extra = LastLevelMaxPool() if top == "pool" else LastLevelP6P7(channels, channels)
        self.pyramid = FeaturePyramidNetwork(widths, channels, extra)
        self.out_channels = channels
        """Width of every level, under the name that torchvision asks for."""
        self.strides = doubling
        """Pixels of the image per cell of each level."""
        self.channels_last = getattr(self.body, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the levels, finest first, each (B, channels, H, W), for images (B, C, H, W)."""
        maps = self.body(images)[-len(self.pyramid.inner_blocks) :]
        if self.channels_last:
            maps = [each.permute(0, 3, 1, 2) for each in maps]
        levels: dict[str, Tensor] = self.pyramid(
            OrderedDict((str(i), x) for i, x in enumerate(maps))
        )
        return levels


def mask_rcnn(backbone: str | nn.Module, *, num_classes: int, **options: Any) -> MaskRCNN:
    """Build a Mask R-CNN: boxes and masks.

    Parameters
    ----------
    backbone
        Name that timm knows, such as "vim2_tiny", or a model that it made with
        ``features_only=True``, for other options or with weights.
    num_classes
        Classes including the background, which is class 0, as everywhere in torchvision.
    options
        Of `torchvision.models.detection.MaskRCNN`: `min_size`, `max_size`, thresholds, ...

    Returns
    -------
    torchvision's model. In training it maps lists of images, (C, H, W) in [0, 1], and of targets
    to a dict of losses; in evaluation images to a list of dicts of boxes, labels, scores, masks.

    Raises
    ------
    ParameterError
        The backbone does not fit, or `num_classes` leaves no class beside the background.

    References
    ----------
    He et al. (2017), arXiv:1703.06870.

    Examples
    --------
    >>> import torch
    >>> model = mask_rcnn("vim2_nano", num_classes=2, min_size=64, max_size=64).eval()
    >>> sorted(model([torch.zeros(3, 64, 64)])[0])
    ['boxes', 'labels', 'masks', 'scores']
    """
    return MaskRCNN(**_rcnn(backbone, num_classes), **options)


def faster_rcnn(backbone: str | nn.Module, *, num_classes: int, **options: Any) -> FasterRCNN:
    """Build a Faster R-CNN: boxes.

    Parameters
    ----------
    backbone
        As for `mask_rcnn`.
    num_classes
        Classes including the background.
    options
        Of `torchvision.models.detection.FasterRCNN`.

    Returns
    -------
    torchvision's model.

    Raises
    ------
    ParameterError
        As `mask_rcnn`.

    References
    ----------
    Ren et al. (2015), arXiv:1506.01497, with the pyramid of Lin et al. (2017).
    """
    return FasterRCNN(**_rcnn(backbone, num_classes), **options)


def retinanet(backbone: str | nn.Module, *, num_classes: int, **options: Any) -> RetinaNet:
    """Build a RetinaNet: boxes in one stage.

    Parameters
    ----------
    backbone
        As for `mask_rcnn`.
    num_classes
        Classes including the background.
    options
        Of `torchvision.models.detection.RetinaNet`.

    Returns
    -------
    torchvision's model.

    Raises
    ------
    ParameterError
        As `mask_rcnn`.

    References
    ----------
    Lin et al. (2017), arXiv:1708.02002.
    """
    _require_classes(num_classes)
    pyramid = PyramidBackbone(backbone, levels=3, top="convolve")
    thirds = (1, 2 ** (1 / 3), 2 ** (2 / 3))
    sizes = tuple(tuple(int(4 * stride * third) for third in thirds) for stride in pyramid.strides)
    anchors = AnchorGenerator(sizes, (_RATIOS,) * len(sizes))
    return RetinaNet(pyramid, num_classes, anchor_generator=anchors, **options)


def _rcnn(backbone: str | nn.Module, num_classes: int) -> dict[str, Any]:
    _require_classes(num_classes)
    pyramid = PyramidBackbone(backbone, levels=4, top="pool")
    sizes = tuple((8 * stride,) for stride in pyramid.strides)
    anchors = AnchorGenerator(sizes, (_RATIOS,) * len(sizes))
    return {"backbone": pyramid, "num_classes": num_classes, "rpn_anchor_generator": anchors}


def _features(backbone: str | nn.Module) -> nn.Module:
    if isinstance(backbone, nn.Module):
        if not hasattr(getattr(backbone, "feature_info", None), "channels"):
            raise ParameterError(
                f"a detector reads feature maps, but {type(backbone).__name__} gives none: build "
                f"it with timm.create_model(name, features_only=True)."
            )
        return backbone
    if ":" not in backbone and not is_model(backbone):  # a colon names a place of weights
        near = difflib.get_close_matches(backbone, list_models(), n=3)
        raise ParameterError(
            f"timm knows no backbone {backbone!r}. "
            f"{'Near it: ' + ', '.join(near) if near else 'timm.list_models() lists them'}."
        )
    model: nn.Module = create_model(backbone, features_only=True)
    return model


def _require_classes(num_classes: int) -> None:
    if num_classes < 2:
        raise ParameterError(
            f"num_classes counts the background, so it must be at least 2, got {num_classes}. "
            f"Add one to the number of your classes, and number them from 1."
        )
