"""Pictures hold the numbers that they were given."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tsm2 import TSM2Forecaster
from tsm2.errors import NotFittedError, ParameterError
from tsm2.plotting import plot_errors, plot_forecast, plot_selection

pytest.importorskip("matplotlib")


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
    truth = waves(206).iloc[-6:]
    if as_array:
        truth = pd.DataFrame(truth.to_numpy(), range(200, 206))
    panels: list[Any] = model.plot(coverage=0.8, truth=truth)
    titles = [axes.get_title("left") for axes in panels]
    assert titles == (["0", "1"] if as_array else ["sun", "load"])
    np.testing.assert_allclose(line(panels[1], "history"), waves().iloc[-18:, 1])
    np.testing.assert_allclose(line(panels[1], "forecast"), np.asarray(model.predict())[:, 1])
    np.testing.assert_allclose(line(panels[0], "truth"), truth.iloc[:, 0])
    (band,) = panels[1].collections
    heights = band.get_paths()[0].vertices[:, 1]
    bounds = np.asarray(model.predict_interval(coverage=0.8)).reshape(6, 2, 2)[:, 1]
    assert heights.min() == pytest.approx(bounds[:, 0].min())
    assert heights.max() == pytest.approx(bounds[:, 1].max())
    assert band.get_label() == "80 % interval"


def test_a_plot_continues_any_history(fitted: TSM2Forecaster) -> None:
    (only,) = fitted.plot(waves().iloc[:100], horizon=9, max_variates=1)
    np.testing.assert_allclose(line(only, "history"), waves().iloc[73:100, 0])
    assert len(line(only, "forecast")) == 9


def test_errors_are_means_in_deviations(fitted: TSM2Forecaster) -> None:
    table = fitted.backtest(waves(), stride=5)
    errors = (table["forecast"] - table["actual"]).abs()
    pair: list[Any] = plot_errors(table, scale={"sun": 2.0, "load": 10.0})
    by_step, by_variate = pair
    sun, load = (errors[table["variate"] == name] for name in ("sun", "load"))
    steps = table.loc[load.index, "step"]
    np.testing.assert_allclose(line(by_step, "load"), load.groupby(steps).mean() / 10)
    widths = [bar.get_width() for bar in by_variate.patches]
    np.testing.assert_allclose(widths, [sun.mean() / 2, load.mean() / 10])
    both = (line(by_step, "sun") + line(by_step, "load")) / 2
    np.testing.assert_allclose(line(by_step, "all"), both)
    first, _ = plot_errors(table, max_variates=1)
    own = table[table["variate"] == "sun"]
    wanted = sun.groupby(own["step"]).mean() / own["actual"].std(ddof=0)
    np.testing.assert_allclose(line(first, "sun"), wanted)
    assert [each.get_label() for each in first.get_lines()] == ["sun", "all"]


def test_a_selection_is_drawn_with_its_numbers(fitted: TSM2Forecaster) -> None:
    selection = fitted.inspect(waves())
    drawn: list[Any] = plot_selection(selection)
    influence, averaging, *scans = drawn
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
    assert len(plot_selection(flat.inspect())) == 2


def test_mistakes(fitted: TSM2Forecaster) -> None:
    with pytest.raises(NotFittedError):
        TSM2Forecaster().plot()
    with pytest.raises(ParameterError, match="max_variates"):
        fitted.plot(max_variates=0)
    with pytest.raises(ParameterError, match="max_variates"):
        plot_errors(fitted.backtest(waves()), max_variates=0)
    with pytest.raises(ParameterError, match="a plot shows one table"):
        TSM2Forecaster(24, 6, max_epochs=1).fit([waves(), waves(150)]).plot()
    with pytest.raises(ParameterError, match="max_variates must be at least 1"):
        plot_forecast(waves(), waves(), max_variates=0)
