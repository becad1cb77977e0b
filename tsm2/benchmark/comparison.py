"""Compare: one honest backtest of many models on a table of one's own, and a page that shows it.

    table -> Task -> one run per model, as the benchmark runs them -> tables, pictures, a page

Every model sees the same rows and forecasts the same windows. Nothing is tuned by hand: what a
model chooses, it chooses from rows before the first forecast.

Sizes: S series, M variates, W windows, H horizon, Q quantiles.
"""

import os
from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsm2 import metrics
from tsm2.benchmark.job import Job
from tsm2.benchmark.models import ModelName
from tsm2.benchmark.pages import Section, as_image, render, styled
from tsm2.benchmark.results import KEY, read_results, run_folder
from tsm2.benchmark.rivals import RivalSetup, check_rival, installed
from tsm2.benchmark.runner import NotRun, run_jobs
from tsm2.benchmark.task import Task, default_windows
from tsm2.errors import OutputError, ParameterError, TrainingError
from tsm2.parameters import check_count
from tsm2.plotting.figures import COLORS, HISTORY, TRUTH, Line, Panel, draw, to_png
from tsm2.plotting.forecasts import plot_forecast
from tsm2.prepared.prepared import filled
from tsm2.prepared.seasons import season_of
from tsm2.tables.gaps import Missing
from tsm2.tables.quantiles import bound_name, interval_levels
from tsm2.tables.read import Data, LongColumns, read

__all__ = ["Comparison", "compare"]

