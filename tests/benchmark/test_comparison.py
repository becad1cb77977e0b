"""A comparison judges every model by the same rows, and its page shows what it found."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tsm2
from tsm2.benchmark import runner
from tsm2.benchmark.job import Job, JobFailedError, Measurement, measure
from tsm2.benchmark.rivals import RivalSetup, make_rival
from tsm2.benchmark.task import Task
from tsm2.errors import FrameError, OutputError, ParameterError, TrainingError, WindowError
from tsm2.metrics import mase
from tsm2.tables.read import read

NAIVE = ["RepeatLast", "SeasonalNaive"]
TINY = "TSM2(features=4, max_epochs=1, lookback=24)"


@pytest.fixture(autouse=True)
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Spare the tests the seconds of a process per run; returns the jobs that were run."""
    jobs: list[Job] = []

    def run_here(job: Job, log: Path) -> Measurement:
        jobs.append(job)
        return measure(job)

    monkeypatch.setattr(runner, "run_apart", run_here)
    return jobs


def waves(rows: int = 240, start: str = "2024-01-01") -> pd.DataFrame:
    t = np.arange(rows)
    noise = np.random.default_rng(0).normal(0, 0.1, (rows, 2))
    values = np.stack((np.sin(t * 2 * np.pi / 24), 9 + t / 50), axis=1) + noise
    return pd.DataFrame(values, pd.date_range(start, periods=rows, freq="h"), ["sun", "load"])


def panel() -> pd.DataFrame:
    parts = [
        pd.DataFrame({"unique_id": name, "ds": each.index, "y": each["sun"].to_numpy()})
        for name, each in {"north": waves(240), "south": waves(200, "2024-03-01")}.items()
    ]
    return pd.concat(parts, ignore_index=True)


def test_errors_are_those_of_every_window() -> None:
    frame = waves()
    found = tsm2.compare(frame, 12, models=NAIVE, windows=3)
    board = found.leaderboard
    forecast = np.stack([np.tile(frame.to_numpy()[n - 1], (12, 1)) for n in (204, 216, 228)])
    actual = np.stack([frame.to_numpy()[n : n + 12] for n in (204, 216, 228)])
    wanted = mase(actual, forecast, frame.to_numpy()[:204], season=24, axis=(0, 1)).mean()
    assert board.loc["RepeatLast", "MASE"] == pytest.approx(wanted)
    assert board.loc["RepeatLast", "MAE"] == pytest.approx(np.abs(forecast - actual).mean())
    assert board["wins"].sum() == 2  # one model is best at each column
    assert board["MASE"].is_monotonic_increasing
    steps = np.abs(forecast - actual) / found.task.scale()
    np.testing.assert_allclose(found.by_step["RepeatLast"], steps.mean((0, 2)))
    columns = np.abs(forecast - actual).mean((0, 1))
    np.testing.assert_allclose(found.by_column["RepeatLast"], columns)
    table = found.forecasts
    assert list(table)[:6] == ["model", "cutoff", "step", "time", "variate", "actual"]
    own = table[table["model"] == "RepeatLast"]
    np.testing.assert_allclose(own["forecast"], forecast.ravel())
    np.testing.assert_allclose(own["actual"], actual.ravel())
    assert own["time"].iloc[-1] == frame.index[-1]
    assert own["cutoff"].iloc[0] == frame.index[203]


def test_our_model_and_rlinear_run_with_nothing_set_but_the_horizon() -> None:
    found = tsm2.compare(waves(), 6, models=["RLinear(max_epochs=1)", TINY], windows=2, stride=6)
    board: Any = found.leaderboard
    assert sorted(board.index) == ["RLinear(max_epochs=1)", TINY]
    assert 0 < board.loc[TINY, "coverage-80"] <= 1
    assert board.loc[TINY, "quantile loss"] > 0
    assert np.isnan(board.loc["RLinear(max_epochs=1)", "coverage-80"])
    assert found.legend[TINY].startswith("features=4")


def test_a_pretrained_network_is_compared_like_a_fitted_one() -> None:
    found = tsm2.compare(panel(), 6, models=["RepeatLast", "TSM2Zero"], windows=2, season=24)
    board: Any = found.leaderboard
    assert board.loc["TSM2Zero", "MASE"] < board.loc["RepeatLast", "MASE"]
    assert board.loc["TSM2Zero", ["coverage-80", "quantile loss"]].notna().all()
    model = tsm2.TSM2Forecaster.from_pretrained("zero", season=24, device="cpu")
    known = panel().groupby("unique_id").head(-6)
    forecast: Any = model.predict(known, horizon=6)
    table: Any = found.forecasts
    last = table[(table["model"] == "TSM2Zero") & (table["series"] == "south")].tail(6)
    south = forecast[forecast["unique_id"] == "south"]
    np.testing.assert_allclose(last["forecast"], south["y"], rtol=1e-5)


