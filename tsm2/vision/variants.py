"""The sizes of ViM2 that have a name.

`vim2_tiny`, `vim2_small` and `vim2_base` are table 8 of the paper. `vim2_nano` is ours, for images
of about 32 pixels and for machines without a GPU.

Source: Behrouz et al. (2024), arXiv:2403.19888, table 8.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

import torch

from tsm2.errors import ParameterError
from tsm2.vision.config import ViM2Config
from tsm2.vision.vim2 import ViM2

__all__ = [
    "VARIANTS",
    "create_vim2",
    "variant_config",
    "vim2_base",
    "vim2_nano",
    "vim2_small",
    "vim2_tiny",
]

VARIANTS: Mapping[str, ViM2Config] = MappingProxyType(
    {
        "vim2_nano": ViM2Config(patch_size=2, dims=(64, 128, 192, 256), blocks=(1, 2, 3, 1)),
        "vim2_tiny": ViM2Config(),
        "vim2_small": ViM2Config(blocks=(1, 1, 9, 1)),
        "vim2_base": ViM2Config(dims=(128, 256, 512, 1024), blocks=(1, 1, 9, 1)),
    }
)
"""The settings behind each name."""


def variant_config(variant: str, **settings: Any) -> ViM2Config:
    """Look up a variant, with some settings changed.

    Parameters
    ----------
    variant
        A name in `VARIANTS`.
    **settings
        Fields of `ViM2Config`.

    Returns
    -------
    Its settings.

    Raises
    ------
    ParameterError
        The variant or a setting is unknown, or a value does not fit.

    Examples
    --------
    >>> variant_config("vim2_tiny", num_classes=10).num_classes
    10
    """
    if variant not in VARIANTS:
        raise ParameterError(
            f"there is no variant {variant!r}{_near(variant, list(VARIANTS))}; there are "
            f"{', '.join(VARIANTS)}. For other sizes pass a ViM2Config to ViM2"
        )
    known = [field.name for field in fields(ViM2Config)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise ParameterError(
            f"ViM2 has no setting {unknown[0]!r}{_near(unknown[0], known)}; it has "
            f"{', '.join(known)}"
        )
    return replace(VARIANTS[variant], **settings)


def create_vim2(
    variant: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **settings: Any,
) -> ViM2:
    """Build a ViM2 by name, with random weights.

    Parameters
    ----------
    variant
        A name in `VARIANTS`.
    device, dtype
        See `ViM2`.
    **settings
        Fields of `ViM2Config` that are to differ from the variant's.

    Returns
    -------
    The model.

    Raises
    ------
    ParameterError
        As in `variant_config`.

    Examples
    --------
    >>> model = create_vim2("vim2_nano", num_classes=10, in_chans=1)
    >>> model(torch.zeros(1, 1, 32, 32)).shape
    torch.Size([1, 10])
    """
    return ViM2(variant_config(variant, **settings), device=device, dtype=dtype)


def vim2_nano(**settings: Any) -> ViM2:
    """Build the smallest, for images of about 32 pixels; see `create_vim2`."""
    return create_vim2("vim2_nano", **settings)


def vim2_tiny(**settings: Any) -> ViM2:
    """Build the paper's ViM2-T; see `create_vim2`."""
    return create_vim2("vim2_tiny", **settings)


def vim2_small(**settings: Any) -> ViM2:
    """Build the paper's ViM2-S; see `create_vim2`."""
    return create_vim2("vim2_small", **settings)


def vim2_base(**settings: Any) -> ViM2:
    """Build the paper's ViM2-B; see `create_vim2`."""
    return create_vim2("vim2_base", **settings)


def _near(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