_OURS = "TSM2"
_REFIT_ROWS = 2000  # up to which models are fitted again before every forecast
_ROWS = 40  # of a table on the page


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What came of a comparison; a notebook shows it."""

    name: str
    """What the table is called."""
    task: Task
    """The rows, and how they were split."""
    points: Mapping[str, NDArray[np.float64]]
    """Point forecasts of each model, (W, S, H, M)."""
    quantiles: Mapping[str, NDArray[np.float64]]
    """Bounds of the interval, (W, S, H, M, 2), of the models that give them."""
    seconds: pd.DataFrame
    """Seconds of each model: `fit` and `predict`, over all windows."""
    legend: Mapping[str, str]
    """What each model was given beside the horizon."""
    not_run: tuple[NotRun, ...]
    """Models without a result, with the reasons."""

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """Errors of every model, the best first.

        `MASE` (the mean absolute error over that of the seasonal naive forecast one season ahead on
        the rows before the first forecast; a mean over series and columns), `MAE` in the table's
        units, `quantile loss` of the interval's bounds, scaled as MASE, the share of outcomes in
        the interval, such as `coverage-80`, how often it is best (`wins`), and seconds.
        """
        missed = self._absolute
        scale = self.task.scale()[:, None]
        wins = self.by_column.idxmin(axis=1).value_counts()
        rows = {}
        for label in self.points:
            own = {"MASE": _mean(missed[label] / scale), "MAE": _mean(missed[label])}
            own |= {"quantile loss": np.nan, self._coverage: np.nan}
            if label in self.quantiles:
                bounds = self.quantiles[label]
                losses = metrics.quantile_loss(self._actual, bounds, self.task.levels, axis=())
                inside = metrics.coverage(self._actual, bounds[..., 0], bounds[..., 1], axis=())
                own["quantile loss"] = _mean(losses / scale)
                own[self._coverage] = _mean(np.where(np.isnan(self._actual), np.nan, inside))
            own["wins"] = int(wins.get(label, 0))
            rows[label] = own | self.seconds.loc[label].add_suffix(" seconds").to_dict()
        table = pd.DataFrame(rows).T.rename_axis("model").sort_values("MASE", kind="stable")
        return table.astype({"wins": int})

    @cached_property
    def by_step(self) -> pd.DataFrame:
        """MASE of every model (column) at every step of the horizon (row)."""
        scale = self.task.scale()[:, None]
        steps = pd.RangeIndex(1, self.task.horizon + 1, name="step")
        means = {
            label: [_mean(each) for each in np.moveaxis(missed / scale, 2, 0)]
            for label, missed in self._absolute.items()
        }
        return pd.DataFrame(means, index=steps)

    @cached_property
    def by_column(self) -> pd.DataFrame:
        """MAE in the table's units of every model (column), for every column or series (row)."""
        found = {
            label: [
                _mean(missed[:, number, :, variate])
                for number in range(missed.shape[1])
                for variate in range(missed.shape[3])
            ]
            for label, missed in self._absolute.items()
        }
        layout, ids = self.task.series.layout, self.task.series.ids
        names: list[Hashable] = list(layout.columns)
        if not layout.alone:
            names = [
                name if len(layout.columns) == 1 else f"{name}: {column}"
                for name in ids
                for column in layout.columns
            ]
        kind = "column" if layout.alone else "series"
        return pd.DataFrame(found, index=pd.Index(names, name=kind, tupleize_cols=False))

    @cached_property
    def forecasts(self) -> pd.DataFrame:
        """Every forecast beside what happened, as `TSM2Forecaster.backtest` has them, by model."""
        tables = []
        task, layout = self.task, self.task.series.layout
        n_series, n_variates = len(task.series.ids), len(layout.columns)
        per_series = task.horizon * n_variates
        for window in range(task.windows):
            cutoffs, stamps = task.stamps(window)
            base = pd.DataFrame(
                {
                    "cutoff": cutoffs.repeat(per_series),
                    "step": np.tile(np.arange(1, task.horizon + 1).repeat(n_variates), n_series),
                    "time": stamps.repeat(n_variates),
                    "variate": pd.Index(layout.columns, tupleize_cols=False).tolist()
                    * (n_series * task.horizon),
                    "actual": self._actual[window].ravel(),
                }
            )
            if not layout.alone:
                names = pd.Index(task.series.ids, tupleize_cols=False)
                base.insert(0, "series", names.repeat(per_series))
            for label, point in self.points.items():
                own = base.assign(forecast=point[window].ravel())
                for place, level in enumerate(task.levels):
                    bounds = self.quantiles.get(label)
                    column = np.nan if bounds is None else bounds[window, ..., place].ravel()
                    own[bound_name(level)] = column
                own.insert(0, "model", label)
                tables.append(own)
        return pd.concat(tables, ignore_index=True)

    # --- seen ---------------------------------------------------------------------------------

    def plot(
        self,
        models: Sequence[str] | None = None,
        *,
        series: Hashable = None,
        columns: Sequence[Hashable] | None = None,
        window: int = -1,
        max_variates: int = 4,
        **how: Any,
    ) -> Any:
        """Draw one window: what happened, and what models forecast.

        Parameters
        ----------
        models
            Whose forecasts; None for the best model's and TSM2's.
        series
            Name of the series, of several; None for the first.
        columns, max_variates
            Variates to draw, as for `tsm2.plotting.plot_forecast`.
        window
            Which forecast: 0 for the first, -1 for the last.
        **how
            Passed to `tsm2.plotting.plot_forecast`: units, title, ax, backend.

        Raises
        ------
        ParameterError
            A model, a series, a column or a window is not there, or matplotlib is not installed.
        """
        shown = self._shown() if models is None else list(models)
        unknown = [label for label in shown if label not in self.points]
        if unknown or not shown:
            raise ParameterError(f"models must name some of {', '.join(self.points)}.")
        task = self.task
        ids = task.series.ids
        if series is not None and series not in ids:
            raise ParameterError(f"there is no series {series!r}; the first is {ids[0]!r}.")
        if not -task.windows <= window < task.windows:
            raise ParameterError(f"there are {task.windows} windows, but window is {window}.")
        number = 0 if series is None else ids.index(series)
        window %= task.windows
        names = pd.Index(task.series.layout.columns, tupleize_cols=False)
        known = task.known(window)
        rows = slice(*known.offsets[number : number + 2])
        stamps = task.stamps(window)[1][number * task.horizon :][: task.horizon]
        pairs = pd.MultiIndex.from_product([names, task.levels])
        return plot_forecast(
            pd.DataFrame(known.values[rows], known.index[rows], names),
            {
                label: pd.DataFrame(self.points[label][window, number], stamps, names)
                for label in shown
            },
            truth=pd.DataFrame(self._actual[window, number], stamps, names),
            interval={
                label: pd.DataFrame(
                    self.quantiles[label][window, number].reshape(task.horizon, -1), stamps, pairs
                )
                for label in shown
                if label in self.quantiles
            },
            columns=columns,
            max_variates=max_variates,
            **how,
        )

    def plot_steps(self, **how: Any) -> Any:
        """Draw the error of every model at every step of the horizon.

        Parameters
        ----------
        **how
            `title`, `ax` and `backend`, as for `tsm2.plotting.plot_errors`.
        """
        order = list(self.leaderboard.index)
        own = {_OURS: COLORS[0], "SeasonalNaive": HISTORY, "RepeatLast": TRUTH}
        others = [label for label in order if label not in own]
        colors = own | {label: COLORS[1 + n % (len(COLORS) - 1)] for n, label in enumerate(others)}
        lines = [
            Line(
                x=self.by_step.index,
                y=self.by_step[label],
                label=label,
                color=colors[label],
                width=2.4 if label == _OURS else 1.2,
            )
            for label in order
        ]
        panel = Panel(x_label="step", y_label="MASE", parts=lines, from_zero=True)
        return draw([panel], size=(9, 3.6), **how)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the page, one file that needs no other, and write it if a path is given.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        page = render(
            f"{self.name}: forecasts compared",
            self._sections(),
            facts=self._facts(),
            headline=self._headline(),
        )
        if path is not None:
            try:
                Path(path).write_text(page, encoding="utf-8")
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        return page

    def _repr_html_(self) -> str:
        picture = _picture(self.plot)
        image = f'<p><img src="{picture}" style="max-width:100%"></p>' if picture else ""
        return f"<p>{self._headline()}</p>{styled(self._board())}{image}"

    def __repr__(self) -> str:
        return f"{self._headline()}\n{self.leaderboard.round(3).to_string()}"

    # --- parts --------------------------------------------------------------------------------

    @cached_property
    def _actual(self) -> NDArray[np.float64]:
        return np.stack([self.task.happened(window) for window in range(self.task.windows)])

    @cached_property
    def _absolute(self) -> dict[str, NDArray[np.float64]]:
        return {label: np.abs(point - self._actual) for label, point in self.points.items()}

    @property
    def _coverage(self) -> str:
        low, high = self.task.levels
        return f"coverage-{100 * (high - low):g}"

    def _shown(self) -> list[str]:
        """Return the best model and ours; if ours is the best, the next one too."""
        order = list(self.leaderboard.index)
        ours = [_OURS] if _OURS in order else []
        return list(dict.fromkeys([*ours, *[label for label in order if label != _OURS][:1]]))

    def _headline(self) -> str:
        board = self.leaderboard["MASE"]
        best = board.index[0]
        text = f"{best} has the lowest error, MASE {board.iloc[0]:.3f}"
        if best != _OURS and _OURS in board:
            place = list(board.index).index(_OURS) + 1
            text += f"; {_OURS} is number {place} of {len(board)}, MASE {board[_OURS]:.3f}"
        return text + "."

    def _facts(self) -> str:
        task, layout = self.task, self.task.series.layout
        counts = task.series.counts
        n_series, n_columns = len(counts), len(layout.columns)
        rows = f"{counts.min():,}" + ("" if counts.min() == counts.max() else f"-{counts.max():,}")
        what = f"{rows} rows of {n_columns} column{'s' if n_columns > 1 else ''}"
        if not layout.alone:
            what = f"{n_series} series of {rows} rows"
        season = f"season {task.season}" if task.season > 1 else "no season"
        again = "fitted anew before each" if task.refit else "trained once, before the first"
        return (
            f"{what}; horizon {task.horizon}, {season}; forecasts of each: {task.windows}, "
            f"{task.stride} rows apart; models {again}."
        )

    def _board(self) -> pd.DataFrame:
        """Return the leaderboard as text, with the best of each measure marked."""
        board = self.leaderboard
        cells = {"model": list(board.index)}
        for name in map(str, board):
            digits = 1 if name.endswith("seconds") else 0 if name == "wins" else 3
            digits = 2 if name == self._coverage else digits
            best = None
            if name in ("MASE", "MAE", "quantile loss"):
                best = board[name].min()
            cells[name] = [_cell(value, digits, best) for value in board[name]]
        return pd.DataFrame(cells)

    def _sections(self) -> list[Section]:
        low, high = self.task.levels
        sections = [
            Section(
                title="Leaderboard",
                text=f"MASE and MAE: lower is better; MASE 1 is as good as the seasonal naive "
                f"forecast one season ahead. Quantile loss: of both bounds of the interval, "
                f"scaled as MASE. Coverage should be {high - low:.2f}. Wins: in how many "
                f"{_plural(self.by_column)} a model has the lowest MAE. Seconds: in all.",
                table=self._board(),
            )
        ]
        forecast = _picture(self.plot)
        if forecast:
            names = " and ".join(self._shown())
            text = f"The last forecast of {names}, beside what happened."
            sections.append(Section(title="Forecast", text=text, image=forecast))
        steps = _picture(self.plot_steps)
        if steps:
            sections.append(Section(title="Error by step", image=steps))
        by_column = self.by_column
        cells = {by_column.index.name: list(map(str, by_column.index))}
        best = by_column.min(axis=1)
        for label in self.leaderboard.index:
            values = zip(by_column[label], best, strict=True)
            cells[label] = [_cell(value, None, least) for value, least in values]
        hidden = len(by_column) - _ROWS
        more = f" The first {_ROWS}; {hidden} more are left out." if hidden > 0 else ""
        sections.append(
            Section(
                title=f"Error by {by_column.index.name}",
                text=f"MAE in the table's units; the best of a row is marked.{more}",
                table=pd.DataFrame(cells).head(_ROWS),
            )
        )
        models = tuple(f"{label}: {self.legend[label]}" for label in self.leaderboard.index)
        sections.append(Section(title="Models", items=models))
        if self.not_run:
            items = tuple(f"{each.what}: {each.reason}" for each in self.not_run)
            sections.append(Section(title="Not run", items=items))
        return sections


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean of what is known."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _cell(value: float, digits: int | None, best: float | None) -> str:
    if np.isnan(value):
        return ""
    text = f"{value:.4g}" if digits is None else f"{value:.{digits}f}"
    return f"**{text}**" if best is not None and value == best else text


