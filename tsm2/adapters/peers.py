"""What an adapter says when the library that it adapts to is not installed."""

from tsm2.errors import DependencyError

__all__ = ["missing_peer"]


def missing_peer(error: ModuleNotFoundError, extra: str) -> DependencyError:
    """Return the error that names the missing library and the extra that installs it.

    Parameters
    ----------
    error
        As Python raised it.
    extra
        Name of the extra, which is also that of the adapter's module.
    """
    return DependencyError(
        f"tsm2.adapters.{extra} needs {error.name}, which is not installed. Install it with "
        f"tsm2's extra {extra!r}: pip install 'tsm2[{extra}]'."
    )
