"""Checkpoints: a long fit on disk, so that a killed process loses seconds and nothing else.

A checkpoint is a model folder (`tsm2.saving`), so it is replaced as a whole and read without
pickle: whenever the process is killed, the folder holds a state that the fit was in. It names the
fit that it belongs to by all that the weights depend on, and refuses to go on with any other.

Saving costs a share of the time and no more: the next save waits until training has taken
`_PATIENCE` times as long as the last save did.
"""

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tsm2 import __version__
from tsm2.errors import SavedModelError
from tsm2.saving import check_replaceable, holds_model, load_folder, remove_leftovers, save_folder

__all__ = ["Checkpoint", "digest"]

_KIND = "checkpoint of a fit"
_PATIENCE = 20


class Checkpoint:
    """The place of one fit on disk.

    Parameters
    ----------
    folder
        New, empty, or a checkpoint of this fit.
    identity
        All that the fit's weights depend on, by names that an error message can use; text,
        numbers and None. The versions of tsm2 and torch are added.
    writes
        Whether this process writes; of several processes one does.

    Raises
    ------
    OutputError
        The folder holds something else.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, writes: bool = True) -> None:
        check_replaceable(folder)
        self.folder, self.writes = folder, writes
        versions = {"version of tsm2": __version__, "version of torch": str(torch.__version__)}
        self.identity = versions | dict(identity)
        self._saved_at, self._cost = -math.inf, 0.0

    def is_due(self) -> bool:
        """Return whether training since the last save has paid for the next one."""
        return self.writes and time.monotonic() - self._saved_at > _PATIENCE * self._cost

    def save(self, position: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Replace what is there by where the fit stands now.

        Raises
        ------
        OutputError
            It cannot be written; what was there is intact.
        """
        if not self.writes:
            return
        start = time.monotonic()
        config = {"identity": self.identity, "position": dict(position)}
        save_folder(self.folder, kind=_KIND, config=config, tensors=tensors)
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - start

    def load(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return the position and the tensors that were saved last; None if nothing was.

        Raises
        ------
        SavedModelError
            The folder is damaged, or belongs to another fit; the message says what differs.
        """
        if self.writes:
            remove_leftovers(self.folder)
        if not holds_model(self.folder):
            return None
        config, tensors = load_folder(self.folder, kind=_KIND)
        saved, position = config.get("identity"), config.get("position")
        if not isinstance(saved, dict) or not isinstance(position, dict):
            raise SavedModelError(
                f"{self.folder} does not say which fit it belongs to, or where it stood. Delete it "
                f"to start anew."
            )
        names = [*self.identity, *(name for name in saved if name not in self.identity)]
        others = [
            _difference(name, saved.get(name), self.identity.get(name))
            for name in names
            if saved.get(name) != self.identity.get(name)
        ]
        if others:
            raise SavedModelError(
                f"{self.folder} is the checkpoint of another fit: {'; '.join(others)}. Go on with "
                f"what it was begun with, pass another folder, or delete this one to start anew."
            )
        return position, tensors


def _difference(name: str, there: object, here: object) -> str:
    if any(isinstance(each, str) and len(each) == _DIGEST_LENGTH for each in (there, here)):
        return f"the {name} differ"
    return f"{name} was {there!r} and is {here!r}"


_DIGEST_LENGTH = 64


def digest(value: object) -> str:
    """Return the sha256 of tensors, in any nesting of dataclasses, dicts, lists and plain values.

    Examples
    --------
    >>> digest({"a": torch.zeros(2)}) == digest({"a": torch.zeros(2)})
    True
    >>> digest({"a": torch.zeros(2)}) == digest({"a": torch.zeros(1, 2)})
    False
    """
    hashed = hashlib.sha256()
    _feed(hashed, value)
    return hashed.hexdigest()


def _feed(hashed: Any, value: object) -> None:
    if isinstance(value, Tensor):
        hashed.update(f"{value.dtype}{tuple(value.shape)}".encode())
        hashed.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    elif is_dataclass(value) and not isinstance(value, type):
        _feed(hashed, {f.name: getattr(value, f.name) for f in fields(value)})
    elif isinstance(value, Mapping):
        for key, each in value.items():
            hashed.update(f"{key!r}:".encode())
            _feed(hashed, each)
    elif isinstance(value, list | tuple):
        hashed.update(f"[{len(value)}]".encode())
        for each in value:
            _feed(hashed, each)
    else:
        hashed.update(f"{type(value).__name__} {value!r};".encode())
