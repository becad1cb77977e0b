"""Many series in parts, and what they cost as `benchmarks/many_series.py` measured it. Seconds."""

from pathlib import Path

import numpy as np
import pandas as pd

# --8<-- [start:parts]
from tsm2 import TSM2Forecaster, engines

days = pd.date_range("2025-01-01", periods=120, name="ds")
week = np.sin(2 * np.pi * np.arange(120) / 7)
sales = np.random.default_rng(0).poisson(20 + 8 * week, size=(1000, 120))
frame = pd.DataFrame(sales.T, days).melt(var_name="unique_id", value_name="y", ignore_index=False)
frame = frame.reset_index()  # a row per shop and day

forecaster = TSM2Forecaster(lookback=28, horizon=7, max_epochs=2, random_state=0)
model = engines.fit(forecaster, frame, sample=200)  # one model, from 200 of the 1,000 series
parts = engines.predict(model, frame, partitions=4)
whole = model.predict(frame)
print(len(parts), "rows;", "equal to one process:", parts["y"].equals(whole["y"]))
# --8<-- [end:parts]

rows = pd.read_csv(Path(__file__).parents[1] / "benchmarks" / "results" / "many_series.csv")
seconds = rows.pivot(index="series", columns="verb", values="seconds")
axes = seconds[["predict", "backtest"]].plot(
    figsize=(7, 3), marker="o", color=["#d1495b", "#30638e"]
)
axes.set(xlabel="series of 48 rows", ylabel="seconds, one thread", ylim=(0, None))
axes.xaxis.set_major_formatter("{x:,.0f}")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
axes.figure.savefig("seconds.png")
