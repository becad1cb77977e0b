"""Model folders as Hugging Face and timm have them, read and written without pickle.

    folder/
      config.json         architecture, model_args (what differs from it), what timm wants to know
      model.safetensors   the weights

`ViM2.from_pretrained` and `timm.create_model("local-dir:folder", pretrained=True)` read the same
folder, and so do both from the Hugging Face Hub.

Source: https://huggingface.co/docs/timm/hf_hub (the folder), https://github.com/huggingface/safetensors.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tsm2.errors import OutputError, ParameterError, SavedModelError
from tsm2.vision.config import ViM2Config
from tsm2.vision.variants import VARIANTS, variant_config

__all__ = ["check_weights", "find_folder", "read_folder", "write_folder"]

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def write_folder(
    path: str | os.PathLike[str],
    config: ViM2Config,
    weights: Mapping[str, Tensor],
    timm_cfg: Mapping[str, Any],
) -> None:
    """Write a model folder; an earlier one there is replaced file by file.

    Parameters
    ----------
    path
        The folder; it and its parents are made if missing.
    config
        The model's sizes and settings.
    weights
        The model's state.
    timm_cfg
        What timm calls `pretrained_cfg`: mean, deviation and size of the images, names of layers.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    architecture = _nearest_variant(config)
    variant = VARIANTS[architecture]
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    record = {
        "architecture": architecture,
        "num_classes": config.num_classes,
        "num_features": config.dims[-1],
        "global_pool": config.global_pool,
        "model_args": {
            name: value for name, value in values.items() if value != getattr(variant, name)
        },
        "pretrained_cfg": dict(timm_cfg),
    }
    folder = Path(path)
    tensors = {name: each.detach().cpu().contiguous() for name, each in weights.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{_WEIGHTS}.part"
        save_file(tensors, part, metadata={"format": "pt"})
        part.replace(folder / _WEIGHTS)
        part = folder / f".{_CONFIG}.part"
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        part.replace(folder / _CONFIG)
    except OSError as error:
        raise OutputError(f"cannot write a model to {folder}: {error}") from error


def find_folder(name: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return a local folder as it is, or fetch a repository of the Hugging Face Hub.

    Parameters
    ----------
    name
        A folder, or "owner/repository" if there is no such folder.
    revision
        Branch, tag or commit of the repository.

    Returns
    -------
    Where the files are.

    Raises
    ------
    SavedModelError
        There is neither.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not _REPOSITORY.fullmatch(str(name)):
        raise SavedModelError(
            f"there is no folder {folder}, and it is not a name on the Hugging Face Hub either, "
            f"which would read owner/repository"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(str(name), revision=revision, allow_patterns=[_CONFIG, _WEIGHTS])
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise SavedModelError(
            f"there is no folder {folder}, and it cannot be fetched from the Hugging Face Hub: "
            f"{error}"
        ) from error


def read_folder(folder: Path, settings: Mapping[str, Any]) -> tuple[ViM2Config, dict[str, Tensor]]:
    """Read a model folder.

    Parameters
    ----------
    folder
        Where the files are.
    settings
        Fields of `ViM2Config` that are to differ from what was saved.

    Returns
    -------
    The sizes and settings, and the weights.

    Raises
    ------
    SavedModelError
        A file is missing or damaged, or is not a ViM2's.
    """
    file = folder / _CONFIG
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        architecture = record["architecture"]
        saved = {"num_classes": record.get("num_classes", 1000), **record.get("model_args", {})}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SavedModelError(
            f"{file} is not the config of a saved ViM2 ({type(error).__name__}: {error}). Write "
            f"the folder with save_pretrained, or with timm.models.save_for_hf"
        ) from error
    if architecture not in VARIANTS:
        raise SavedModelError(
            f"{file} is of a model {architecture!r}, and ViM2 reads {', '.join(VARIANTS)}"
        )
    try:
        variant_config(architecture, **saved)
    except (ParameterError, TypeError, ValueError) as error:
        raise SavedModelError(f"{file} has settings that no ViM2 has: {error}") from error
    try:
        weights = load_file(folder / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise SavedModelError(
            f"{folder / _WEIGHTS} is missing or damaged: {error}. Save the model again (with "
            f"timm.models.save_for_hf pass safe_serialization=True), or fetch the folder again"
        ) from error
    for name, weight in weights.items():  # models of before 4 states were the default
        if name.endswith(".log_rate") and weight.ndim == 2:
            saved.setdefault("d_state", weight.shape[1])
            break
    return variant_config(architecture, **{**saved, **settings}), weights


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], what_to_do: str) -> None:
    """Raise unless weights fit a model, and name every one that does not.

    Parameters
    ----------
    model
        What they are for.
    weights
        By name.
    what_to_do
        The way out, for the message.

    Raises
    ------
    SavedModelError
        A weight is missing, unknown, or of another shape.
    """
    wanted = model.state_dict()
    wrong = [
        f"{name}: {tuple(weights[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    wrong += [f"{name}: missing" for name in wanted if name not in weights]
    wrong += [f"{name}: not in the model" for name in weights if name not in wanted]
    if wrong:
        raise SavedModelError(
            f"{len(wrong)} weights do not fit the model ({'; '.join(wrong)}). {what_to_do}"
        )


def _nearest_variant(config: ViM2Config) -> str:
    """Name the variant that shares most settings."""

    def shared(name: str) -> int:
        variant = VARIANTS[name]
        return sum(getattr(config, f.name) == getattr(variant, f.name) for f in fields(config))

    return max(VARIANTS, key=shared)
