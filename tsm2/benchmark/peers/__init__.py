"""Models of peer libraries under our protocol: one file each, imported when one is asked for.

Each module offers ``adapt(name)``, which returns what makes a `Forecaster` from a `Setup`.
"""

__all__: list[str] = []