def test_several_series_are_each_forecast_to_their_own_end() -> None:
    models = [*NAIVE, "RLinear(max_epochs=1)", "sklearn:Ridge", TINY]
    found = tsm2.compare(panel(), 6, models=models, windows=2)
    assert found.not_run == ()
    assert list(found.by_column.index) == ["north", "south"]
    table = found.forecasts
    last = table.groupby("series")["time"].max()
    assert last.to_dict() == panel().groupby("unique_id")["ds"].max().to_dict()
    (one,) = found.plot(["SeasonalNaive"], series="south").axes
    lines = {each.get_label(): each.get_ydata() for each in one.get_lines()}
    np.testing.assert_allclose(lines["truth"][1:], panel()["y"].to_numpy()[-6:])


@pytest.mark.parametrize("refit", [False, True])
def test_a_trained_model_is_trained_as_often_as_it_says(
    refit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Counts:
        def fit(self, known: Any) -> None:
            seen.append(len(known.values))

        def forecast(self, known: Any) -> Any:
            return SimpleNamespace(point=np.zeros((1, 6, 2)), quantiles=None)

    monkeypatch.setattr("tsm2.benchmark.job.make_rival", lambda name, setup: Counts())
    tsm2.compare(waves(), 6, models=["RepeatLast"], windows=2, refit=refit)
    assert seen == ([228, 234] if refit else [228])


def test_a_folder_keeps_the_runs(tmp_path: Path, ran: list[Job]) -> None:
    first = tsm2.compare(waves(), 6, models=NAIVE, out=tmp_path)
    again = tsm2.compare(waves(), 6, models=[*NAIVE, "SeasonalNaive(period=12)"], out=tmp_path)
    assert len(ran) == 3
    pd.testing.assert_frame_equal(
        first.leaderboard.loc[["RepeatLast"]], again.leaderboard.loc[["RepeatLast"]]
    )
    tsm2.compare(waves(241), 6, models=NAIVE, out=tmp_path)  # another table is another task
    assert len(ran) == 5


def test_gaps_are_filled_for_all_and_judge_nothing() -> None:
    frame = waves()
    frame.iloc[-3, 0] = np.nan
    with pytest.raises(FrameError):
        tsm2.compare(frame, 6, models=NAIVE)
    found = tsm2.compare(frame, 6, models=["RepeatLast"], missing="ffill", windows=1)
    known = (frame.iloc[-6:] - frame.iloc[-7]).abs().to_numpy()
    assert found.leaderboard.loc["RepeatLast", "MAE"] == pytest.approx(np.nanmean(known))
    frame.iloc[0, 1] = np.nan
    with pytest.raises(FrameError, match="there is none at the start"):
        tsm2.compare(frame, 6, models=NAIVE, missing="ffill")


def test_a_page_holds_its_tables_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = tsm2.compare(waves().rename(columns={"sun": "<sun>"}), 6, models=NAIVE, name="waves")
    page = found.to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    assert page.count("data:image/png;base64,") == 2
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)  # nothing is loaded
    for title in ("Leaderboard", "Forecast", "Error by step", "Error by column", "Models"):
        assert f"<h2>{title}</h2>" in page
    best = found.leaderboard["MASE"].iloc[0]
    assert f'best" >{best:.3f}<' in page
    assert "&lt;sun&gt;" in page
    assert "<sun>" not in page
    assert "has the lowest error" in found._repr_html_()
    lines = found.plot_steps().axes[0].get_lines()
    assert [each.get_label() for each in lines] == list(found.leaderboard.index)
    with pytest.raises(OutputError):
        found.to_html(tmp_path / "no" / "page.html")


def test_mistakes(tmp_path: Path, ran: list[Job]) -> None:
    with pytest.raises(ParameterError, match="no model is named 'Prophet'"):
        tsm2.compare(waves(), 6, models=["Prophet"])
    with pytest.raises(ParameterError, match="SeasonalNaive cannot be made"):
        tsm2.compare(waves(), 6, models=["SeasonalNaive(depth=3)"])
    with pytest.raises(WindowError, match="Lower windows or horizon"):
        tsm2.compare(waves(60), 24, models=NAIVE, windows=3)
    with pytest.raises(ParameterError, match="horizon must be an integer of at least 1"):
        tsm2.compare(waves(), 0, models=NAIVE)
    with pytest.raises(ParameterError, match="'raise' or 'ffill'"):
        tsm2.compare(waves(), 6, models=NAIVE, missing="mask")
    assert ran == []
    found = tsm2.compare(waves(), 6, models=NAIVE)
    with pytest.raises(ParameterError, match="models must name some of"):
        found.plot(["TSM2"])
    with pytest.raises(ParameterError, match="there is no series"):
        found.plot(series="north")


