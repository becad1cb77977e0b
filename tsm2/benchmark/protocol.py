"""The long-horizon protocol: which rows train, choose and judge, and how errors are counted.

`RULES` states each rule with its source; the functions below are those rules. A model sees the
training and validation rows in `fit`, and of the test rows only the contexts it forecasts from.

    training windows      context and target lie in the training rows
    validation windows    targets in the validation rows, the context reaches back
    test windows          targets in the test rows, the context reaches back

Sizes: T rows, M variates, W windows, B windows in a batch, L lookback, H horizon.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tsm2 import datasets
from tsm2.datasets import Split
from tsm2.errors import ParameterError, TrainingError
from tsm2.prepared.scaling import Scaling
from tsm2.prepared.walk import Walk, cut_contexts

__all__ = [
    "RULES",
    "SAMPLE",
    "ForecastsContexts",
    "Rule",
    "Table",
    "TestErrors",
    "WindowCounts",
    "count_windows",
    "dataset_name",
    "horizons_of",
    "load_table",
    "measure_errors",
]

SAMPLE = "sample"
"""Name of the generated table, which needs no file."""

_SAMPLE_ROWS, _SAMPLE_HORIZONS = 2400, (24, 48)
_SEASONS = {"h": 24, "15min": 96, "10min": 144, "D": 7, "W-TUE": 52}  # rows
_CELLS = 2**23  # numbers that the contexts and targets of one batch may hold


class ForecastsContexts(Protocol):
    """What a model offers to be measured."""

    def forecast_contexts(self, contexts: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """Return forecasts, (B, H, M), for contexts, (B, L, M), both in the units of the table."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One rule of the protocol."""

    about: str
    """What it settles."""
    says: str
    """The rule."""
    source: str
    """Who set it."""


RULES = (
    Rule(
        about="rows",
        says="ETTh trains on 8,640 rows, validates on 2,880 and tests on 2,880, ETTm on four "
        "times as many, and later rows are not used; every other table of n rows trains on "
        "int(0.7 n), tests on the last int(0.2 n) and validates on the rest",
        source="Zhou et al. (2021), arXiv:2012.07436; Wu et al. (2021), arXiv:2106.13008",
    ),
    Rule(
        about="scaling",
        says="each variate minus its mean over its deviation, both from the training rows alone",
        source="Zhou et al. (2021), released loader",
    ),
    Rule(
        about="context",
        says="the context of a validation or test window may reach back into the rows before",
        source="Zhou et al. (2021), released loader",
    ),
    Rule(
        about="windows",
        says="one window per row (stride 1) and every window counts: no last batch is dropped",
        source="Qiu et al. (2024), arXiv:2403.20150, on what dropping it does to published errors",
    ),
    Rule(
        about="errors",
        says="MSE and MAE over all windows, steps and variates, on standardised values",
        source="Zhou et al. (2021)",
    ),
    Rule(
        about="choices",
        says="settings and the epoch to keep are chosen by validation rows; test rows judge",
        source="this project; Behrouz et al. (2024), arXiv:2403.19888, do not say",
    ),
)
"""The protocol in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A dataset as the protocol sees it: numbers in time order, without dates."""

    name: str
    """Name of the dataset."""
    values: NDArray[np.float64]
    """Rows up to the end of the test part, (T, M), in the file's units."""
    split: Split
    """Where the training, validation and test rows end."""
    season: int
    """Rows of a day; of a week for daily rows, and of a year for weekly ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowCounts:
    """Windows of each part of a table."""

    train: int
    """Training windows."""
    validation: int
    """Validation windows."""
    test: int
    """Test windows, all of which judge."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TestErrors:
    """Errors over every test window, on standardised values."""

    __test__ = False  # pytest takes the name for a test

    n_windows: int
    """Test windows W."""
    squared: NDArray[np.float64]
    """Mean squared error of each step, (H,)."""
    absolute: NDArray[np.float64]
    """Mean absolute error of each step, (H,)."""

    @property
    def mse(self) -> float:
        """Mean squared error over all steps."""
        return float(self.squared.mean())

    @property
    def mae(self) -> float:
        """Mean absolute error over all steps."""
        return float(self.absolute.mean())


def dataset_name(dataset: str) -> str:
    """Return the name of a dataset as the tables write it.

    Raises
    ------
    DatasetError
        No dataset has this name.

    Examples
    --------
    >>> dataset_name("etth1"), dataset_name("sample")
    ('ETTh1', 'sample')
    """
    is_sample = dataset.strip().casefold() == SAMPLE
    return SAMPLE if is_sample else datasets.describe(dataset).name


