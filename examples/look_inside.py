"""Draw a forecast, its errors, and what the model selected. Takes about a minute."""

from contextlib import chdir
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from tsm2 import TSM2Forecaster
from tsm2.datasets import load_sample
from tsm2.plotting import plot_errors, plot_selection, plot_what_if

frame = load_sample(5500)
history, later = frame.iloc[:5000], frame.iloc[5000:]
model = TSM2Forecaster(lookback=96, horizon=24, max_epochs=8, random_state=0).fit(history)

with TemporaryDirectory() as folder, chdir(folder):
    # --8<-- [start:plot]
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

# --8<-- [start:explain]
explained = model.explain(history)
print(explained.in_words("load"))
print(explained.parts.query("target == 'load' and source == 'temperature'").round(2))
# --8<-- [end:explain]

# --8<-- [start:what_if]
draw = np.random.default_rng(0)
days = pd.date_range("2024-01-01", periods=408, freq="D")
price = pd.DataFrame({"price": draw.uniform(8, 12, 408)}, days)
sold = pd.DataFrame({"sold": 100 - 2 * price["price"] + draw.normal(0, 0.1, 408)}).iloc[:400]
shop = TSM2Forecaster(16, 8, max_epochs=30, epoch_steps=40, mixer_learning_rate=1e-2)
shop.set_params(random_state=0).fit(sold, future_covariates=price)

dearer = shop.what_if({"price": 1.1}, sold, future_covariates=price)
print(dearer.in_words())
figure = plot_what_if(dearer)
# --8<-- [end:what_if]

steps = selection.steps.groupby(["mixer", "direction", "variate"], sort=False)["step"].mean()
print(steps.unstack().round(4))
print(selection.averaging.round(2))
