"""tsm2: forecast your own tables with a selective state-space model.

The public names are loaded on first use, so that `import tsm2` stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsm2.benchmark.comparison import Comparison as Comparison
    from tsm2.benchmark.comparison import compare as compare
    from tsm2.errors import TSM2Error as TSM2Error
    from tsm2.forecaster import TSM2Forecaster as TSM2Forecaster

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "tsm2.benchmark.comparison",
    "compare": "tsm2.benchmark.comparison",
    "TSM2Error": "tsm2.errors",
    "TSM2Forecaster": "tsm2.forecaster",
}

__all__ = ["Comparison", "TSM2Error", "TSM2Forecaster", "__version__", "compare"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tsm2' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