def horizons_of(dataset: str) -> tuple[int, ...]:
    """Return the horizons with published results; 24 and 48 for the sample.

    Examples
    --------
    >>> horizons_of("ILI")
    (24, 36, 48, 60)
    """
    return _SAMPLE_HORIZONS if dataset == SAMPLE else datasets.describe(dataset).horizons


def load_table(
    dataset: str, *, data_home: str | Path | None = None, download: bool = False
) -> Table:
    """Load a dataset up to the last row that the protocol uses.

    Parameters
    ----------
    dataset
        Name, or "sample" for the generated table.
    data_home
        Folder of the files, as in `tsm2.datasets.load`.
    download
        Whether a missing file may be downloaded.

    Raises
    ------
    DatasetError
        No dataset has this name, or its file is not to be had.
    """
    if dataset == SAMPLE:
        frame, frequency = datasets.load_sample(_SAMPLE_ROWS), "h"
    else:
        frame = datasets.load(dataset, data_home=data_home, download=download)
        frequency = datasets.describe(dataset).frequency
    split = _split(dataset)
    values = np.array(frame.iloc[: split.test_end], dtype=np.float64)
    return Table(name=dataset, values=values, split=split, season=_SEASONS[frequency])


def count_windows(dataset: str, *, lookback: int, horizon: int) -> WindowCounts:
    """Count the windows of each part; needs no file.

    Parameters
    ----------
    dataset
        Name, or "sample" for the generated table.
    lookback, horizon
        Rows that are read and forecast.

    Raises
    ------
    DatasetError
        No dataset has this name.
    WindowError
        A part has no window.

    Examples
    --------
    >>> count_windows("ETTh1", lookback=512, horizon=96).test
    2785
    """
    split = _split(dataset)
    ends = (split.train_end, split.validation_end, split.test_end)
    firsts = (lookback, split.train_end, split.validation_end)
    train, validation, test = (
        len(Walk(lookback=lookback, horizon=horizon, first=first).starts(end))
        for first, end in zip(firsts, ends, strict=True)
    )
    return WindowCounts(train=train, validation=validation, test=test)


def measure_errors(
    model: ForecastsContexts, table: Table, *, lookback: int, horizon: int
) -> TestErrors:
    """Forecast every test window and compare.

    Parameters
    ----------
    model
        What forecasts.
    table
        The dataset.
    lookback, horizon
        Rows that are read and forecast.

    Raises
    ------
    ParameterError
        The forecasts do not have the size that was asked for.
    TrainingError
        A forecast is not finite.
    """
    values, scale = table.values, Scaling.of(table.values[: table.split.train_end]).scale
    walk = Walk(lookback=lookback, horizon=horizon, first=table.split.validation_end)
    starts = walk.starts(len(values))
    size = max(1, min(256, _CELLS // (values.shape[1] * (lookback + horizon))))
    squared, absolute = np.zeros(horizon), np.zeros(horizon)
    sizes = {"lookback": lookback, "horizon": horizon, "size": size}
    for context, actual in cut_contexts(values, starts, **sizes):
        forecast = model.forecast_contexts(context, horizon)
        _check_forecast(forecast, actual.shape)
        errors = (forecast - actual) / scale
        squared += np.square(errors).mean(axis=2).sum(axis=0)
        absolute += np.abs(errors).mean(axis=2).sum(axis=0)
    windows = len(starts)
    return TestErrors(n_windows=windows, squared=squared / windows, absolute=absolute / windows)


def _check_forecast(forecast: NDArray[np.float64], wanted: tuple[int, ...]) -> None:
    if forecast.shape != wanted:
        raise ParameterError(
            f"forecast_contexts returned the shape {forecast.shape}, but {wanted} (windows, "
            f"horizon, variates) is needed."
        )
    if not np.isfinite(forecast).all():
        raise TrainingError("a forecast is NaN or infinite; this run has no errors to report.")


def _split(dataset: str) -> Split:
    if dataset != SAMPLE:
        return datasets.borders(dataset)
    train, test = int(0.7 * _SAMPLE_ROWS), int(0.2 * _SAMPLE_ROWS)
    return Split(train, _SAMPLE_ROWS - test, _SAMPLE_ROWS)
