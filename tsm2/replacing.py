"""Replacing: a file takes the place of another in one step, when it is whole, or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tsm2.errors import OutputError

__all__ = ["replacing"]


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield where to write a file that takes the place of `file` in one step, or not at all.

    It is beside `file` in a folder that only we can enter, under a name that cannot be foreseen.

    Raises
    ------
    OutputError
        A link, a device or a folder is there, or nothing can be written.
    """
    if os.path.lexists(file) and not stat.S_ISREG(os.lstat(file).st_mode):
        raise OutputError(
            f"{file} is a link, a folder or a device, which is not replaced. Choose another path, "
            f"or remove it first."
        )
    try:
        with TemporaryDirectory(prefix=".writing-", dir=file.absolute().parent) as folder:
            part = Path(folder) / file.name
            yield part
            os.replace(part, file)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error}. What was there is unchanged.") from error
