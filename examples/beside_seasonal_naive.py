"""Forecast two years of air passengers, with a band, beside last year's numbers. Some seconds."""

import shutil
from pathlib import Path

import matplotlib.pyplot as plt

shutil.copy(Path(__file__).parent / "data" / "airline.csv", "airline.csv")

# --8<-- [start:python]
import pandas as pd

from tsm2 import TSM2Forecaster

table = pd.read_csv("airline.csv", index_col="month", parse_dates=True)
known, later = table[:-24], table[-24:]  # the last two of twelve years

model = TSM2Forecaster(horizon=24, validation_fraction=0.35, random_state=0).fit(known)
forecast = model.predict()
band = model.predict_interval(coverage=0.8)
print(forecast.head(3).round(1))
# --8<-- [end:python]

# --8<-- [start:measure]
naive = known[-12:].to_numpy().repeat(2, axis=1).T.reshape(-1, 1)  # the last year, twice
inside = (band.iloc[:, 0] <= later["passengers"]) & (later["passengers"] <= band.iloc[:, 1])
print(f"mean absolute error, TSM2:           {(forecast - later).abs().to_numpy().mean():.1f}")
print(f"mean absolute error, seasonal naive: {abs(later.to_numpy() - naive).mean():.1f}")
print(f"months inside the 80 % band:         {inside.sum()} of {len(inside)}")
# --8<-- [end:measure]

figure, axes = plt.subplots(figsize=(9, 3.6))
axes.plot(known[-48:], color="#3b3b3b", label="known")
axes.plot(later, color="#3b3b3b", linestyle=":", label="what happened")
axes.plot(later.index, naive, color="#6b8fb3", label="seasonal naive")
axes.plot(forecast, color="#d1495b", label="TSM2")
axes.fill_between(band.index, *band.to_numpy().T, color="#d1495b", alpha=0.2, label="80 % band")
axes.set_ylabel("passengers, thousands a month")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False, ncols=3, loc="upper left")
figure.savefig("home.png")
