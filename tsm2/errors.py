"""What tsm2 raises when a user's input cannot be used.

Every class is a `TSM2Error` and also the built-in exception that fits, so that
`except ValueError` keeps working. A message says what was given, what was needed,
and the way out.
"""

from sklearn.exceptions import NotFittedError as SklearnNotFittedError

__all__ = [
    "BackendError",
    "CalibrationWarning",
    "CaptureWarning",
    "CellTypeError",
    "CovariateWarning",
    "DatasetError",
    "DependencyError",
    "ExportWarning",
    "FloorWarning",
    "ForecastError",
    "FrameError",
    "FrequencyWarning",
    "NotFittedError",
    "OutputError",
    "ParameterError",
    "ProcessesWarning",
    "SavedModelError",
    "TSM2Error",
    "TrainingError",
    "WindowError",
]


class TSM2Error(Exception):
    """The parent of every error that tsm2 raises on purpose."""


class FrameError(TSM2Error, ValueError):
    """A table cannot be read as regular, finite, numeric time series."""


class CellTypeError(FrameError, TypeError):
    """A table, or a cell of it, is of a type that holds no numbers."""


class WindowError(TSM2Error, ValueError):
    """A series is too short for the windows that were asked for."""


class ParameterError(TSM2Error, ValueError, TypeError):
    """A parameter has the wrong type or lies outside its range."""


class NotFittedError(TSM2Error, SklearnNotFittedError):
    """A forecaster was asked for a forecast before `fit`."""


class BackendError(TSM2Error, RuntimeError):
    """A kernel backend or a device is unknown or cannot run here."""


class DependencyError(TSM2Error, ImportError):
    """A library that an optional part needs is not installed."""


class TrainingError(TSM2Error, ArithmeticError):
    """Training, or a forecast, left the finite numbers."""


class ForecastError(TSM2Error, ArithmeticError):
    """A forecast left the finite numbers."""


class SavedModelError(TSM2Error, ValueError):
    """A saved model is damaged, of a newer format, or not one of ours."""


class DatasetError(TSM2Error, OSError):
    """A dataset is unknown, missing, damaged, or cannot be fetched."""


class OutputError(TSM2Error, OSError):
    """A result cannot be written where it was asked for."""


class ExportWarning(UserWarning):
    """An exported file was written, but could not be run here."""


class FloorWarning(UserWarning):
    """A fitted model errs more on held-out rows than a forecast that costs nothing."""


class FrequencyWarning(UserWarning):
    """The rows of a table leave more than one frequency, and forecasts would differ."""


class CalibrationWarning(UserWarning):
    """Nothing is known of a variate on held-out rows, so that its intervals are not."""


class CaptureWarning(UserWarning):
    """What a GPU does again and again could not be captured, and is slower; it says why."""


class CovariateWarning(UserWarning):
    """A covariate is of no use to a fit and is left out."""


class ProcessesWarning(UserWarning):
    """A fit runs in one process, though a launcher was asked for several."""