def _plural(by_column: pd.DataFrame) -> str:
    kind = str(by_column.index.name)
    return kind if kind == "series" else kind + "s"


def _picture(make: Any) -> str:
    """Return a picture for a page; nothing where matplotlib is not installed."""
    try:
        return as_image(to_png(make()))
    except ParameterError:
        return ""


# --- the comparison -------------------------------------------------------------------------------


def compare(
    X: Data,
    horizon: int,
    *,
    models: Sequence[str] | None = None,
    season: int | None = None,
    windows: int | None = None,
    stride: int | None = None,
    coverage: float = 0.8,
    refit: bool | Literal["auto"] = "auto",
    missing: Missing = "raise",
    id_col: str = "unique_id",
    time_col: str = "ds",
    target_col: str | Sequence[str] = "y",
    seed: int = 0,
    jobs: int = 1,
    threads: int = 1,
    device: str = "cpu",
    name: str = "table",
    out: str | os.PathLike[str] | None = None,
    verbose: int = 0,
) -> Comparison:
    """Compare models on a table of your own by one rolling backtest.

    Parameters
    ----------
    X
        One table or several series, as `TSM2Forecaster.fit` takes them. All columns are forecast.
    horizon
        Rows to forecast.
    models
        Names, see `tsm2.benchmark.rivals`; None for the floor, TSM2, and those of ETS, Theta and
        LightGBM whose library is installed.
    season
        Rows of a season; None for that of the frequency.
    windows
        Forecasts of each series that judge; None for as many as a fifth of the rows holds, ten at
        most, and three at least where these take no more than a third of the shortest series.
    stride
        Rows from one forecast to the next; None for the horizon.
    coverage
        Of the interval that is forecast too.
    refit
        Whether models that are trained are trained again before every forecast; "auto" does so for
        up to 2,000 rows. ETS and Theta always are.
    missing
        "raise" refuses gaps, "ffill" lets every model read the value before; what is unknown judges
        nothing.
    id_col, time_col, target_col
        Columns of a long frame, as in `TSM2Forecaster`.
    seed
        Seed of all that is random.
    jobs, threads
        Runs side by side, and threads of each.
    device
        Where to train: "auto", "cpu", "cuda" or "mps".
    name
        What the table is called.
    out
        Folder for the runs, made if missing; those that it holds do not run again. None keeps
        nothing.
    verbose
        1 shows progress with the time left on standard error.

    Returns
    -------
    Tables and pictures of the errors; `to_html` writes one page.

    Raises
    ------
    FrameError
        The table is irregular, not numeric or not finite.
    WindowError
        There are too few rows.
    ParameterError
        A model does not exist or cannot be made with its parameters, or an argument is out of
        range.
    TrainingError
        No model has a result; the message says why.
    OutputError
        The folder cannot be written.
    """
    if missing not in ("raise", "ffill"):
        raise ParameterError(f"missing must be 'raise' or 'ffill', got {missing!r}.")
    steps = check_count("horizon", horizon)
    for what, count in (("jobs", jobs), ("threads", threads)):
        check_count(what, count)
    long = LongColumns(
        id=id_col,
        time=time_col,
        target=target_col if isinstance(target_col, str) else tuple(target_col),
    )
    series = read(X, long=long, missing=missing)
    known = filled(series, missing)
    task = Task(
        series=known,
        actual=series.values,
        horizon=steps,
        windows=default_windows(known, steps)
        if windows is None
        else check_count("windows", windows),
        stride=steps if stride is None else check_count("stride", stride),
        season=(season_of(known.layout) or 1) if season is None else check_count("season", season),
        levels=interval_levels(coverage),
        refit=bool(known.counts.max() <= _REFIT_ROWS) if refit == "auto" else refit,
    )
    named = {text.strip(): ModelName.read(text) for text in models or installed()}
    for model in named.values():
        check_rival(
            model.name, RivalSetup.of(task, seed=seed, device=device, parameters=model.parameters)
        )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()) if out is None else out)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            runs = folder / "runs.csv"
            kept = run_folder(runs) / task.digest
            kept.mkdir(exist_ok=True)
            task.save(kept)
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
        planned = {
            label: Job(
                dataset=f"{name} {task.digest}",
                lookback=0,
                horizon=steps,
                label=label,
                model=model.name,
                parameters=dict(model.parameters),
                seed=seed,
                device=device,
                threads=threads,
                task=str(kept),
            )
            for label, model in named.items()
        }
        failed = run_jobs(list(planned.values()), runs, n_jobs=jobs, show=bool(verbose))
        return _gathered(name, task, planned, runs, kept, tuple(failed))


