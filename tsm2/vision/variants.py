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

from tsm2.errors import ParameterError
from tsm2.vision.config import ViM2Config

__all__ = ["VARIANTS", "variant_config"]

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


def _near(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
