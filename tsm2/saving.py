"""Model folders: safetensors and JSON, replaced as a whole, read without pickle.

    model/
      config.json                      kind, parameters, versions, and which weights file counts
      model-3f2a91c05d7e.safetensors   the tensors; every save draws a name of its own
      README.md                        the model card, for people; never read, yours is kept
      .lock                            empty; who saves here holds it

A folder cannot be swapped in one step, neither by POSIX nor by Windows, but one file can. So new
weights go beside the old ones under a name of their own, and the one `os.replace` of config.json
decides between old and new: a process that is killed at any line leaves one of the two intact.
Saves take turns, and whoever has the turn removes what killed ones left. A reader takes no turn:
whenever the config that it has read was replaced before it had the weights, it reads again.

config.json holds the sha256 of the weights and, since format 2, one of all else that it says: what
was damaged on the way is refused. That is no signature: who writes the folder on purpose can
compute both.

`kind` names the class that a folder belongs to. The caller compares it with its own name; nothing
in a folder is ever imported by name. JSON has neither tuples nor NaN: they are tagged objects,
{"$tuple": [...]} and {"$float": "nan"}, and no other key may start with "$".

Source: https://github.com/huggingface/safetensors (the format of the weights).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as read_safetensors
from safetensors.torch import save as write_safetensors
from torch import Tensor

from tsm2 import __version__
from tsm2.errors import OutputError, SavedModelError

__all__ = [
    "FORMAT_VERSION",
    "check_replaceable",
    "check_tensors",
    "holds_model",
    "load_folder",
    "remove_leftovers",
    "save_folder",
]

FORMAT_VERSION = 2
"""Version of the folder's format; a reader refuses newer ones. Format 1 had no checksum of the
config."""

_MARK = "tsm2-model"
_CONFIG = "config.json"
_LOCK = ".lock"
_CHECKSUM = "sha256"
_LONGEST_WAIT = 600  # seconds for another save to end
_MOST_READINGS = 1000  # of a folder that is replaced all the time
_CARD, _CARD_START = "README.md", "---\nlibrary_name: tsm2\n"
_WEIGHTS_NAME = re.compile(r"model-[0-9a-f]{12}\.safetensors")
_LEFTOVER_NAME = re.compile(r"\..+\.[0-9a-f]{8}\.part")
_MOST_CONFIG_BYTES = 64 * 2**20
_MOST_HEADER_BYTES = 16 * 2**20
_DEEPEST = 50
_AGAIN = "Save the model again, or fetch the folder again from where it came."


# --- write ----------------------------------------------------------------------------------------


def save_folder(
    path: str | os.PathLike[str],
    *,
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor | NDArray[Any]],
    card: str | None = None,
) -> None:
    """Write a model folder; an earlier model there is replaced at once or, on failure, kept.

    Parameters
    ----------
    path
        The folder: new, empty, or a tsm2 model. Missing parents are made. Files in a model's
        folder that are not the model's are left alone.
    kind
        Name of the class that will read it.
    config
        str, int, float, bool, None, lists, tuples and dicts with text as keys, in any nesting;
        NumPy scalars are written as Python's.
    tensors
        Tensors and arrays of any shape and device, by name.
    card
        Text for README.md, see `tsm2.model_card`; None for no such file. A README.md that is no
        model card of tsm2 is left alone.

    Raises
    ------
    SavedModelError
        The config or a tensor holds what a model folder cannot; nothing was written.
    OutputError
        `path` is something else than a model, or cannot be written; what was there is intact.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save_folder(f"{folder}/model", kind="Mean", config={"window": (3, 5)}, tensors={})
    ...     load_folder(f"{folder}/model", kind="Mean")
    ({'window': (3, 5)}, {})
    """
    encoded = _encode(dict(config), "config", 0)
    weights = write_safetensors({name: _writable(name, each) for name, each in tensors.items()})
    digest = hashlib.sha256(weights).hexdigest()
    name = f"model-{secrets.token_hex(6)}.safetensors"
    text = _to_text(
        {
            "format": _MARK,
            "format_version": FORMAT_VERSION,
            "kind": kind,
            "versions": {
                "tsm2": __version__,
                "torch": str(torch.__version__),
                "numpy": np.__version__,
                "pandas": pd.__version__,
            },
            "weights": {"file": name, "sha256": digest, "bytes": len(weights)},
            "config": encoded,
        }
    )
    if not os.fspath(path):
        raise OutputError("the path of the model is empty. Pass a folder, such as 'model'.")
    folder = Path(path)
    try:
        check_replaceable(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with _turn(folder) as alone:
            check_replaceable(folder)  # others had their turn meanwhile
            _write_model(folder, name, weights, text, card)
            if alone:
                with suppress(OSError):  # what is left does no harm
                    _remove_unused(folder)
    except OutputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path that no file system takes
        raise OutputError(
            f"the model cannot be written to {folder} ({error}); what was there is unchanged. "
            f"Choose another folder, or make room and allow writing."
        ) from error


@contextmanager
def _turn(folder: Path) -> Iterator[bool]:
    """Wait until nobody else saves to a folder; False where the file system knows no locks.

    Without a lock saves do not hurt each other either, as every one names its own weights; but
    then nobody can know whose a file is that no config names, and it stays.
    """
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=_LONGEST_WAIT)
    except Timeout:
        raise OutputError(
            f"another save to {folder} has not ended in {_LONGEST_WAIT} seconds; nothing was "
            f"written. End the process that holds {folder / _LOCK}, or choose another folder."
        ) from None
    except NotImplementedError:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _write_model(folder: Path, name: str, weights: bytes, text: bytes, card: str | None) -> None:
    old = _weights_in_use(folder)
    try:
        _replace_file(folder / name, weights)
        if card is not None and (_is_card(folder / _CARD) or not (folder / _CARD).exists()):
            _replace_file(folder / _CARD, card.encode())
        _replace_file(folder / _CONFIG, text)  # the one step from the old model to the new
    finally:
        with suppress(OSError):  # an orphan does no harm
            in_use = _weights_in_use(folder)
            if in_use is not None or not holds_model(folder):  # else rather an orphan than a loss
                for unused in {name, old} - {in_use, None}:
                    (folder / str(unused)).unlink(missing_ok=True)


def _remove_unused(folder: Path) -> None:
    """Remove what killed saves left; only for who alone writes to the folder."""
    in_use = _weights_in_use(folder)
    names = os.listdir(folder)
    for name in names:
        # A config that cannot be read just now costs no weights.
        is_orphan = _WEIGHTS_NAME.fullmatch(name) and name != in_use
        if _LEFTOVER_NAME.fullmatch(name) or (is_orphan and (in_use or _CONFIG not in names)):
            (folder / name).unlink(missing_ok=True)


def _replace_file(file: Path, data: bytes) -> None:
    """Write a file so that its name holds all of the data or what it held before."""
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, file)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    if os.name == "posix":  # Windows cannot open a folder
        descriptor = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_replaceable(folder: Path) -> None:
    """Check that a model may be written to a folder: nothing is there yet, or a tsm2 model.

    Raises
    ------
    OutputError
        Something else is there, which would be overwritten.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file, not a folder. Choose another path for the model.")
    names = {each.name for each in folder.iterdir()}
    ours = {
        name
        for name in names
        if name == _LOCK or _WEIGHTS_NAME.fullmatch(name) or _LEFTOVER_NAME.fullmatch(name)
    }
    if _is_card(folder / _CARD):
        ours.add(_CARD)
    if _CONFIG in names:
        try:
            _read_config(folder)
        except SavedModelError as error:
            raise OutputError(
                f"{folder} holds something else than a tsm2 model, which is not overwritten: "
                f"{error} Choose another path, or delete it first."
            ) from error
    elif names != ours:  # `ours` alone is a first save that was killed
        listed = ", ".join(sorted(names - ours)[:3])
        raise OutputError(
            f"{folder} is not empty and no tsm2 model ({listed}), so it is not overwritten. Choose "
            f"another path, for example {folder / 'model'}."
        )


