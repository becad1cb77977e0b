"""Inputs: what a network reads of histories and of what stands beside them.

Sizes: S series, B windows, L lookback, M columns, of which Mt targets; Cp past covariates.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tsm2.prepared.roles import Roles
from tsm2.prepared.windows import join_known
from tsm2.tables.frames import Panel

__all__ = ["Beside", "last_rows", "network_inputs"]

Beside: TypeAlias = Callable[[slice], dict[str, Any]]
"""Returns what belongs to some windows beside their values, as arguments of a forecast."""


def last_rows(panel: Panel, lookback: int) -> NDArray[np.float64]:
    """Return the last rows of every series, (S, L, M); NaN where a series has fewer.

    Examples
    --------
    >>> from tsm2.tables.panels import read_panel
    >>> short, long = np.array([[1.0]]), np.array([[2.0], [3.0], [4.0]])
    >>> last_rows(read_panel([short, long]), 2)[..., 0].tolist()
    [[nan, 1.0], [3.0, 4.0]]
    """
    tail = panel.tail(lookback)
    whole = tail.padded(lookback - tail.counts)
    return whole.values.reshape(len(panel.ids), lookback, -1)


def network_inputs(
    rows: Tensor, roles: Roles, covariates: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sort what a network reads.

    Parameters
    ----------
    rows
        Histories in standard units, (B, L, M); NaN where unknown.
    roles
        Which columns are targets; the others become past covariates.
    covariates
        Coded covariates, see `tsm2.prepared.windows.Covariates.gather`.

    Returns
    -------
    The contexts, (B, Mt, L), and all else by the names of `tsm2.prepared.windows.Batch.auxiliary`.
    """
    targets, known, others, others_known = roles.split(rows.swapaxes(1, 2), axis=1)
    auxiliary = dict(covariates)
    if known is not None:
        auxiliary["mask"] = known
    if others.shape[1]:
        past, mask = join_known(
            others, others_known, auxiliary.pop("past", None), auxiliary.pop("past_mask", None)
        )
        auxiliary |= {"past": past} if mask is None else {"past": past, "past_mask": mask}
    return targets, auxiliary
