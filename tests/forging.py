"""Model folders that somebody edited on purpose, checksum and all."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tsm2 import saving

__all__ = ["change_config", "forge_config", "forge_weights", "weights_file"]


def weights_file(folder: Path) -> Path:
    """Return the one weights file of a folder."""
    (file,) = folder.glob("model-*.safetensors")
    return file


def change_config(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Let a function change what config.json says; the checksum is that of what it then says."""
    file = folder / "config.json"
    file.write_bytes(saving._to_text(change(json.loads(file.read_text()))))


def forge_config(folder: Path, old: str, new: str) -> None:
    """Replace text that config.json holds, whatever the white space in it."""
    file = folder / "config.json"
    pattern = re.sub(r"(\\ )+|\\\n", r"\\s*", re.escape(old))
    text, count = re.subn(pattern, lambda _: new, file.read_text())
    assert count, f"config.json does not hold {old}"
    file.write_text(text)
    change_config(folder, lambda saved: saved)


def forge_weights(folder: Path, data: bytes) -> None:
    """Write weights whose size and checksum agree with the config."""
    file = weights_file(folder)
    file.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    entry = {"file": file.name, "bytes": len(data), "sha256": digest}
    change_config(folder, lambda saved: saved | {"weights": entry})
