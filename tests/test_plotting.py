"""Pictures hold the numbers that they were given."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.base import clone

from tsm2 import TSM2Forecaster
from tsm2.errors import NotFittedError, ParameterError
from tsm2.plotting import plot_errors, plot_forecast, plot_selection

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure


def waves(rows: int = 200) -> pd.DataFrame:
    t = np.arange(rows)
    index = pd.date_range("2024-01-01", periods=rows, freq="h")
    noise = np.random.default_rng(0).normal(0, 0.2, (rows, 2))
    values = np.stack((np.sin(t * 0.26), 9 * np.cos(t * 0.26)), axis=1) + noise
    return pd.DataFrame(values, index, ["sun", "load"])


@pytest.fixture(scope="module")
def fitted() -> TSM2Forecaster:
    return TSM2Forecaster(24, 6, features=8, max_epochs=1, random_state=0).fit(waves())


def line(axes: Any, label: str) -> NDArray[np.float64]:
    (found,) = [each for each in axes.get_lines() if each.get_label() == label]
    return np.asarray(found.get_ydata(), dtype=float)


@pytest.mark.parametrize("as_array", [False, True], ids=["frame", "array"])
def test_a_plot_shows_history_forecast_truth_and_interval(
    fitted: TSM2Forecaster, as_array: bool
) -> None:
    table: Any = waves().to_numpy() if as_array else waves()
    model = TSM2Forecaster(**fitted.get_params()).fit(table) if as_array else fitted
    truth: Any = waves(206).iloc[-6:]
    truth = truth.to_numpy() if as_array else truth
    panels: list[Any] = model.plot(coverage=0.8, truth=truth).axes
    titles = [axes.get_title("left") for axes in panels]
    assert titles == (["0", "1"] if as_array else ["sun", "load"])
    np.testing.assert_allclose(line(panels[1], "history"), waves().iloc[-18:, 1])
    np.testing.assert_allclose(line(panels[1], "forecast")[1:], np.asarray(model.predict())[:, 1])
    assert line(panels[1], "forecast")[0] == waves().iloc[-1, 1]  # it joins the history
    np.testing.assert_allclose(line(panels[0], "truth")[1:], np.asarray(truth)[:, 0])
    (band,) = panels[1].collections
    heights = band.get_paths()[0].vertices[:, 1]
    bounds = np.asarray(model.predict_interval(coverage=0.8)).reshape(6, 2, 2)[:, 1]
    bounds = np.concatenate([bounds, np.full((1, 2), waves().iloc[-1, 1])])
    assert heights.min() == pytest.approx(bounds[:, 0].min())
    assert heights.max() == pytest.approx(bounds[:, 1].max())
    assert band.get_label() == "80 % interval"


def test_a_plot_continues_any_history(fitted: TSM2Forecaster) -> None:
    (only,) = fitted.plot(waves().iloc[:100], horizon=9, max_variates=1).axes
    np.testing.assert_allclose(line(only, "history"), waves().iloc[73:100, 0])
    assert len(line(only, "forecast")) == 1 + 9


def test_errors_are_means_in_deviations(fitted: TSM2Forecaster) -> None:
    table = fitted.backtest(waves(), stride=5)
    errors = (table["forecast"] - table["actual"]).abs()
    pair: list[Any] = plot_errors(table, scale={"sun": 2.0, "load": 10.0}).axes
    by_step, by_variate = pair
    sun, load = (errors[table["variate"] == name] for name in ("sun", "load"))
    steps = table.loc[load.index, "step"]
    np.testing.assert_allclose(line(by_step, "load"), load.groupby(steps).mean() / 10)
    widths = [bar.get_width() for bar in by_variate.patches]
    np.testing.assert_allclose(widths, [sun.mean() / 2, load.mean() / 10])
    both = (line(by_step, "sun") + line(by_step, "load")) / 2
    np.testing.assert_allclose(line(by_step, "all"), both)
    first, _ = plot_errors(table, max_variates=1).axes
    own = table[table["variate"] == "sun"]
    wanted = sun.groupby(own["step"]).mean() / own["actual"].std(ddof=0)
    np.testing.assert_allclose(line(first, "sun"), wanted)
    assert [each.get_label() for each in first.get_lines()] == ["sun", "all"]
    in_units, _ = plot_errors(table, units="MW", columns=["load"]).axes
    np.testing.assert_allclose(line(in_units, "load"), load.groupby(steps).mean())
    assert in_units.get_ylabel() == "mean absolute error, in MW"
    assert first.get_ylabel() == "mean absolute error, in deviations"


def test_a_selection_is_drawn_with_its_numbers(fitted: TSM2Forecaster) -> None:
    mixing = clone(fitted).set_params(linear_start="random").fit(waves())
    selection = mixing.inspect(waves())
    drawn: list[Any] = plot_selection(selection).axes
    influence, averaging, *scans = [each for each in drawn if each.get_title("left")]
    np.testing.assert_allclose(influence.get_images()[0].get_array(), selection.influence)
    written = [text.get_text() for text in averaging.texts]
    assert sorted(written) == sorted(f"{w:.2f}" for w in selection.averaging["weight"])
    assert [axes.get_title("left") for axes in scans] == [
        "step sizes of time mixer 1, forward",
        "step sizes of variate mixer 1, forward",
        "step sizes of variate mixer 1, backward",
    ]
    time = selection.steps[selection.steps["mixer"] == "time"]["step"]
    np.testing.assert_allclose(np.ravel(scans[0].get_images()[0].get_array()), time)
    flat = TSM2Forecaster(24, 6, blocks=0, max_epochs=1).fit(waves())
    assert len(plot_selection(flat.inspect()).axes) == 2


def test_mistakes(fitted: TSM2Forecaster) -> None:
    with pytest.raises(NotFittedError):
        TSM2Forecaster().plot()
    with pytest.raises(ParameterError, match="max_variates"):
        fitted.plot(max_variates=0)
    with pytest.raises(ParameterError, match="max_variates"):
        plot_errors(fitted.backtest(waves()), max_variates=0)
    with pytest.raises(
        ParameterError, match=r"columns must name some of sun, load; got \['moon'\]"
    ):
        fitted.plot(columns=["moon"])
    with pytest.raises(ParameterError, match="series must name some"):
        fitted.plot(series="north")
    with pytest.raises(ParameterError, match="ax holds 1 Axes, but 2 panels"):
        fitted.plot(ax=Figure().subplots())
    with pytest.raises(ParameterError, match="backend must be"):
        fitted.plot(backend="bokeh")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="max_variates must be at least 1"):
        plot_forecast(waves(), waves(), max_variates=0)


def test_several_series_have_a_panel_each() -> None:
    tables = {"north": waves(), "south": 2 * waves(150)}
    model = TSM2Forecaster(24, 6, features=8, max_epochs=1, random_state=0).fit(tables)
    panels = model.plot(columns=["load"], coverage=0.8, units="MW", title="Two").axes
    assert [each.get_title("left") for each in panels] == ["north: load", "south: load"]
    assert {each.get_ylabel() for each in panels} == {"MW"}
    np.testing.assert_allclose(line(panels[1], "forecast")[1:], model.predict()["south"]["load"])
    (only,) = model.plot(series="south", columns=["sun"], truth=tables).axes
    assert only.get_title("left") == "south: sun"


def test_a_figure_shows_itself_saves_itself_and_takes_axes(
    fitted: TSM2Forecaster, tmp_path: Any
) -> None:
    own = Figure()
    above, below = own.subplots(2)
    assert fitted.plot(columns=["load"], ax=below) is own
    assert not above.lines
    assert len(line(below, "forecast")) == 7
    figure = fitted.plot(title="Waves")
    assert figure.get_suptitle() == "Waves"
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.savefig(tmp_path / "waves.svg")


def test_several_forecasts_are_told_apart(fitted: TSM2Forecaster) -> None:
    point, bounds = fitted.predict(), fitted.predict_interval(coverage=0.5)
    (panel,) = plot_forecast(
        waves(),
        {"TSM2": point, "naive": 0 * point},
        interval={"TSM2": bounds},
        columns=["sun"],
    ).axes
    assert [each.get_label() for each in panel.get_lines()] == ["history", "TSM2", "naive"]
    assert [each.get_label() for each in panel.collections] == ["TSM2, 50 % interval"]


def test_plotly_holds_the_same(fitted: TSM2Forecaster) -> None:
    pytest.importorskip("plotly")
    figure = fitted.plot(coverage=0.8, backend="plotly", columns=["load"])
    traces = {trace.name: trace for trace in figure.data}
    assert set(traces) == {"history", "80 % interval", "forecast"}
    np.testing.assert_allclose(traces["forecast"].y[1:], fitted.predict()["load"])
    errors = plot_errors(fitted.backtest(waves(), stride=20), backend="plotly")
    assert {trace.type for trace in errors.data} == {"scatter", "bar"}
