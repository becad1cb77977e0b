"""The report: a result file as tables beside published numbers, in Markdown and HTML.

Figures are means over seeds with their spread, the standard deviation over seeds. Published
figures are copied from papers, with the source of each in `published.csv`: other lookbacks, other
code, and sometimes windows left out, so they are for orientation and never ranked with ours.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pandas as pd

from tsm2.benchmark.pages import Section, as_image, render
from tsm2.benchmark.protocol import RULES
from tsm2.benchmark.results import KEY, read_results, run_folder, run_stem
from tsm2.benchmark.runner import NotRun
from tsm2.errors import OutputError

__all__ = ["compose", "load_published", "to_html", "to_markdown", "write_report"]

_CELL = ["dataset", "horizon"]
_SUBJECT = "TSM2"
_PANELS = 4  # side by side in the picture
_DIGITS = 3  # what papers print, and what a tie is
_TITLE = "Long-horizon forecasting"
_ABOUT = "Errors on standardised values over every test window; the best of a row is marked."


def write_report(
    results: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    not_run: Sequence[NotRun] = (),
) -> dict[str, Path]:
    """Write a result file's report to a folder, which is made if missing.

    Parameters
    ----------
    results
        The result file.
    folder
        Gets report.md, report.html, which holds all that it shows, and, where matplotlib is
        installed, steps.svg.
    not_run
        What was asked for and gave no row.

    Returns
    -------
    The files, by their format.

    Raises
    ------
    OutputError
        The result file cannot be read, or the folder cannot be written.
    """
    table = read_results(results)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture = _draw_steps(table, run_folder(results), folder / "steps.svg")
        sections = compose(table, not_run=not_run, picture=picture)
        written = {"markdown": folder / "report.md", "html": folder / "report.html"}
        written["markdown"].write_text(to_markdown(sections), encoding="utf-8")
        if picture is not None:
            image = as_image((folder / picture).read_bytes(), "image/svg+xml")
            sections = [replace(each, image=image) if each.picture else each for each in sections]
        written["html"].write_text(to_html(sections), encoding="utf-8")
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write the report to {folder}: {error.strerror}") from error
    return written | ({} if picture is None else {"picture": folder / picture})


def load_published() -> pd.DataFrame:
    """Load the published errors: `dataset`, `horizon`, `lookback`, `model`, `mse`, `source`.

    `lookback` is missing where the source does not state it.

    Examples
    --------
    >>> table = load_published()
    >>> table.query("dataset == 'ETTh1' and horizon == 96 and model == 'TSM2'")["mse"].item()
    0.375
    """
    with (files("tsm2.benchmark") / "published.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype={"lookback": "Int64"})


def compose(
    results: pd.DataFrame, *, not_run: Sequence[NotRun] = (), picture: str | None = None
) -> list[Section]:
    """Return the sections of a report.

    Parameters
    ----------
    results
        Rows of a result file.
    not_run
        What was asked for and gave no row.
    picture
        File name of the errors per step, if drawn.
    """
    sections: list[Section] = []
    if len(results):
        measured = results.assign(label=_labels(results))
        means = _pivot(measured, "mse")
        published = _published_for(means)
        subjects = list(measured.loc[measured["model"] == _SUBJECT, "label"])
        sections = [
            *(_errors(measured, column) for column in ("mse", "mae")),
            *_beside(means, published),
            _ranks(means),
            *(_duels(label, means, published) for label in subjects[:1]),
            _legend(measured),
            _costs(measured),
        ]
    if picture is not None:
        sections.append(Section(title="Errors per step", picture=picture))
    if not_run:
        items = tuple(f"{each.what}: {each.reason}" for each in not_run)
        sections.append(Section(title="Not run", items=items))
    rules = tuple(f"{rule.about}: {rule.says} ({rule.source})" for rule in RULES)
    return [*sections, Section(title="Protocol", items=rules)]


# --- sections -------------------------------------------------------------------------------------


def _labels(results: pd.DataFrame) -> pd.Series:
    """Name each row's model; with a number where a file holds several configurations of it.

    The numbers are told in the legend.
    """
    kinds = results[["model", "lookback", "config"]].drop_duplicates()
    place = kinds.groupby("model", sort=False).cumcount() + 1
    cells = results[[*_CELL, "model", "lookback", "config"]].drop_duplicates()
    per_cell = cells.groupby([*_CELL, "model"]).size()
    several = set(per_cell[per_cell > 1].index.get_level_values("model"))
    names = {
        tuple(kind): f"{kind[0]} ({number})" if kind[0] in several else str(kind[0])
        for kind, number in zip(kinds.itertuples(index=False, name=None), place, strict=True)
    }
    keys = results[["model", "lookback", "config"]].itertuples(index=False, name=None)
    return pd.Series([names[tuple(key)] for key in keys], index=results.index, dtype=object)


def _legend(measured: pd.DataFrame) -> Section:
    """Say what every column's model was given."""
    items = []
    for label, rows in measured.groupby("label", sort=False):
        ways = rows[["lookback", "config"]].drop_duplicates().itertuples(index=False, name=None)
        given = [f"lookback {lookback}{_parameters(config)}" for lookback, config in ways]
        items.append(f"{label}: {'; or '.join(given)}")
    return Section(title="Models", items=tuple(items))


