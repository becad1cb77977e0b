"""Say how sure a forecast is, check that it holds, draw paths. Takes about fifteen seconds."""

# --8<-- [start:interval]
from tsm2 import TSM2Forecaster
from tsm2.backtesting import error_table
from tsm2.datasets import load_sample

frame = load_sample()
history, later = frame.iloc[:2000], frame.iloc[2000:]

model = TSM2Forecaster(lookback=168, horizon=24, max_epochs=2, random_state=0).fit(history)
interval = model.predict_interval(coverage=0.8)  # columns (variate, 0.1) and (variate, 0.9)
quantiles = model.predict_quantiles(quantiles=(0.05, 0.5, 0.95))
# --8<-- [end:interval]

print(interval.head(3))

# --8<-- [start:check]
tested = model.backtest(later, stride=6, coverage=0.8)  # with the columns lo-80 and hi-80
by_variate = error_table(tested)  # MSE, MAE, quantile loss, coverage-80
by_step = error_table(tested, by="step")
# --8<-- [end:check]

print(by_variate)

figure = model.plot(coverage=0.8, truth=later.iloc[:24])
figure.savefig("band.png")

# --8<-- [start:learn]
learnt = TSM2Forecaster(
    lookback=168, horizon=24, quantiles=(0.1, 0.5, 0.9), max_epochs=2, random_state=0
).fit(history)
medians = learnt.predict()
calibrated = learnt.predict_quantiles()
at_its_word = learnt.predict_quantiles(calibrated=False)
# --8<-- [end:learn]

print("crossed:", int((at_its_word.T.groupby(level=0).diff() < 0).sum().sum()))

# --8<-- [start:sample]
paths = model.sample(n_samples=200, random_state=0)  # columns (variate, 0) to (variate, 199)
name = frame.columns[0]
highest = paths[name].max()  # of each path: how high will the next day's peak be?
print("the peak lies below", highest.quantile(0.9), "nine times out of ten")
# --8<-- [end:sample]

# --8<-- [start:calibrate]
model.calibrate(later)  # on newer rows than those that fit set aside
# --8<-- [end:calibrate]
