"""Forecast many series with one network: shops that open, close and differ in size. Ten seconds."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from tsm2 import TSM2Forecaster


def shop(name: str, n: int, size: float) -> pd.DataFrame:
    """Sales of a shop over its first days: a week's course at its own size, and noise."""
    day = pd.date_range("2024-01-01", periods=400)[-n:]
    week = np.array([0.8, 0.9, 1.0, 1.0, 1.3, 1.6, 0.4])[day.day_of_week]
    noise = np.random.default_rng(n).normal(0, 0.1, n)
    return pd.DataFrame({"shop": name, "day": day, "sales": size * (week + noise)})


shops = {"Berlin": (400, 90_000.0), "Rome": (300, 20_000.0), "Oslo": (80, 700.0)}
frame = pd.concat([shop(name, n, size) for name, (n, size) in shops.items()], ignore_index=True)

# --8<-- [start:fit]
model = TSM2Forecaster(
    lookback=28,
    horizon=14,
    id_col="shop",
    time_col="day",
    target_col="sales",
    max_epochs=20,
    random_state=0,
).fit(frame)
forecast = model.predict()  # shop, day, sales: the next 14 days of every shop
# --8<-- [end:fit]

print(forecast.groupby("shop", sort=False)["sales"].describe()[["count", "mean"]])

# --8<-- [start:new]
paris = shop("Paris", 60, 5_000.0)  # opened after the fit
first_weeks = model.predict(paris)
# --8<-- [end:new]

print(first_weeks.head(3))

# --8<-- [start:backtest]
table = model.backtest(frame, start="2025-01-01")  # one row per shop, forecast and day ahead
table["error"] = (table["forecast"] - table["actual"]).abs() / table["actual"].abs()
by_shop = table.groupby("shop", sort=False)["error"].median()
# --8<-- [end:backtest]

print(by_shop)

# --8<-- [start:containers]
by_key = {name: part.set_index("day")[["sales"]] for name, part in frame.groupby("shop")}
same = TSM2Forecaster(lookback=28, horizon=14, max_epochs=1, random_state=0).fit(by_key)
next_days = same.predict()["Oslo"]  # a dict of frames in, a dict of frames out
# --8<-- [end:containers]

print(next_days.head(3))

figure, panels = plt.subplots(1, len(shops), figsize=(9, 2.6), layout="constrained")
for panel, name in zip(panels, shops, strict=True):
    for part, rows, color in (("known", frame, "#3b3b3b"), ("forecast", forecast, "#d1495b")):
        own = rows[rows["shop"] == name].tail(42)
        panel.plot(own["day"], own["sales"], color=color, label=part)
    panel.set_title(name)
    panel.set_xticks(own["day"].iloc[::7], own["day"].iloc[::7].dt.strftime("%d %b"), rotation=60)
panels[0].set_ylabel("sales a day")
panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
figure.savefig("shops.png")
