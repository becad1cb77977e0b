"""A table with a gap: refused with its place and the way out, then forecast. Takes some seconds."""

# --8<-- [start:refused]
from tsm2 import TSM2Error, TSM2Forecaster
from tsm2.datasets import load_sample

frame = load_sample(1000)
history, later = frame.iloc[:-24].copy(), frame.iloc[-24:]
history.loc[history.index[-60:-30], "load"] = float("nan")  # a meter that was off

try:
    TSM2Forecaster(lookback=96, horizon=24, random_state=0).fit(history)
except TSM2Error as error:
    print(error)
# --8<-- [end:refused]

# --8<-- [start:masked]
model = TSM2Forecaster(lookback=96, horizon=24, missing="mask", max_epochs=5, random_state=0)
forecast = model.fit(history).predict()
# --8<-- [end:masked]

known = history["load"].tail(120)
gap = known.index[known.isna()]
axes = known.plot(figsize=(8, 3), color="#3b3b3b", label="known")
axes.axvspan(gap[0], gap[-1], color="#e3e3e3", label='a gap, with missing="mask"')
later["load"].plot(ax=axes, color="#3b3b3b", linestyle=":", label="what happened")
forecast["load"].plot(ax=axes, color="#d1495b", label="TSM2")
axes.set(xlabel="", ylabel="load, in the table's unit")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False)
axes.figure.savefig("gap.png")
