"""Which exact start holds on later rows: the one of four that validation rows choose, or a mean.

    python benchmarks/averaged_maps.py --data FOLDER          # runs what results/ lacks
    python benchmarks/averaged_maps.py --summary

FOLDER holds `long_horizon/` with the public files. Test rows of the benchmark are not read: each
fold ends with the validation part of a table, or at 0.8 of it; its last fifth judges, the fifth of
the rest before that chooses, and the rest trains. Of Weather the last 16,000 rows before a fold's
end are read. Maps are solved again with the choosing rows.

The four are maps from the mean or the last value of a window, of all variates together or of each.
"chosen" is the best of them, if it errs 3 % less than the first on the choosing rows, else that;
"averaged" the mean of both levels, and of both kinds where the best of each variate errs 3 % less
than the best of all; "weighed" the same with each variate's own map and the shared one weighed by
their squared errors on the choosing rows to the power -3, as `solve_averaged` does. "each by N" is
the mean of both levels and both kinds on every fold, by the power -N.

"mse" is the mean squared error over all variates, which those that move most tell; "geometric_mse"
the geometric mean of the variates' errors, in which each tells as much.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from rows import keys_in, run_or_show

from tsm2.benchmark.protocol import load_table
from tsm2.prepared.windows import Windows
from tsm2.training.moments import LinearInput
from tsm2.training.ridge import LinearMap, solve_again, solve_averaged

RESULTS = Path(__file__).parent / "results" / "averaged_maps.csv"
CELLS = {
    "ETTh1": (512, (96, 192, 336, 720)),
    "ETTh2": (512, (96, 192, 336, 720)),
    "ETTm1": (512, (96, 336)),
    "ETTm2": (512, (96, 336)),
    "Exchange": (192, (96, 192, 336, 720)),
    "ILI": (104, (24, 60)),
    "Weather": (512, (96, 336)),
}
MOST_ROWS = 16_000
"""Of Weather, the last before a fold's end: its 21 variates would take too long on all."""
ENDS = (1.0, 0.8)
POWERS = (0, 3, 6, 12)
RULE = 3
"""The power of `solve_averaged`."""
MARGIN = 0.03
"""Share by which an error must be lower, as in `tsm2.training.linear_choice.choose_linear`."""


Fold = tuple[Windows, Windows, Windows]
"""The windows that train, that choose and that judge."""


def cut(values: np.ndarray, lookback: int, horizon: int) -> Fold:
    """Return the windows that train, that choose and that judge."""
    judged = int(len(values) * 0.8)
    chosen = int(judged * 0.8)
    train = values[:chosen]
    deviation = np.where(train.std(0) > 0, train.std(0), 1.0)
    rows = torch.from_numpy((values - train.mean(0)) / deviation).float()
    edges = (lookback, chosen, judged, len(values))

    def windows(first: int, end: int) -> Windows:
        starts = torch.arange(first - lookback, end - horizon - lookback + 1)
        return Windows(values=rows, lookback=lookback, horizon=horizon, starts=starts)

    return tuple(windows(*edges[k : k + 2]) for k in range(3))


