"""The benchmark tables of long-horizon forecasting, and a generated one that needs no file.

`registry` knows every file (address, size, checksum, licence, splits), `files` finds, verifies
or downloads it, `tables` reads it, `sample` generates a table whose dependences are known and
`stores` series that covariates explain.
tsm2 ships none of the benchmark data.
"""

from tsm2.datasets.files import FileCheck, check, fetch, path
from tsm2.datasets.registry import Dataset, Split, borders, describe, names
from tsm2.datasets.sample import SAMPLE_LINKS, Link, load_sample, load_sample_covariates
from tsm2.datasets.stores import Stores, load_stores
from tsm2.datasets.tables import load

__all__ = [
    "SAMPLE_LINKS",
    "Dataset",
    "FileCheck",
    "Link",
    "Split",
    "Stores",
    "borders",
    "check",
    "describe",
    "fetch",
    "load",
    "load_sample",
    "load_sample_covariates",
    "load_stores",
    "names",
    "path",
]
