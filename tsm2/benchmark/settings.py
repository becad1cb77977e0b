"""Settings of TSM2 per dataset: what it is given, and how that was chosen.

``settings/NAME.toml`` holds a table ``[paper]``, with the paper's lookback, and a table ``[best]``,
where the lookback is chosen too. `how` says how, `lookback` is what every model of a run reads, all
else are parameters of `TSM2Forecaster`; a table ``[best.from.192]`` holds those that change from a
horizon of 192 rows on. What is not there keeps the estimator's default. Settings are chosen on
validation rows; no test row is read for them. "defaults" stands for no settings at all: TSM2 may
then read the lookback of `[best]`, or two or four times as many rows, as its validation rows say.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, get_args

from tsm2.errors import ParameterError

__all__ = ["Config", "Settings", "load_settings"]

Config = Literal["paper", "best", "defaults"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What TSM2 is given on one dataset."""

    how: str
    """How it was chosen."""
    lookback: int
    """Rows that every model of the run reads."""
    parameters: Mapping[str, Any]
    """Parameters of `TSM2Forecaster` that differ from its defaults."""
    longer: Mapping[int, Mapping[str, Any]]
    """What changes from a horizon of so many rows on."""

    def at(self, horizon: int) -> dict[str, Any]:
        """Return the parameters for a horizon."""
        parameters = dict(self.parameters)
        for start in sorted(self.longer):
            if horizon >= start:
                parameters |= self.longer[start]
        return parameters


def load_settings(dataset: str, config: Config, lookback: int | None = None) -> Settings:
    """Return the settings for a dataset.

    Parameters
    ----------
    dataset
        Name, or "sample" for the generated table.
    config
        "paper", "best" or "defaults".
    lookback
        Rows that every model reads; None for those of the dataset.

    Raises
    ------
    ParameterError
        There are no such settings.

    Examples
    --------
    >>> load_settings("ETTh1", "paper").lookback
    512
    """
    if config not in get_args(Config):
        raise ParameterError(f"config must be 'paper', 'best' or 'defaults', got {config!r}.")
    file = files("tsm2.benchmark") / "settings" / f"{dataset}.toml"
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    if config == "defaults":
        own = lookback or int(tables["best"]["lookback"])
        tried = {"lookback": [own, 2 * own, 4 * own]}
        return Settings(how="no settings", lookback=own, parameters=tried, longer={})
    table = tables[config]
    how, own = table.pop("how"), table.pop("lookback")
    longer = {int(start): changes for start, changes in table.pop("from", {}).items()}
    return Settings(how=how, lookback=lookback or own, parameters=table, longer=longer)
