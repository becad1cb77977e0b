"""Pretrained networks: where their weights are, and how they are written and read.

A folder is a model folder, see `tsm2.saving`: safetensors, JSON and a card. Those that come with
tsm2 lie in `tsm2/pretrained`, by name; any other is named by its path.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tsm2.errors import ParameterError, SavedModelError
from tsm2.networks.config import NetworkConfig
from tsm2.networks.zero import ZeroShotNetwork
from tsm2.saving import check_tensors, holds_model, load_folder, save_folder

__all__ = ["describe_pretrained", "holds_pretrained", "load_pretrained", "save_pretrained"]

_KIND = "pretrained network"
_HOME = Path(__file__).parents[1] / "pretrained"


def save_pretrained(
    network: ZeroShotNetwork, folder: Path, *, facts: Mapping[str, Any], card: str | None = None
) -> None:
    """Write a network to a folder.

    Parameters
    ----------
    network
        With its weights.
    folder
        New, empty, or one that was written so.
    facts
        How the weights came about, in what JSON holds.
    card
        Text of README.md.

    Raises
    ------
    OutputError
        The folder holds something else, or cannot be written.
    """
    config = {"network": asdict(network.config), "facts": dict(facts)}
    save_folder(folder, kind=_KIND, config=config, tensors=network.state_dict(), card=card)


def load_pretrained(name: str) -> ZeroShotNetwork:
    """Read a network, in evaluation mode.

    Parameters
    ----------
    name
        One that comes with tsm2, such as "zero", or the path of a folder.

    Raises
    ------
    ParameterError
        There is no such network.
    SavedModelError
        The folder is damaged, or holds something else.
    """
    config, tensors = load_folder(_folder(name), kind=_KIND)
    try:
        sizes = NetworkConfig(**config["network"])
    except (KeyError, TypeError, ParameterError) as error:
        raise SavedModelError(f"{name} does not say what network it holds: {error}.") from error
    network = ZeroShotNetwork(sizes).eval()
    check_tensors(tensors, {k: tuple(v.shape) for k, v in network.state_dict().items()})
    network.load_state_dict(tensors)
    return network


def describe_pretrained(name: str) -> dict[str, Any]:
    """Return how the weights of a network came about; parameters and errors as `load_pretrained`.

    Examples
    --------
    >>> sorted(describe_pretrained("zero"))[:3]
    ['command', 'loss', 'minutes']
    """
    config, _ = load_folder(_folder(name), kind=_KIND)
    return dict(config.get("facts", {}))


def _folder(name: str) -> Path:
    for folder in (_HOME / name, Path(name)):
        if holds_model(folder):
            return folder
    here = sorted(each.name for each in _HOME.glob("*") if holds_model(each))
    raise ParameterError(
        f"there are no pretrained weights {name!r}; here are: {', '.join(here) or 'none'}. Name "
        f"one of them, or a folder that `python -m tsm2.pretraining FOLDER --minutes 60` wrote."
    )


def holds_pretrained(name: str) -> bool:
    """Return whether a name, or the path of a folder, is that of a pretrained network."""
    folder = Path(name)
    if not folder.exists():
        return holds_model(_HOME / name)
    try:
        kind = json.loads((folder / "config.json").read_bytes()).get("kind")
    except (OSError, ValueError, AttributeError):
        return False
    return bool(kind == _KIND)
