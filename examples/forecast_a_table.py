"""Forecast a table, measure the forecasts, draw them, keep the model. Takes about ten seconds."""

from contextlib import chdir
from tempfile import TemporaryDirectory

# --8<-- [start:tour]
from tsm2 import TSM2Forecaster
from tsm2.datasets import load_sample

frame = load_sample()  # hourly rows, one column per variate; any DataFrame like it will do
history, later = frame.iloc[:2000], frame.iloc[2000:]

model = TSM2Forecaster(lookback=168, horizon=24, max_epochs=2, random_state=0).fit(history)
forecast = model.predict()  # the 24 rows after the history, same columns and units
errors = model.backtest(later, stride=24)  # one row per forecast, step and variate
# --8<-- [end:tour]

print(forecast.head(3))

# --8<-- [start:errors]
errors["error"] = errors["forecast"] - errors["actual"]
by_variate = errors.groupby("variate", observed=True)["error"].agg(lambda e: e.abs().mean())
by_step = errors.groupby("step")["error"].agg(lambda e: e.abs().mean())
# --8<-- [end:errors]

print(by_variate)

# --8<-- [start:further]
longer = model.predict(horizon=72)  # rolls forward on its own forecasts
continued = model.predict(frame)  # another history with the same columns and frequency
# --8<-- [end:further]

with TemporaryDirectory() as folder, chdir(folder):
    # --8<-- [start:plot]
    from tsm2.plotting import plot_forecast

    plot_forecast(history, forecast, truth=later.iloc[:24]).savefig("forecast.png")
    # --8<-- [end:plot]

    # --8<-- [start:save]
    model.save("model")
    same = TSM2Forecaster.load("model")
    # --8<-- [end:save]
    print("the same forecast:", same.predict().equals(forecast))

    same.plot(columns=["load", "price"]).savefig("loaded.png")
