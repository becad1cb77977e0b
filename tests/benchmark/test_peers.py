"""Models of peer libraries forecast what their own library would; skipped where it is missing."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tsm2.benchmark.models import PEERS, Setup, build
from tsm2.datasets import load_sample
from tsm2.errors import ParameterError

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend


def given(**parameters: object) -> Setup:
    return Setup(lookback=48, horizon=12, season=24, seed=1, parameters=parameters)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("PatchTST", {"hidden_size": 16, "n_heads": 2, "linear_hidden_size": 16}),
        ("iTransformer", {"hidden_size": 16, "n_heads": 2, "d_ff": 16}),
        ("TSMixer", {"ff_dim": 8}),
        ("TimesNet", {"hidden_size": 4, "conv_hidden_size": 4, "scaler_type": "standard"}),
    ],
)
def test_neuralforecast_agrees_with_its_own_predict(
    name: str, parameters: dict[str, object]
) -> None:
    pytest.importorskip("neuralforecast")
    from neuralforecast.tsdataset import (  # pyright: ignore[reportMissingImports]
        TimeSeriesDataset,
    )

    values = load_sample(600).to_numpy()
    model = build(f"neuralforecast:{name}", given(max_steps=3, windows_batch_size=16, **parameters))
    model.fit(values, 480)
    got = model.forecast_contexts(values[None, -48:], 12)[0]

    scaling = model.scaling_  # type: ignore[attr-defined]
    table = scaling.standardise(values).numpy()
    labels = [str(number) for number in range(5)]
    series = {"unique_id": np.repeat(labels, 600), "ds": np.tile(np.arange(600), 5)}
    dataset, *_ = TimeSeriesDataset.from_df(pd.DataFrame(series | {"y": table.T.ravel()}))
    theirs = np.asarray(model.model_.predict(dataset)).reshape(5, 12).T  # type: ignore[attr-defined]
    wanted = scaling.restore(torch.from_numpy(theirs.astype(np.float32)))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_darts_agrees_with_its_own_historical_forecasts() -> None:
    pytest.importorskip("darts")
    from darts import TimeSeries  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    values = load_sample(600).to_numpy()
    model = build("darts:NLinearModel", given(n_epochs=1))
    model.fit(values, 480)
    contexts = np.stack([values[start : start + 48] for start in (500, 501, 502)])
    got = model.forecast_contexts(contexts, 12)

    scaling = model.scaling_  # type: ignore[attr-defined]
    whole = TimeSeries.from_values(scaling.standardise(values).numpy())
    theirs = model.model.historical_forecasts(  # type: ignore[attr-defined]
        whole, start=548, forecast_horizon=12, retrain=False, last_points_only=False, verbose=False
    )
    wanted = np.stack([scaling.restore(torch.from_numpy(each.values())) for each in theirs[:3]])
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "updates"),
    [
        ("NaiveForecaster", True),
        ("PolynomialTrendForecaster", False),
        ("Frozen", False),
        ("TSM2SktimeForecaster", True),
    ],
)
def test_an_sktime_forecaster_sees_the_context(name: str, updates: bool) -> None:
    pytest.importorskip("sktime")
    from sktime.forecasting.naive import NaiveForecaster  # pyright: ignore[reportMissingImports]

    from tsm2.adapters.sktime import TSM2SktimeForecaster
    from tsm2.benchmark.peers import from_sktime

    class Frozen(NaiveForecaster):  # type: ignore[misc]
        """Its tag says that it updates, and it does not."""

        def update(self, y: object, X: object = None, update_params: bool = True) -> "Frozen":
            return self

    values = load_sample(200).to_numpy()
    model: Any
    if name.startswith("TSM2"):
        small = given(lookback=48, max_epochs=1)
        model = from_sktime.SktimeForecaster(TSM2SktimeForecaster, small)
    elif name == "Frozen":
        model = from_sktime.SktimeForecaster(Frozen, given())
    else:
        model = build(f"sktime:{name}", given())
    model.fit(values, 150)
    contexts = np.stack([values[100:148], values[152:200]])
    got = model.forecast_contexts(contexts, 12)
    assert (model.trained is not None) == updates

    wanted: list[Any] = []
    scaled = model.scaling_.standardise(contexts)
    for context in scaled:
        if name in {"NaiveForecaster", "Frozen"}:
            wanted.append(context[-1].repeat(12, 1).numpy())
        elif name.startswith("TSM2"):
            own = model.trained.forecaster_
            wanted.append(own.forecast_contexts(context[None].numpy(), 12)[0])
        else:
            line = np.polynomial.polynomial.polyfit(np.arange(48), context.numpy(), 1)
            wanted.append(np.polynomial.polynomial.polyval(np.arange(48, 60), line).T)
    restored = model.scaling_.restore(torch.from_numpy(np.stack(wanted).astype(np.float32)))
    np.testing.assert_allclose(got, restored, rtol=1e-4)


def test_an_sktime_regressor_is_one_per_variate() -> None:
    pytest.importorskip("sktime")
    values = load_sample(120).to_numpy()
    model = build("sktime:DummyRegressor", given())
    model.fit(values, 100)
    got = model.forecast_contexts(values[None, :48], 12)
    wanted = np.stack([values[48 + step : 89 + step].mean(axis=0) for step in range(12)])
    np.testing.assert_allclose(got[0], wanted, rtol=1e-5)


@pytest.mark.parametrize("peer", PEERS)
def test_a_name_that_a_peer_does_not_have_is_refused(peer: str) -> None:
    pytest.importorskip(peer)
    with pytest.raises(ParameterError, match=r"has no .* named 'Oracle'"):
        build(f"{peer}:Oracle", given())