def test_what_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(job: Job, log: Path) -> Measurement:
        if job.model == "RepeatLast":
            raise JobFailedError("no luck today")
        return measure(job)

    monkeypatch.setattr(runner, "run_apart", fails)
    found = tsm2.compare(waves(), 6, models=NAIVE)
    assert [each.reason for each in found.not_run] == ["no luck today"]
    assert "no luck today" in found.to_html()
    with pytest.raises(TrainingError, match="no model has a result"):
        tsm2.compare(waves(), 6, models=["RepeatLast"])


# --- other libraries ------------------------------------------------------------------------------


def setup(**parameters: object) -> RivalSetup:
    return RivalSetup(horizon=6, season=24, levels=(0.1, 0.9), parameters=parameters)


@pytest.mark.filterwarnings("ignore:The copy keyword")  # of pandas, by the libraries
@pytest.mark.parametrize("name", ["ETS", "Theta", "statsforecast:SeasonalNaive", "LightGBM"])
def test_statistical_and_boosted_models(name: str) -> None:
    pytest.importorskip("statsforecast")
    pytest.importorskip("mlforecast")
    known = read(panel()).head(np.array([200, 180]))
    model = make_rival(name, setup())
    model.fit(known)
    found = model.forecast(known)
    assert found.point.shape == (2, 6, 1)
    assert found.quantiles is not None
    assert (found.quantiles[..., 0] <= found.quantiles[..., 1]).all()
    if name.startswith("statsforecast"):
        rows = known.values[: known.offsets[1], 0]
        np.testing.assert_allclose(found.point[0, :, 0], rows[-24:-18])
    assert np.abs(found.point - np.asarray(found.quantiles).mean(-1)).max() < 5


def test_an_unknown_model_of_statsforecast_is_refused() -> None:
    pytest.importorskip("statsforecast")
    with pytest.raises(ParameterError, match="no model named 'Auto'"):
        make_rival("statsforecast:Auto", setup())


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsm2.benchmark.rivals.find_spec", lambda name: None)
    for name, extra in {"ETS": "compare", "LightGBM": "compare", "Chronos": "chronos"}.items():
        with pytest.raises(ParameterError, match=re.escape(f"pip install 'tsm2[{extra}]'")):
            tsm2.compare(waves(), 6, models=[name])


def test_chronos_is_asked_as_its_package_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the package: its weights are not here."""

    class Pipeline:
        @classmethod
        def from_pretrained(cls, name: str, device_map: str) -> "Pipeline":
            assert (name, device_map) == ("mine", "cpu")
            return cls()

        def predict_quantiles(
            self, contexts: list[Any], prediction_length: int, quantile_levels: list[float]
        ) -> tuple[Any, Any]:
            last = torch.stack([each[-1] for each in contexts])
            spread = torch.tensor(quantile_levels) - 0.5
            return (last[:, None, None] + spread).expand(-1, prediction_length, 3), last

    package = ModuleType("chronos")
    package.BaseChronosPipeline = Pipeline  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chronos", package)
    monkeypatch.setattr("tsm2.benchmark.rivals.find_spec", lambda name: True)
    known = read(waves())
    model = make_rival("Chronos", setup(model="mine"))
    model.fit(known)
    found = model.forecast(known)
    np.testing.assert_allclose(found.point[0], waves().iloc[[-1] * 6], rtol=1e-6)
    assert found.quantiles is not None
    np.testing.assert_allclose(np.diff(found.quantiles)[..., 0], 0.8, rtol=1e-5)


def test_a_task_is_the_same_from_its_folder(tmp_path: Path) -> None:
    series = read(panel())
    task = Task(
        series=series,
        actual=series.values,
        horizon=6,
        windows=2,
        stride=3,
        season=24,
        levels=(0.1, 0.9),
        refit=True,
    )
    task.save(tmp_path)
    again = Task.load(tmp_path)
    assert again.digest == task.digest
    assert again.series.index.equals(task.series.index)
    np.testing.assert_array_equal(again.happened(1), task.happened(1))