def missing_folds(
    data: Path,
    results: Path,
    cells: Mapping[str, tuple[int, tuple[int, ...]]] = CELLS,
    most_rows: int = MOST_ROWS,
    named: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[tuple[dict[str, str], Fold]]:
    """Yield the folds that results lack: what names each, and its windows.

    Parameters
    ----------
    data
        Folder of the public files.
    results
        File of rows that are named by table, horizon and end.
    cells
        Lookback and horizons by table.
    most_rows
        Of Weather, the last before a fold's end.
    named
        What names these rows before that.
    """
    done = keys_in(results, (*named, "table", "horizon", "end"))
    for name, (lookback, horizons) in cells.items():
        table = load_table(name, data_home=data / "long_horizon")
        for horizon in horizons:
            for end in ENDS:
                key = {**named, "table": name, "horizon": str(horizon), "end": str(end)}
                if tuple(key.values()) in done:
                    continue
                values = table.values[: int(table.split.validation_end * end)]
                values = values[-most_rows:] if name == "Weather" else values
                yield key, cut(values, lookback, horizon)
                print(*key.values(), flush=True)


def candidates(train: Windows, choosing: Windows) -> Iterator[tuple[str, LinearMap]]:
    """Yield what is compared, solved with the choosing rows too."""
    known = [train, choosing]
    each = solve_averaged(train, choosing, LinearInput(level="mean"), separate=True)
    every = replace(each, parts=tuple(shared_of(part) for part in each.parts))  # of both levels
    four = {
        f"{part.linear.level}, {kind}": part
        for kind, of_kind in (("all", every), ("each", each))
        for part in of_kind.parts
    }
    again = {name: solve_again(part, known) for name, part in four.items()}
    yield from again.items()
    errors = {name: float(part.error or 0.0) for name, part in four.items()}
    best, first = min(errors, key=errors.__getitem__), next(iter(errors))
    best = best if errors[best] < (1 - MARGIN) * errors[first] else first
    yield "chosen", again[best]
    of_all, of_each = (min(float(part.error or 0.0) for part in of.parts) for of in (every, each))
    powers = {power: solve_again(by_power(each, power), known) for power in POWERS}
    shared = solve_again(every, known)
    own = of_each < (1 - MARGIN) * of_all
    yield "averaged", powers[0] if own else shared
    yield "weighed", powers[RULE] if own else shared
    for power, found in powers.items():
        yield f"each by {power}", found


def shared_of(part: LinearMap) -> LinearMap:
    """Return the map that those of single variates are held towards."""
    if part.shared is None:
        raise AssertionError("a map of all variates is held towards no other")
    return part.shared


def by_power(found: LinearMap, power: int) -> LinearMap:
    """Return the mean in which own and shared maps weigh by their errors to another power.

    Its weights are those of the rule until it is solved again.
    """
    parts = []
    for part in found.parts:
        if part.own_share is None:
            raise AssertionError("these are maps of all variates")
        odds = torch.logit(part.own_share) if power else torch.zeros_like(part.own_share)
        parts.append(replace(part, own_share=torch.sigmoid(odds * power / RULE)))
    return replace(found, parts=tuple(parts))


def errors_of(found: LinearMap, windows: Windows) -> dict[str, str]:
    """Return the errors of a map over windows of which all is known."""
    total = torch.zeros(windows.values.shape[1], dtype=torch.float64)
    for which in windows.batches(256):
        x, y = found.linear.read(windows.gather(which))
        weights = found.weights.expand(len(total), -1, -1)
        error = torch.einsum("bmd,mdh->bmh", x, weights) - y
        total += error.square().mean(2).sum(0)
    each = total / len(windows)
    geometric = each.clamp(min=1e-12).log().mean().exp()
    return {"mse": f"{each.mean():.5f}", "geometric_mse": f"{geometric:.5f}"}


def summary() -> None:
    """Print what both measures say."""
    table = pd.read_csv(RESULTS)
    for measure in ("mse", "geometric_mse"):
        errors = table.pivot_table(
            index=["table", "horizon", "end"], columns="candidate", values=measure, sort=False
        )
        print(f"\n{measure}, over that of the choice; weighed over averaged and over equal powers:")
        print_ratios(errors)


def print_ratios(errors: pd.DataFrame) -> None:
    """Print the errors over those of the choice, and of weighed means over plain ones."""
    ratios = errors.div(errors["chosen"], axis=0).drop(columns="chosen")
    ratios["weighed / averaged"] = errors["weighed"] / errors["averaged"]
    for power in POWERS[1:]:
        ratios[f"by {power} / by 0"] = errors[f"each by {power}"] / errors["each by 0"]
    print(ratios.round(3).to_string())
    print("\ngeometric mean:")
    print(np.exp(np.log(ratios).groupby("table", sort=False).mean()).round(3).to_string())
    print(np.exp(np.log(ratios).mean()).round(3).to_string())


def rows(data: Path) -> Iterator[dict[str, object]]:
    """Make the rows that are missing."""
    for key, (train, choosing, judging) in missing_folds(data, RESULTS):
        for candidate, found in candidates(train, choosing):
            yield key | {"candidate": candidate} | errors_of(found, judging)


if __name__ == "__main__":
    run_or_show(__doc__, RESULTS, rows, summary)
