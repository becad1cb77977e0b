"""What share of the test rows calibrated intervals cover, on the sample and on ETTh1.

    python benchmarks/intervals.py sample ETTh1 --seeds 3

Fits a point and a quantile forecaster with the benchmark's settings and borders, forecasts every
test window, and writes a row per run: errors and quantile loss in standard units, and the coverage
of 50 and 80 % intervals, over all variates and steps. "calibrated" is what `predict_interval`
gives; "at its word" are the quantiles that the network learnt, without calibration.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

from timing import commit

from tsm2 import TSM2Forecaster
from tsm2.backtesting import error_table
from tsm2.benchmark.settings import load_settings
from tsm2.datasets import borders, load, load_sample

RESULTS = Path(__file__).parent / "results" / "intervals.csv"
HORIZONS = {"sample": 24, "ETTh1": 96}
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def borders_of(dataset: str, n_rows: int) -> tuple[int, int, int]:
    """End of the training, validation and test rows; the sample's are those of `tsm2 demo`."""
    if dataset == "sample":
        return round(0.64 * n_rows), round(0.8 * n_rows), n_rows
    split = borders(dataset)
    return split.train_end, split.validation_end, split.test_end


def measure(dataset: str, seed: int) -> Iterator[dict[str, object]]:
    frame = load_sample() if dataset == "sample" else load(dataset)
    n_train, n_fit, n_all = borders_of(dataset, len(frame))
    settings = load_settings(dataset, "paper")
    for head in ("point", "quantiles"):
        model = TSM2Forecaster(
            settings.lookback,
            HORIZONS[dataset],
            **settings.at(HORIZONS[dataset]),
            validation_fraction=1 - n_train / n_fit,
            quantiles=None if head == "point" else LEVELS,
            random_state=seed,
        ).fit(frame.iloc[:n_fit])
        test = frame.iloc[n_fit:n_all]
        tested = {"calibrated": model.backtest(test, quantiles=LEVELS)}
        if head == "quantiles":
            model.fitted_ = replace(model.fitted_, calibration=None)
            tested["at its word"] = model.backtest(test, quantiles=LEVELS)
        scale = dict(zip(frame.columns, model.scaling_.scale, strict=True))
        for kind, table in tested.items():
            errors = error_table(table, by=None, scale=scale).loc["all"].round(4)
            run: dict[str, object] = {"dataset": dataset, "horizon": HORIZONS[dataset]}
            run |= {"head": head, "kind": kind, "seed": seed}
            run["windows"] = table["cutoff"].nunique()
            yield run | {str(name): value for name, value in errors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("datasets", nargs="+", choices=HORIZONS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with arguments.out.open("a", newline="") as file:
        writer = None
        for dataset in arguments.datasets:
            for seed in range(arguments.seeds):
                for row in measure(dataset, seed):
                    row |= {"commit": commit(), "date": date.today().isoformat()}
                    print(row, flush=True)
                    if writer is None:  # the first row has all columns
                        writer = csv.DictWriter(file, list(row))
                        if not file.tell():
                            writer.writeheader()
                    writer.writerow(row)
                    file.flush()


if __name__ == "__main__":
    main()
