"""ViM2 in timm's registry: import this module, then `timm.create_model("vim2_tiny")`.

timm has no way for other packages to announce their models, so the import is what registers them.
There are no pretrained weights.
"""

from typing import Any

import torch

from tsm2.errors import ParameterError
from tsm2.vision.builders import create_vim2
from tsm2.vision.stages import Stage, Stem
from tsm2.vision.vim2 import ViM2

try:
    from timm.data import (  # pyright: ignore[reportMissingImports]
        IMAGENET_DEFAULT_MEAN,
        IMAGENET_DEFAULT_STD,
    )
    from timm.models import (  # pyright: ignore[reportMissingImports]
        build_model_with_cfg,
        generate_default_cfgs,
        register_model,
        register_notrace_module,
    )
except Exception as error:  # a torchvision made for another torch raises RuntimeError here
    raise ImportError(
        f"tsm2.vision.timm needs timm, and a torchvision that was made for the installed torch "
        f"({torch.__version__}), but importing timm failed with {type(error).__name__}: {error}. "
        f"Install torch and torchvision together, so that pip takes a pair: "
        f"pip install --upgrade torch torchvision timm"
    ) from error

__all__ = ["vim2_base", "vim2_nano", "vim2_small", "vim2_tiny"]


def _cfg(pixels: int = 224, reduction: int = 32) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, pixels, pixels),
        "pool_size": (pixels // reduction, pixels // reduction),
        "crop_pct": 0.9 if pixels > 32 else 1.0,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.proj",
        "classifier": "head",
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs(
    {
        "vim2_nano": _cfg(pixels=32, reduction=16),
        "vim2_tiny": _cfg(),
        "vim2_small": _cfg(),
        "vim2_base": _cfg(),
    }
)

for _module in (Stem, Stage):
    register_notrace_module(_module)  # torch.fx takes a stage as one node


def _create(variant: str, pretrained: bool, **settings: Any) -> ViM2:
    def make(output_stride: int | None = None, **arguments: Any) -> ViM2:
        model = create_vim2(variant, **arguments)
        whole = model.feature_info[-1]["reduction"]
        if output_stride not in (None, whole):
            raise ParameterError(
                f"output_stride={output_stride} is not supported: scans cannot be dilated, and "
                f"{variant} reduces images by {whole}. Choose a decoder that does not need it "
                f"(UPerNet, FPN, Unet), or take an earlier stage with out_indices"
            )
        return model

    model: ViM2 = build_model_with_cfg(
        make,
        variant,
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
        **settings,
    )
    return model


@register_model
def vim2_nano(pretrained: bool = False, **settings: Any) -> ViM2:
    """Build the smallest ViM2, for images of about 32 pixels."""
    return _create("vim2_nano", pretrained, **settings)


@register_model
def vim2_tiny(pretrained: bool = False, **settings: Any) -> ViM2:
    """Build the paper's ViM2-T."""
    return _create("vim2_tiny", pretrained, **settings)


@register_model
def vim2_small(pretrained: bool = False, **settings: Any) -> ViM2:
    """Build the paper's ViM2-S."""
    return _create("vim2_small", pretrained, **settings)


@register_model
def vim2_base(pretrained: bool = False, **settings: Any) -> ViM2:
    """Build the paper's ViM2-B."""
    return _create("vim2_base", pretrained, **settings)
