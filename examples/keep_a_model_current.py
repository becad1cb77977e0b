"""Measure a model as it would be used, with refits, and keep it current. Takes some seconds."""

from tsm2 import TSM2Forecaster
from tsm2.datasets import load_sample

frame = load_sample(1600)
model = TSM2Forecaster(lookback=96, horizon=24, max_epochs=2, random_state=0)

# --8<-- [start:refit]
errors = model.backtest(
    frame,
    start=frame.index[1300],  # the first row that is forecast; the first fit knows those before it
    stride=24,  # a forecast a day
    refit=7,  # a new fit a week
    window="sliding",  # to the last 1300 rows; "expanding" takes all
    n_jobs=2,
)
# --8<-- [end:refit]
print("days forecast:", errors["cutoff"].nunique())

size = (errors["forecast"] - errors["actual"]).abs() / errors.groupby("variate")[
    "actual"
].transform("std")
axes = size.groupby(errors["cutoff"]).mean().plot(figsize=(8, 2.8), marker="o")
axes.set_ylabel("mean absolute error,\nin deviations")
axes.set_xlabel("the last row that was known")
axes.figure.savefig("by-day.png")

# --8<-- [start:update]
model.fit(frame.iloc[:1400])
model.update(frame.iloc[1400:1500])  # new rows become history
model.set_params(learning_rate=1e-4, mixer_learning_rate=1e-4)
model.update(frame.iloc[1500:], epochs=1)  # and are learnt from
forecast = model.predict()  # what comes after all of them
# --8<-- [end:update]
print("forecast from:", forecast.index[0])

# --8<-- [start:warm]
other = load_sample(600, random_state=1).rename(columns=str.upper)  # another table
model.set_params(warm_start=True).fit(other)  # from the weights there are, to its own scale
# --8<-- [end:warm]
print("fine-tuned on:", list(model.predict().columns))
