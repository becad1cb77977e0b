"""Draw a forecast, its errors, and what the model selected. Takes about a minute."""

from contextlib import chdir
from tempfile import TemporaryDirectory

from tsm2 import TSM2Forecaster
from tsm2.datasets import load_sample

frame = load_sample(5500)
history, later = frame.iloc[:5000], frame.iloc[5000:]
model = TSM2Forecaster(lookback=96, horizon=24, max_epochs=8, random_state=0).fit(history)

with TemporaryDirectory() as folder, chdir(folder):
    # --8<-- [start:plot]
    from tsm2.plotting import plot_errors, plot_selection

    figure = model.plot(
        coverage=0.8, truth=later.iloc[:24], columns=["temperature", "load"], title="A day ahead"
    )
    figure.savefig("forecast.png")
    errors = model.backtest(later, stride=4)
    plot_errors(errors).savefig("errors.png")  # per step, and per variate
    # --8<-- [end:plot]

    # --8<-- [start:inspect]
    selection = model.inspect(history)
    plot_selection(selection).savefig("selection.png")
    print(selection.influence.round(2))
    # --8<-- [end:inspect]

steps = selection.steps.groupby(["mixer", "direction", "variate"], sort=False)["step"].mean()
print(steps.unstack().round(4))
print(selection.averaging.round(2))