def _is_card(file: Path) -> bool:
    """Return whether a README.md is one that a save wrote."""
    try:
        with file.open("rb") as stream:
            return stream.read(len(_CARD_START)) == _CARD_START.encode()
    except OSError:
        return False


def holds_model(folder: Path) -> bool:
    """Return whether a save to a folder was ever completed."""
    return (folder / _CONFIG).is_file()


def remove_leftovers(folder: Path) -> None:
    """Remove the files of saves that were killed, in a turn of its own."""
    if folder.is_dir():
        with suppress(OSError), _turn(folder) as alone:  # they do no harm
            if alone:
                _remove_unused(folder)


def _weights_in_use(folder: Path) -> str | None:
    """Return the name of the weights file that counts, or None if no model is there."""
    try:
        name = _read_config(folder)["weights"]["file"]
        return name if _WEIGHTS_NAME.fullmatch(name) else None  # never a path out of the folder
    except (SavedModelError, KeyError, TypeError):
        return None


def _writable(name: str, values: Tensor | NDArray[Any]) -> Tensor:
    """Return the values as a dense CPU tensor in memory of its own, as safetensors wants them."""
    try:
        if type(name) is not str or name == "__metadata__":
            raise ValueError("its name must be text and not '__metadata__'")
        own = (
            values if isinstance(values, Tensor) else torch.from_numpy(np.array(values, order="C"))
        )
        copy = own.detach().to("cpu", copy=True).contiguous().resolve_neg()
        if copy.layout != torch.strided or copy.is_complex():
            raise ValueError("it is sparse or complex")
        write_safetensors({name: torch.empty(0, dtype=copy.dtype)})  # is the dtype known?
    except (TypeError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise SavedModelError(
            f"tensor {name!r} of type {type(values).__name__} and dtype "
            f"{getattr(values, 'dtype', None)} cannot be saved: {error}. Dense numbers are needed."
        ) from error
    return copy


# --- read -----------------------------------------------------------------------------------------


def load_folder(
    path: str | os.PathLike[str], *, kind: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a model folder, after checking that it is whole, unedited and of this kind.

    Parameters
    ----------
    path
        The folder that `save_folder` wrote.
    kind
        Name of the class that reads it.

    Returns
    -------
    config
        As it was given to `save_folder`.
    tensors
        On the CPU, writable, in the dtypes and shapes that were saved.

    Raises
    ------
    SavedModelError
        The folder is missing, damaged, edited, of a newer format, or of another kind.
    """
    folder = _readable(path)
    for _ in range(_MOST_READINGS):
        saved = _read_config(folder)
        _check_version(folder, saved)
        _check_unchanged(folder, saved)
        if saved.get("kind") != kind:
            raise SavedModelError(
                f"{folder} holds a model of kind {saved.get('kind')!r}, but {kind!r} is needed. "
                f"Load it with the class that saved it."
            )
        try:
            weights = _read_weights(folder, saved.get("weights"))
            break
        except SavedModelError:
            if _read_config(folder) == saved:
                raise
    else:
        raise SavedModelError(
            f"{folder} was replaced {_MOST_READINGS} times while it was read. Let the processes "
            f"that save to it end."
        )
    try:
        tensors = read_safetensors(weights)
    except (SafetensorError, KeyError, ValueError, RuntimeError, AssertionError) as error:
        raise SavedModelError(
            f"the weights of {folder} are not readable safetensors: {error}. {_AGAIN}"
        ) from error
    try:
        config = _decode(saved.get("config"))
    except (ValueError, RecursionError) as error:
        raise SavedModelError(f"{folder / _CONFIG} is damaged: {error}. {_AGAIN}") from error
    if not isinstance(config, dict):
        raise SavedModelError(f"{folder / _CONFIG} has no config. {_AGAIN}")
    return config, tensors


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check the names and shapes of loaded tensors before a network takes them.

    Parameters
    ----------
    tensors
        As loaded.
    expected
        The shape of every tensor, by name.

    Raises
    ------
    SavedModelError
        Some are missing, unexpected, or of another shape; the message names every one.
    """
    faults = [f"{name!r} is missing" for name in expected if name not in tensors]
    faults += [f"{name!r} is unexpected" for name in tensors if name not in expected]
    faults += [
        f"{name!r} has shape {tuple(tensors[name].shape)}, but {tuple(shape)} is needed"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != tuple(shape)
    ]
    if faults:
        raise SavedModelError(
            f"the saved tensors do not fit the saved parameters: {'; '.join(faults)}. {_AGAIN}"
        )


def _readable(path: str | os.PathLike[str]) -> Path:
    """Return the path of a model's folder, of which the file system has no complaint."""
    text = os.fspath(path)
    if not text:
        raise SavedModelError("the path of the model is empty. Pass the folder that was saved.")
    try:
        if "\0" in text:
            raise ValueError("it holds a NUL")
        folder = Path(text)
        with suppress(FileNotFoundError, NotADirectoryError):
            folder.stat()  # is_dir() keeps quiet from Python 3.14 on
    except (OSError, ValueError) as error:  # too long a name, a loop of links, NUL
        shown = text if len(text) < 100 else f"{text[:97]}..."
        raise SavedModelError(f"{shown!r} is no path of a model: {error}. Check it.") from error
    return folder


def _checksum(saved: Mapping[str, Any]) -> str:
    """Return the sha256 of all that a config says, whatever its indentation and order."""
    rest = {name: value for name, value in saved.items() if name != _CHECKSUM}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_unchanged(folder: Path, saved: Mapping[str, Any]) -> None:
    if saved["format_version"] == 1 and _CHECKSUM not in saved:
        return  # it was written before there was one
    try:
        found = _checksum(saved)
    except (ValueError, RecursionError):
        found = ""
    if saved.get(_CHECKSUM) != found:
        raise SavedModelError(
            f"{folder / _CONFIG} was edited or damaged: its sha256 is not "
            f"{saved.get(_CHECKSUM)!r}. {_AGAIN}"
        )


def _read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a tsm2 model of any version and kind."""
    file = folder / _CONFIG
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise SavedModelError(
            f"{folder} {what}; a model is a folder with {_CONFIG} and its weights. Check the path."
        )
    if not file.is_file():
        raise SavedModelError(
            f"{folder} has no {_CONFIG}: it is no tsm2 model, or its first save was interrupted. "
            f"Check the path, or save the model again."
        )
    try:
        if file.stat().st_size > _MOST_CONFIG_BYTES:
            raise ValueError("it is larger than any config of tsm2")
        saved = json.loads(file.read_bytes(), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise SavedModelError(f"{file} cannot be read: {error}. {_AGAIN}") from error
    if not isinstance(saved, dict) or saved.get("format") != _MARK:
        raise SavedModelError(
            f'{file} was not written by tsm2 (it lacks "format": "{_MARK}"). Check the path.'
        )
    return saved


def _check_version(folder: Path, saved: Mapping[str, Any]) -> None:
    version = saved.get("format_version")
    if type(version) is not int or version < 1:
        raise SavedModelError(f"{folder} has no valid format_version, got {version!r}. {_AGAIN}")
    if version > FORMAT_VERSION:
        versions = saved.get("versions")
        writer = versions.get("tsm2", "?") if isinstance(versions, dict) else "?"
        raise SavedModelError(
            f"{folder} was written by tsm2 {writer} in format {version}, but tsm2 {__version__} "
            f"reads formats up to {FORMAT_VERSION}. Upgrade: pip install 'tsm2>={writer}'."
        )


def _read_weights(folder: Path, entry: object) -> bytes:
    """Return the weights file, checked against its size and sha256 in the config."""
    entry = entry if isinstance(entry, dict) else {}
    name, size, digest = entry.get("file"), entry.get("bytes"), entry.get("sha256")
    if not isinstance(name, str) or not _WEIGHTS_NAME.fullmatch(name):
        raise SavedModelError(
            f"{folder / _CONFIG} names no weights file of tsm2: {name!r}. {_AGAIN}"
        )
    file = folder / name
    try:
        found = file.stat().st_size
        if found != size:
            raise SavedModelError(
                f"{file} has {found} bytes, but {size} were written: it is truncated or replaced. "
                f"{_AGAIN}"
            )
        data = file.read_bytes()
    except OSError as error:
        raise SavedModelError(f"the weights {file} cannot be read: {error}. {_AGAIN}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise SavedModelError(f"{file} was edited or damaged: its sha256 is not {digest}. {_AGAIN}")
    header = int.from_bytes(data[:8], "little")
    if header > min(len(data) - 8, _MOST_HEADER_BYTES):
        raise SavedModelError(
            f"{file} claims a header of {header} bytes in a file of {len(data)}. {_AGAIN}"
        )
    return data


# --- JSON -----------------------------------------------------------------------------------------


def _encode(value: object, where: str, depth: int) -> object:
    """Return the value in JSON's types, strictly: what comes back is what went in."""
    if depth > _DEEPEST:
        raise SavedModelError(f"{where} is nested more than {_DEEPEST} deep, or contains itself.")
    if isinstance(value, np.generic):
        value = value.item()
    kind = type(value)
    if value is None or kind in (str, int, bool):
        return value
    if isinstance(value, float) and kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, list | tuple) and kind in (list, tuple):
        items = [_encode(each, f"{where}[{i}]", depth + 1) for i, each in enumerate(value)]
        return {"$tuple": items} if kind is tuple else items
    if isinstance(value, dict) and kind is dict:
        for key in value:
            if type(key) is not str or key.startswith("$"):
                raise SavedModelError(
                    f"{where} has the key {key!r}, but keys are text that does not start with '$'. "
                    f"Rename the key."
                )
        return {k: _encode(each, f"{where}[{k!r}]", depth + 1) for k, each in value.items()}
    raise SavedModelError(
        f"{where} is {value!r} of type {kind.__module__}.{kind.__qualname__}, which a model folder "
        f"cannot hold. Use text, numbers, booleans, None, lists, tuples or dicts."
    )


def _to_text(saved: dict[str, Any]) -> bytes:
    """Return a config as the text of its file, with its checksum."""
    try:
        sealed = saved | {_CHECKSUM: _checksum(saved)}
        return (json.dumps(sealed, indent=2, allow_nan=False) + "\n").encode()
    except ValueError as error:  # an integer of thousands of digits
        raise SavedModelError(f"the config cannot be written as JSON: {error}.") from error


def _decode(value: object) -> Any:
    if isinstance(value, list):
        return [_decode(each) for each in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"$tuple"} and isinstance(value["$tuple"], list):
        return tuple(_decode(each) for each in value["$tuple"])
    if set(value) == {"$float"} and value["$float"] in ("nan", "inf", "-inf"):
        return float(value["$float"])
    if any(key.startswith("$") for key in value):
        raise ValueError(f"it holds an unknown tag, {list(value)}")
    return {key: _decode(each) for key, each in value.items()}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
