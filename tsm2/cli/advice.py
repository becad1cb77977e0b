"""What errors and notes advise, in the words of a command line.

The library speaks of parameters and of pandas (missing='mask', X.sort_index()); whoever typed
`tsm2 fit` has options and a file. `for_command_line` puts one into the other: a parameter becomes
the option that sets it, `--set` if it has none of its own, and a step in pandas becomes what is
done to the file.
"""

import re
import shlex

__all__ = ["for_command_line"]

_OPTIONS = {
    "n_jobs": "--jobs",
    "max_epochs": "--epochs",
    "random_state": "--seed",
    "time_col": "--time-col",
    "id_col": "--id-col",
    "data_home": "--data-dir",
} | {
    name: f"--{name.replace('_', '-')}"
    for name in (
        *("sep", "decimal", "encoding", "date_format", "time_zone", "time_column", "target_col"),
        *(
            "lookback",
            "horizon",
            "quantiles",
            "coverage",
            "device",
            "target",
            "calendar",
            "holidays",
        ),
        *("missing", "start_from", "checkpoint", "max_time", "log_dir", "start", "stride", "refit"),
        *(
            "window",
            "epochs",
            "past_covariates",
            "future_covariates",
            "static_covariates",
            "models",
        ),
        *("horizons", "seeds", "config", "threads", "jobs", "series"),
    )
}
_SET = (
    *("validation_fraction", "frequency", "dropout", "scaling", "logarithms", "nonnegative"),
    *("n_estimators", "batch_size"),
)
_FLAGS = {
    "day_first=True": "--day-first",
    "day_first=False": "--month-first",
    "header=True": "--header",
    "header=False": "--no-header",
    "refit=False": "no --refit",
}
_STEPS = (  # of pandas, and what is done to a file in their place
    (r"Pass (missing='mask') or (missing='ffill') for NaN, fill them [^.;]*\([^;]*?\), or",
     r"Give \1 or \2 for empty cells, fill them in the file, or"),
    (r"To go by position instead, drop the stamps: X\.reset_index\(drop=True\)\.?",
     "To go by position instead, give a column of whole numbers as --time-column."),
    (r"Keep one row each, X\[.*?X\.pivot\(\.\.\.\) first\.",
     "Keep one row each in the file. Several series below each other need --id-col."),
    (r"Use X\.sort_index\(\)\.", "Sort the rows of the file by time."),
    (r"Insert (?:the )?missing rows with X\.(?:reindex|asfreq)\([^)]*\) and fill them"
     r"(?:, or pass missing='mask' or 'ffill' \(.*?all else fits\))?[.;]?"
     r"(?: put stamps beside the grid on it with X\.resample\([^)]*\)\.mean\(\);)?"
     r"(?: pass frequency= if this one is wrong\.)?",
     "Give --missing mask or --missing ffill if rows are missing, another frequency with --set if "
     "this step is wrong, or correct the file."),
    (r"Convert with pd\.to_numeric, or drop what is no series: X\.select_dtypes\('number'\)\.",
     "Correct the cells that are no numbers (see --decimal), or delete these columns."),
    (r"Is this a long table.*$",
     "Is this a file of many series, one row per series and time? Name its columns with --id-col, "
     "--time-col and --target-col."),
    (r"Pass the same columns in the same order: X\[\[\.\.\.\]\]\.",
     "Give a file with the same columns in the same order."),
    (r"Use X\.tz_localize\(\.\.\.\) or X\.tz_convert\(\.\.\.\)\.", "Give --time-zone."),
    (r"Fill them, as with \w+\.ffill\(\), or", "Fill them in the file, or"),
    (r"Pass the same container to fit and predict: [^.]*\.",
     "Give a file of the same kind to fit and predict."),
    (r"Fit with a validation_fraction above 0, call calibrate .*?, or fit with quantiles",
     "Fit with --set validation_fraction=0.2, or with --quantiles"),
    (r"Pass a DataFrame with its stamps as index", "Give a file with time stamps"),
)  # fmt: skip
_ASSIGNMENT = re.compile(
    r"(?<![\w.])(?<!\w\()(?P<name>[a-z_]+)=(?P<value>'[^']*'|\"[^\"]*\"|[\w+-]+(?:\.\w+)*)?"
)


def for_command_line(text: str) -> str:
    """Put an error or a note into the words of a command line.

    Parameters
    ----------
    text
        As the library says it.

    Returns
    -------
    One line.

    Examples
    --------
    >>> for_command_line("Pass missing='mask', or give day_first=True or sep=.")
    'Pass --missing mask, or give --day-first or --sep.'
    >>> for_command_line("Give date_format='%d.%m.%Y %H:%M', not dropout=0 (lookback=9).")
    "Give --date-format '%d.%m.%Y %H:%M', not --set dropout=0 (--lookback 9)."
    """
    text = " ".join(text.split())
    for step, words in _STEPS:
        text = re.sub(step, words, text)
    for flag, option in _FLAGS.items():
        text = text.replace(flag, option)
    return _ASSIGNMENT.sub(_option, text)


def _option(match: re.Match[str]) -> str:
    name, value = match["name"], match["value"]
    if name in _SET:
        return f"--set {name}={'...' if value is None else value}"
    if name not in _OPTIONS:
        return match[0]
    if value is None:
        return _OPTIONS[name]
    return f"{_OPTIONS[name]} {shlex.quote(value.strip(chr(39) + chr(34)))}"