def _parameters(config: str) -> str:
    return "".join(f", {name}={value!r}" for name, value in json.loads(config).items())


def _pivot(measured: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return means over seeds, one row per dataset and horizon, one column per model."""
    order = list(dict.fromkeys(measured["label"]))
    means = measured.pivot_table(index=_CELL, columns="label", values=column, sort=False)
    return (
        means[order]
        .sort_index(level="horizon", sort_remaining=False, kind="stable")
        .loc[list(dict.fromkeys(measured["dataset"]))]
    )


def _errors(measured: pd.DataFrame, column: str) -> Section:
    means = _pivot(measured, column)
    spread = measured.groupby([*_CELL, "label"])[column].std().unstack("label")
    best = means.min(axis=1)
    cells = {
        label: [
            _error(mean, deviation, is_best=mean == least)
            for mean, deviation, least in zip(
                means[label], spread[label].reindex(means.index), best, strict=True
            )
        ]
        for label in means
    }
    seeds = measured.groupby("label", sort=False)["seed"].nunique()
    counts = ", ".join(f"{label} {count}" for label, count in seeds.items())
    return Section(
        title=column.upper(),
        text=f"Standardised values, every test window; mean ± standard deviation over seeds "
        f"({counts}). The best mean of a row is bold.",
        table=pd.DataFrame(cells, index=means.index).reset_index(),
    )


def _error(mean: float, deviation: float, *, is_best: bool) -> str:
    """Return "0.3672 ± 0.0009", the mean bold if it is the best; empty without a run."""
    text = "" if math.isnan(mean) else f"{mean:.4f}"
    text = f"**{text}**" if is_best else text
    return text if math.isnan(deviation) else f"{text} ± {deviation:.4f}"


def _published_for(means: pd.DataFrame) -> pd.DataFrame:
    """Return the published errors of the measured datasets and horizons, one column per figure."""
    published = load_published()
    told = published["lookback"].map(lambda rows: "" if pd.isna(rows) else f", lookback {rows}")
    label = published["model"] + " (published" + told + ")"
    order = list(dict.fromkeys(label))
    table = published.assign(label=label).pivot_table(index=_CELL, columns="label", values="mse")
    return table[order].reindex(means.index).dropna(axis=1, how="all")


def _beside(means: pd.DataFrame, published: pd.DataFrame) -> list[Section]:
    """Set each dataset's errors, a row per model, beside the published ones."""
    if published.empty:
        return []
    everyone = means.join(published)
    known = published.dropna(how="all").index.get_level_values("dataset")
    sections = []
    for dataset in dict.fromkeys(known):
        figures = everyone.loc[dataset].dropna(axis=1, how="all").T
        figures.columns = pd.Index([f"horizon {horizon}" for horizon in figures], name=None)
        table = figures.map(lambda mse: "" if pd.isna(mse) else f"{mse:.3f}")
        table.insert(0, "model", figures.index)
        sections.append(Section(title=f"{dataset}: MSE beside published figures", table=table))
    sources = load_published().set_index(_CELL)
    listed = sources[sources.index.isin(means.index)].groupby("source", sort=False)["model"]
    text = (
        "Published figures come from other code and, where said, other lookbacks; some left out "
        "windows. They are for orientation."
    )
    items = tuple(f"{', '.join(names)}: {source}" for source, names in listed.unique().items())
    return [*sections, Section(title="Sources of the published figures", text=text, items=items)]


def _ranks(means: pd.DataFrame) -> Section:
    common = means.dropna()
    ranks = common.rank(axis=1).mean().sort_values()
    table = pd.DataFrame({"model": ranks.index, "mean rank": ranks.map("{:.2f}".format).to_numpy()})
    return Section(
        title="Mean rank",
        text=f"By MSE, over the {len(common)} of {len(means)} rows that all models have.",
        table=table if len(common) else None,
    )


def _duels(subject: str, means: pd.DataFrame, published: pd.DataFrame) -> Section:
    """Count how often TSM2 is better, equal and worse, to as many digits as papers print."""
    everyone = means.join(published).round(_DIGITS)
    rows = []
    for rival in (label for label in everyone if label != subject):
        pair = everyone[[subject, rival]].dropna()
        wins = int((pair[subject] < pair[rival]).sum())
        losses = int((pair[subject] > pair[rival]).sum())
        rows.append((str(rival), wins, len(pair) - wins - losses, losses))
    return Section(
        title=f"Wins and losses of {subject}",
        text=f"By mean MSE to {_DIGITS} digits.",
        table=pd.DataFrame(rows, columns=["against", "wins", "ties", "losses"]).astype(str),
    )


def _costs(measured: pd.DataFrame) -> Section:
    numbers = measured.assign(memory=pd.to_numeric(measured["peak_memory_mb"]))
    groups = numbers.groupby(["label", "device", "threads"], sort=False)
    table = groups.agg(
        runs=("seed", "size"),
        fit=("fit_seconds", "mean"),
        predict=("predict_seconds", "mean"),
        memory=("memory", "max"),
    ).reset_index()
    for column, unit in (("fit", "s"), ("predict", "s"), ("memory", "MB")):
        digits = 0 if unit == "MB" else 1
        table[column] = table[column].map(lambda v, d=digits, u=unit: f"{v:.{d}f} {u}")
    versions = measured.groupby(["versions", "commit"], sort=False).size().index
    return Section(
        title="Cost",
        text="Mean seconds of a run, and the largest peak memory of its process.",
        table=table.astype(str),
        items=tuple(f"{v}, commit {c or 'unknown'}" for v, c in versions),
    )


def _draw_steps(results: pd.DataFrame, runs: Path, target: Path) -> str | None:
    """Draw the squared error of every step, one panel per dataset and horizon, if there is any."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    steps = []
    for row, label in zip(
        results[list(KEY)].itertuples(index=False), _labels(results), strict=True
    ):
        file = runs / f"{run_stem(tuple(map(str, row)))}.csv"
        if file.exists():
            errors = _read_steps(file)
            steps.append(errors.assign(dataset=row[0], horizon=row[2], label=label))
    if not steps:
        return None
    drawn = pd.concat(steps)
    datasets, labels = (list(dict.fromkeys(drawn[name])) for name in ("dataset", "label"))
    colours = {label: f"C{number % 10}" for number, label in enumerate(labels)}
    panels = sorted(
        drawn.groupby(_CELL, sort=False), key=lambda each: (datasets.index(each[0][0]), each[0][1])
    )
    columns = min(len(panels), _PANELS)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    lines_of = {}
    for axes, ((dataset, horizon), panel) in zip(grid, panels, strict=False):
        for label, lines in panel.groupby("label", sort=False):
            mean = lines.groupby("step")["mse"].mean()
            (lines_of[label],) = axes.plot(mean.index, mean, colours[label], label=label, lw=1.2)
        axes.set_title(f"{dataset}, horizon {horizon}", loc="left", fontsize="medium")
        axes.margins(x=0)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    grid[0].set(xlabel="step", ylabel="MSE")
    handles = [lines_of[label] for label in labels]
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, frameon=False)
    figure.savefig(target)
    return target.name


def _read_steps(file: Path) -> pd.DataFrame:
    """Read the errors of every step of one run."""
    try:
        return pd.read_csv(file)[["step", "mse"]].astype({"step": int, "mse": float})
    except (ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise OutputError(
            f"{file} is damaged ({reason}). Delete it; the report then leaves its curve out."
        ) from error


# --- formats --------------------------------------------------------------------------------------


def to_markdown(sections: Sequence[Section]) -> str:
    """Return sections as Markdown."""
    parts = [f"# {_TITLE}"]
    for section in sections:
        parts.append(f"## {section.title}")
        if section.text:
            parts.append(_markdown(section.text))
        if section.table is not None:
            rows: list[list[object]] = [list(section.table), ["---"] * section.table.shape[1]]
            rows += [list(row) for row in section.table.astype(str).itertuples(index=False)]
            parts.append("\n".join(_markdown_row(row) for row in rows))
        if section.picture is not None:
            parts.append(f"![{section.title}]({section.picture})")
        if section.items:
            parts.append("\n".join(f"- {_markdown(item)}" for item in section.items))
    return "\n\n".join(parts) + "\n"


def _markdown_row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(_markdown(str(cell)) for cell in cells)} |"


def _markdown(text: str) -> str:
    """Return text that Markdown shows as it is, on one line; bold stays what it is."""
    plain = re.sub(r"[\\`\[\]<>&|]", lambda found: f"&#{ord(found[0])};", text)
    return " ".join(plain.split())


def to_html(sections: Sequence[Section]) -> str:
    """Return sections as one HTML page without scripts, which needs no other file."""
    return render(_TITLE, sections, facts=_facts(sections))


def _facts(sections: Sequence[Section]) -> str:
    titles = [section.title for section in sections]
    return _ABOUT if "MSE" in titles else ""
