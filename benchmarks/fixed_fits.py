"""Compare forecasts of fixed fits to the last bit: did a change of the code change a number.

    python benchmarks/fixed_fits.py --write before.npz --models before/   # on the commit before
    python benchmarks/fixed_fits.py --compare before.npz --models before/ # on the commit after

A dozen fits over generated tables, each with other features, give every table that a forecaster
returns. Last bits hold for one machine, its libraries and one thread, so that they are written and
compared on the same one; what differs is told with the largest difference. With `--models`,
`--write` also saves the fitted models there, and `--compare` loads them and compares what they
forecast.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tsm2 import TSM2Forecaster

SMALL: dict[str, Any] = {
    "lookback": 24,
    "horizon": 6,
    "features": 8,
    "max_epochs": 2,
    "batch_size": 16,
    "random_state": 0,
    "level": "mean",
    "separate_heads": False,
}


def wide(rows: int = 160, *, seed: int = 0, start: str = "2024-01-01") -> pd.DataFrame:
    """Return an hourly table of three variates."""
    draw = np.random.default_rng(seed)
    time = np.arange(rows)[:, None]
    waves = np.sin(2 * np.pi * time / 12 + [0.0, 1.0, 2.0]) * [1.0, 5.0, 0.2]
    values = waves + 0.01 * time + 0.1 * draw.normal(size=waves.shape)
    index = pd.date_range(start, periods=rows, freq="h", name="time")
    return pd.DataFrame(values, index=index, columns=["a", "b", "c"])


def gappy(table: pd.DataFrame, *, rows: bool = True) -> pd.DataFrame:
    """Return a table that lacks cells, and rows too."""
    holes = table.copy()
    holes.iloc[40:43, 0] = np.nan
    holes.iloc[-3:-1, 1] = np.nan
    return holes.drop(holes.index[[60, 61, 99]]) if rows else holes


def several(*, lengths: tuple[int, ...] = (120, 90, 70)) -> dict[str, pd.DataFrame]:
    """Return series of unequal lengths that start at different times."""
    starts = ("2024-01-01", "2024-01-03", "2023-12-30")
    each = zip("xyz", lengths, starts, strict=True)
    return {name: wide(n, seed=k, start=at) * (k + 1) for k, (name, n, at) in enumerate(each)}


def long(series: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return series as one long frame with the variates a and b."""
    pieces = [
        table[["a", "b"]].rename_axis("ds").reset_index().assign(unique_id=name)
        for name, table in series.items()
    ]
    return pd.concat(pieces, ignore_index=True)[["unique_id", "ds", "a", "b"]]


def known_ahead(table: pd.DataFrame, rows: int = 24) -> pd.DataFrame:
    """Return future covariates, a number and a category, that reach beyond a table."""
    index = pd.date_range(table.index[0], periods=len(table) + rows, freq="h")
    hour = np.asarray(index.hour)
    kind = np.where(hour < 8, "night", "day")
    return pd.DataFrame({"price": np.cos(hour / 4.0), "kind": kind}, index=index)


def plain() -> dict[str, Any]:
    """Fit one table: all verbs."""
    table = wide()
    model = TSM2Forecaster(**SMALL).fit(table[:130])
    found = {
        "predict": model.predict(),
        "longer": model.predict(horizon=15),
        "of history": model.predict(table[20:100]),
        "interval": model.predict_interval(coverage=0.5),
        "sample": model.sample(n_samples=3, random_state=0, horizon=9),
        "backtest": model.backtest(table[130:], stride=3, coverage=0.5),
        "score": model.score(table[130:]),
        "influence": model.inspect(table[:90]).influence,
        "steps": model.inspect(table[:90]).steps,
        "refit": model.backtest(table, start=table.index[140], stride=8, refit=1),
        "sliding": model.backtest(
            table, start=table.index[140], stride=5, refit=2, window="sliding"
        ),
    }
    found["updated"] = model.update(table[130:145]).predict()
    found["trained on"] = model.update(table[145:], epochs=1).predict()
    found["calibrated"] = model.calibrate(table).predict_interval(coverage=0.5)
    return {"model": model, **found}


def array() -> dict[str, Any]:
    """Fit one array."""
    table = wide().to_numpy()
    model = TSM2Forecaster(**SMALL | {"level": "last"}).fit(table)
    return {"model": model, "predict": model.predict(), "backtest": model.backtest(table[:60])}


def quantiles_and_ensemble() -> dict[str, Any]:
    """Fit a quantile head, two networks, and a moving average of the weights."""
    table = wide()
    model = TSM2Forecaster(**SMALL, quantiles=(0.1, 0.9), n_estimators=2, ema_decay=0.9)
    model.fit(table[:140])
    return {
        "model": model,
        "predict": model.predict(),
        "quantiles": model.predict_quantiles(quantiles=(0.25, 0.5, 0.75)),
        "own": model.predict_quantiles(quantiles=(0.2, 0.8), calibrated=False),
        "backtest": model.backtest(table[140:], coverage=0.5),
        "history": model.history_,
    }


def covariates() -> dict[str, Any]:
    """Fit with all kinds of covariates, a calendar, and a target."""
    table, ahead = wide(), known_ahead(wide())
    static = pd.DataFrame({"size": [1.0, 2.0]}, index=["a", "c"])
    past = pd.DataFrame({"wind": np.cumsum(np.ones(160)) % 7}, index=table.index)
    model = TSM2Forecaster(**SMALL, target=["a", "c"], calendar=("hour",))
    given = {"past_covariates": past, "future_covariates": ahead}
    model.fit(table[:140], static_covariates=static, **given)
    return {
        "model": model,
        "predict": model.predict(),
        "of history": model.predict(table[:150], **given),
        "backtest": model.backtest(table[100:], coverage=0.5, **given),
        "score": model.score(table[100:], **given),
        "influence": model.inspect(table[:90], **given).influence,
        "updated": model.update(table[140:150], **given).predict(),
    }