def _gathered(
    name: str,
    task: Task,
    planned: Mapping[str, Job],
    runs: Path,
    kept: Path,
    failed: tuple[NotRun, ...],
) -> Comparison:
    """Read what the runs left."""
    rows = {
        tuple(map(str, row)): number
        for number, row in enumerate(read_results(runs)[list(KEY)].itertuples(index=False))
    }
    results = read_results(runs)
    points, quantiles, seconds = {}, {}, {}
    for label, job in planned.items():
        if job.key not in rows:
            continue
        with np.load(kept / f"{job.stem}.npz", allow_pickle=False) as arrays:
            points[label] = arrays["point"]
            if "quantiles" in arrays:
                quantiles[label] = arrays["quantiles"]
        row = results.iloc[rows[job.key]]
        seconds[label] = {"fit": row["fit_seconds"], "predict": row["predict_seconds"]}
    if not points:
        reasons = " ".join(f"{each.what}: {each.reason}" for each in failed)
        raise TrainingError(f"no model has a result. {reasons}")
    legend = {
        label: ", ".join(f"{n}={v!r}" for n, v in planned[label].parameters.items())
        or "nothing but the horizon"
        for label in points
    }
    return Comparison(
        name=name,
        task=task,
        points=points,
        quantiles=quantiles,
        seconds=pd.DataFrame(seconds).T.astype(float),
        legend=legend,
        not_run=failed,
    )
