"""What a forecast is measured against."""

from tsm2.benchmark.baselines import RepeatLast, RLinear, SeasonalNaive

__all__ = ["RLinear", "RepeatLast", "SeasonalNaive"]
