"""What a forecast is measured against, and the command that measures.

`run` fits models on benchmark datasets under the protocol that `protocol` states, one row per run
in a file that survives any kill; `report` sets the rows beside published numbers.
"""

from tsm2.benchmark.ablation import ABLATIONS
from tsm2.benchmark.baselines import DLinear, NLinear, RepeatLast, RLinear, SeasonalNaive
from tsm2.benchmark.models import Forecaster, Setup
from tsm2.benchmark.runner import NotRun, Outcome, run

__all__ = [
    "ABLATIONS",
    "DLinear",
    "Forecaster",
    "NLinear",
    "NotRun",
    "Outcome",
    "RLinear",
    "RepeatLast",
    "SeasonalNaive",
    "Setup",
    "run",
]
