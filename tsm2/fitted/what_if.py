"""What if: the forecast of one history, beside the one with other covariates in rows to come."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from tsm2.fitted.explanation import WhatIf, changed_covariates
from tsm2.fitted.model import FittedModel
from tsm2.tables.covariates import CovariateTables
from tsm2.tables.series import Series

__all__ = ["what_if"]


def what_if(
    model: FittedModel,
    history: Series,
    given: CovariateTables,
    changes: Mapping[Hashable, float],
    *,
    series: Hashable,
    horizon: int,
    id_col: str,
    time_col: str,
) -> WhatIf:
    """Forecast one series twice: with the covariates as they are, and with changed future ones.

    Parameters
    ----------
    model
        What forecasts.
    history, given
        The histories to continue, and their covariates.
    changes
        By what to multiply each future covariate.
    series
        Which of several series.
    horizon
        Rows to forecast.
    id_col, time_col
        Columns of a long frame.

    Raises
    ------
    ParameterError
        A covariate that changes is not there, or is not numeric; or no series is named.
    """
    targets = model.roles.of_targets(history)
    number = targets.number_of(series)
    changed = changed_covariates(
        given.future,
        changes,
        series=targets.ids[number],
        last=targets.last_stamps[number],
        id_col=id_col,
        time_col=time_col,
    )
    columns = pd.Index(targets.layout.columns, tupleize_cols=False)
    index = targets.chosen(np.arange(len(targets.ids)) == number).stamps_behind(horizon)

    def forecast(covariates: CovariateTables) -> pd.DataFrame:
        prepared, starts = model.latest(history, covariates, horizon)
        values = model.forecast(prepared, starts[[number]], horizon)[0]
        return pd.DataFrame(values, index, columns)

    return WhatIf(
        forecast=forecast(given),
        changed=forecast(replace(given, future=changed)),
        changes=dict(changes),
    )
