"""Forecast with what is known beside the values, and in spite of gaps. Takes half a minute."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from tsm2 import TSM2Forecaster
from tsm2.datasets import load_sample, load_sample_covariates, load_stores

# --8<-- [start:table]
frame = load_sample(2000)  # hourly; its load falls on holidays
holidays = load_sample_covariates(2000)  # the same hours, and the next 168

model = TSM2Forecaster(
    lookback=96,
    horizon=24,
    target=["load", "price"],  # temperature and the rest are read, not forecast
    calendar=("hour", "dayofweek"),
    max_epochs=3,
    random_state=0,
).fit(frame, future_covariates=holidays)
forecast = model.predict()  # holidays of the next hours are known from fit
# --8<-- [end:table]

print(forecast.head(3))

truth = load_sample(2024).iloc[2000:]
figure, axes = plt.subplots(figsize=(9, 3))
axes.plot(frame["load"].tail(96), color="#3b3b3b", label="known")
axes.plot(truth["load"], color="#3b3b3b", linestyle=":", label="what happened")
axes.plot(forecast["load"], color="#d1495b", label="forecast")
known = holidays.loc[frame.index[-96] : truth.index[-1]].iloc[:, 0]
axes.fill_between(known.index, 0, 1, where=known > 0, transform=axes.get_xaxis_transform(),
                  color="#e9c46a", alpha=0.3, label="holiday, known in advance")  # fmt: skip
axes.set_ylabel("load")
axes.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
figure.savefig("holidays.png")

# --8<-- [start:later]
more = load_sample(2200)
errors = model.backtest(more.iloc[2000:], future_covariates=load_sample_covariates(2200), stride=24)
# --8<-- [end:later]

print(len(errors))

# --8<-- [start:stores]
stores = load_stores()  # daily sales of 40 stores: level, growth, and what is known beside them
first_test_day = pd.Timestamp("2024-04-02")
is_test = stores.sales["day"] >= first_test_day


def measure(**covariates: pd.DataFrame) -> float:
    model = TSM2Forecaster(
        lookback=14,
        horizon=14,
        features=8,
        patch_length=7,
        id_col="store",
        time_col="day",
        target_col="sales",
        scaling="global",
        learning_rate=3e-3,
        max_epochs=8,
        sam_radius=0,
        random_state=0,
    ).fit(stores.sales[~is_test], **covariates)
    table = model.backtest(stores.sales[is_test], **covariates)
    return float(((table["forecast"] - table["actual"]) ** 2).mean())


print(f"sales alone: {measure():.1f}")
print(f"past:   visits, which show 14 days later: {measure(past_covariates=stores.past):.1f}")
print(f"future: promotion and weather: {measure(future_covariates=stores.future):.1f}")
print(f"static: place and rent, which make a store grow: "
      f"{measure(static_covariates=stores.static):.1f}")  # fmt: skip
everything = {
    "past_covariates": stores.past,
    "future_covariates": stores.future,
    "static_covariates": stores.static,
}
print(f"all of them: {measure(**everything):.1f}; the noise alone is 1.0")
# --8<-- [end:stores]

# --8<-- [start:leads]
draw = np.random.default_rng(0)
visits = pd.Series(draw.normal(size=1000)).ewm(span=8).mean()
shop = pd.DataFrame({"visits": visits, "sales": 2 * visits.shift(6) + 0.1 * draw.normal(size=1000)})
shop = shop.iloc[6:].set_axis(pd.date_range("2025-01-01", periods=994, freq="h"))

for leaders in ("auto", False):
    led = TSM2Forecaster(horizon=12, leaders=leaders, random_state=0).fit(shop.iloc[:800])
    errors = led.backtest(shop.iloc[800:])
    of_sales = errors[errors["variate"] == "sales"]
    missed = (of_sales["forecast"] - of_sales["actual"]).abs().mean()
    chosen = led.choices_[led.choices_["chosen"]].iloc[0]
    print(f"led: {chosen.get('led', ())}, mean absolute error of sales {missed:.2f}")
# --8<-- [end:leads]

# --8<-- [start:zeros]
sold = draw.poisson(0.4 * (1 + np.sin(2 * np.pi * np.arange(730) / 7)))
days = pd.DataFrame({"sold": sold}, index=pd.date_range("2024-01-01", periods=730))

for nonnegative in ("auto", False):
    daily = TSM2Forecaster(horizon=7, nonnegative=nonnegative, blocks=0).fit(days)
    week = daily.predict_interval(coverage=0.8)["sold"]
    named = daily.choices_.get("nonnegative", pd.Series([()]))
    print(f"never below zero: {named.iloc[0]}, lower ends {week[0.1].round(2).tolist()}")
# --8<-- [end:zeros]

# --8<-- [start:gaps]
gappy = frame.mask(np.random.default_rng(0).random(frame.shape) < 0.2)  # a fifth is missing
gappy = gappy.drop(index=frame.index[500:510])  # and ten rows are not there at all

masked = TSM2Forecaster(lookback=96, horizon=24, missing="mask", max_epochs=2, random_state=0).fit(
    gappy
)
whole = masked.predict()  # no NaN
# --8<-- [end:gaps]

print(whole.head(3))