def masked() -> dict[str, Any]:
    """Fit with gaps that stay unknown."""
    table = gappy(wide())
    model = TSM2Forecaster(**SMALL, missing="mask").fit(table[:120])
    return {
        "model": model,
        "predict": model.predict(),
        "short history": model.predict(table[:10]),
        "interval": model.predict_interval(coverage=0.5),
        "backtest": model.backtest(table[120:]),
        "score": model.score(table[120:]),
    }


def filled() -> dict[str, Any]:
    """Fit with gaps that repeat the value before."""
    table = gappy(wide())
    model = TSM2Forecaster(**SMALL, missing="ffill").fit(table[:120])
    return {
        "model": model,
        "predict": model.predict(),
        "of history": model.predict(table[30:80]),
        "backtest": model.backtest(table[120:]),
        "score": model.score(table[120:]),
    }


def many(container: Callable[[], Any], **settings: Any) -> Callable[[], dict[str, Any]]:
    """Return a fit of several series in some container."""

    def fit() -> dict[str, Any]:
        """Fit several series: forecasts, a backtest and a score."""
        series = container()
        model = TSM2Forecaster(**SMALL | settings).fit(series)
        return {
            "model": model,
            "predict": model.predict(),
            "of history": model.predict(series),
            "interval": model.predict_interval(coverage=0.5),
            "sample": model.sample(n_samples=2, random_state=0),
            "backtest": model.backtest(series, stride=7),
            "score": model.score(series),
        }

    return fit


def with_covariates_of_many() -> dict[str, Any]:
    """Fit several series with future and static covariates."""
    series = several()
    ahead = {name: known_ahead(table) for name, table in series.items()}
    static = pd.DataFrame({"kind": ["u", "v", "u"]}, index=list("xyz"))
    model = TSM2Forecaster(**SMALL).fit(series, future_covariates=ahead, static_covariates=static)
    return {
        "model": model,
        "predict": model.predict(),
        "backtest": model.backtest(series, stride=7, future_covariates=ahead),
    }


TWO = ["a", "b"]
LONG = {"target_col": TWO}
FITS: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": plain,
    "array": array,
    "quantiles": quantiles_and_ensemble,
    "covariates": covariates,
    "masked": masked,
    "filled": filled,
    "long": many(lambda: long(several()), **LONG, sampling="series"),
    "levels": many(lambda: long(several()).set_index(["unique_id", "ds"])),
    "dict": many(several, scaling="global"),
    "list": many(lambda: list(several().values())),
    "short and masked": many(lambda: several(lengths=(120, 20, 40)), missing="mask"),
    "filled dict": many(
        lambda: {k: gappy(v, rows=False) for k, v in several(lengths=(120, 90, 110)).items()},
        missing="ffill",
    ),
    "covariates of many": with_covariates_of_many,
}
"""A name for each fit; what it returns is digested, but for the model."""


def numbers(value: Any) -> np.ndarray[Any, Any]:
    """Return all that tables in any container hold, labels and stamps as a hash of each row."""
    if isinstance(value, Mapping | list):
        each = value.values() if isinstance(value, Mapping) else value
        return np.concatenate([numbers(one) for one in each])
    if isinstance(value, pd.DataFrame):
        labels = value.select_dtypes(exclude="number").reset_index()
        hashes = pd.util.hash_pandas_object(labels, index=False).to_numpy() % 2**32
        names = pd.util.hash_array(np.array([str(name) for name in value.columns])) % 2**32
        cells = value.select_dtypes("number").to_numpy(dtype=np.float64).ravel()
        return np.concatenate([cells, hashes.astype(float), names.astype(float)])
    return np.asarray(value, dtype=np.float64).ravel()


def run(models: Path | None, *, load: bool) -> dict[str, np.ndarray[Any, Any]]:
    """Return the numbers of everything that the fits return, and that saved models forecast."""
    torch.set_num_threads(1)  # sums of several threads come in another order
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name, fit in FITS.items():
        tables = fit()
        model = tables.pop("model")
        found |= {f"{name}: {what}": numbers(table) for what, table in tables.items()}
        if models is None:
            continue
        folder = models / name.replace(" ", "-")
        if not load:
            model.save(folder)
        found[f"{name}: saved"] = numbers(TSM2Forecaster.load(folder).predict())
    return found


def difference(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Return the largest difference, 0 where both are NaN, and infinity for other sizes."""
    if one.shape != other.shape or (np.isnan(one) != np.isnan(other)).any():
        return np.inf
    return float(np.nanmax(np.abs(one - other), initial=0.0))


def main() -> None:
    """Write the numbers, or compare them with those written before."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="file for the numbers, .npz")
    parser.add_argument("--compare", type=Path, help="file of numbers to compare with")
    parser.add_argument("--models", type=Path, help="folder of saved models")
    options = parser.parse_args()
    found = run(options.models, load=options.compare is not None)
    if options.write is not None:
        np.savez(options.write, **found)
    if options.compare is None:
        return
    with np.load(options.compare) as before:
        apart = {name: difference(before[name], found[name]) for name in before.files}
    differ = {name: largest for name, largest in apart.items() if largest}
    print(f"{len(apart) - len(differ)} of {len(apart)} are equal to the last bit")
    for name, largest in differ.items():
        print(f"differs by {largest:.1e}: {name}")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
