"""Ensembles: the mean of networks that were each fitted as if alone, kept in one model folder."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from forging import forge_config

from tsm2 import TSM2Forecaster
from tsm2.errors import ParameterError, SavedModelError
from tsm2.fitted.inspection import averaging_weights, inspect_network, step_sizes
from tsm2.networks import Ensemble, NetworkConfig, TSM2Network
from tsm2.networks.ensemble import members_of

SMALL: dict[str, Any] = {
    "lookback": 24,
    "horizon": 6,
    "features": 8,
    "patch_length": 8,
    "d_state": 4,
    "max_epochs": 2,
    "linear_start": "random",
    "batch_size": 16,
    "device": "cpu",
    "random_state": 0,
}


def trained(model: TSM2Forecaster) -> TSM2Network | Ensemble:
    return cast("TSM2Network | Ensemble", model.network_)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    index = pd.date_range("2024-03-01", periods=160, freq="h", name="time")
    t = np.arange(160) * 2 * np.pi / 24
    noise = np.random.default_rng(0).normal(0, 0.1, (160, 2))
    return pd.DataFrame(np.stack((np.sin(t), np.cos(t)), 1) + noise, index, ["load", "wind"])


@pytest.fixture(scope="module")
def fitted(frame: pd.DataFrame) -> TSM2Forecaster:
    return TSM2Forecaster(**SMALL, n_estimators=3).fit(frame)


def test_the_mean_of_the_members_is_forecast(fitted: TSM2Forecaster, frame: pd.DataFrame) -> None:
    members = members_of(trained(fitted))
    assert len(members) == 3
    context = fitted.scaling_.standardise(frame.to_numpy()[-24:]).T[None]
    with torch.inference_mode():
        each = torch.stack([member(context) for member in members])
    assert bool((each.std(0) > 0).any())
    wanted = fitted.scaling_.restore(each.mean(0)[0].T)
    np.testing.assert_allclose(fitted.predict(), wanted, rtol=1e-5)


def test_the_first_member_is_the_network_of_a_single_fit(
    fitted: TSM2Forecaster, frame: pd.DataFrame
) -> None:
    alone = TSM2Forecaster(**SMALL).fit(frame)
    first = members_of(trained(fitted))[0].state_dict()
    assert all(torch.equal(first[name], each) for name, each in alone.network_.state_dict().items())
    losses = fitted.history_[fitted.history_["member"] == 0].drop(columns="member")
    pd.testing.assert_frame_equal(losses, alone.history_)


def test_it_is_reported_as_an_ensemble(fitted: TSM2Forecaster) -> None:
    assert list(fitted.history_["member"]) == [0, 0, 1, 1, 2, 2]
    assert list(fitted.history_["epoch"]) == [1, 2, 1, 2, 1, 2]
    assert fitted.n_iter_ == 2
    assert isinstance(fitted.network_, Ensemble)
    assert fitted.network_.config.lookback == 24
    assert not fitted.network_.training


def test_members_fitted_side_by_side_are_the_same(
    fitted: TSM2Forecaster, frame: pd.DataFrame
) -> None:
    both = TSM2Forecaster(**SMALL, n_estimators=3, n_jobs=2).fit(frame)
    pd.testing.assert_frame_equal(both.history_, fitted.history_, rtol=1e-5)
    np.testing.assert_allclose(both.predict(), fitted.predict(), rtol=1e-4)


def test_one_folder_keeps_all_members(
    fitted: TSM2Forecaster, frame: pd.DataFrame, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "model")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) == 1
    loaded = TSM2Forecaster.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(), fitted.predict())
    pd.testing.assert_frame_equal(loaded.predict_interval(), fitted.predict_interval())
    pd.testing.assert_frame_equal(loaded.history_, fitted.history_)
    assert loaded.n_iter_ == 2
    forge_config(tmp_path / "model", '"n_estimators": 3', '"n_estimators": 2')
    with pytest.raises(SavedModelError, match=r"'members\.2\.\S+' is unexpected"):
        TSM2Forecaster.load(tmp_path / "model")


def test_quantiles_of_an_ensemble_are_averaged_and_do_not_cross(frame: pd.DataFrame) -> None:
    model = TSM2Forecaster(**SMALL, n_estimators=2, quantiles=(0.1, 0.9)).fit(frame)
    context = model.scaling_.standardise(frame.to_numpy()[-24:]).T[None]
    with torch.inference_mode():
        each = torch.stack([member(context) for member in members_of(trained(model))])
    raw = model.predict_quantiles(quantiles=(0.1, 0.5, 0.9), calibrated=False)
    wanted = each.mean(0)[0].permute(1, 0, 2).double().numpy()  # (H, M, Q)
    center, scale = model.scaling_.center[:, None], model.scaling_.scale[:, None]
    np.testing.assert_allclose(
        raw.to_numpy().reshape(6, 2, 3), wanted * scale + center, rtol=1e-4, atol=1e-4
    )
    assert bool((np.diff(raw.to_numpy().reshape(6, 2, 3)) >= 0).all())


def test_every_member_learns_from_an_update_and_starts_warm(frame: pd.DataFrame) -> None:
    model = TSM2Forecaster(**SMALL, n_estimators=2).fit(frame.iloc[:120])
    before = [member.embedding.weight.clone() for member in members_of(trained(model))]
    model.update(frame.iloc[120:], epochs=1)
    after = [member.embedding.weight for member in members_of(trained(model))]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert list(model.history_["epoch"]) == [1, 2, 1, 2, 3, 3]
    assert model.n_iter_ == 3
    with pytest.raises(ParameterError, match="warm_start needs the sizes of the earlier fit"):
        model.set_params(warm_start=True, n_estimators=3).fit(frame)


def test_inspecting_an_ensemble_gives_the_mean_of_its_members(
    fitted: TSM2Forecaster, frame: pd.DataFrame
) -> None:
    whole = fitted.inspect(frame)
    context = fitted.scaling_.standardise(frame.to_numpy()[-24:]).T[None]
    inputs, names = {"context": context}, {"context": ["load", "wind"]}
    members = members_of(trained(fitted))
    steps = [step_sizes(member, inputs, names) for member in members]
    last = inspect_network(trained(fitted), inputs, names, point=lambda forecast: forecast)
    np.testing.assert_allclose(last.steps["step"], np.mean([s["step"] for s in steps], axis=0))
    weights = [averaging_weights(member)["weight"] for member in members]
    np.testing.assert_allclose(whole.averaging["weight"], np.mean(weights, axis=0))
    assert whole.influence.shape == (2, 2)


def test_each_member_has_a_checkpoint_of_its_own(
    fitted: TSM2Forecaster, frame: pd.DataFrame, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    model = TSM2Forecaster(**SMALL, n_estimators=3)
    for _ in range(2):  # the second finds everything done
        model.fit(frame, checkpoint=folder)
        np.testing.assert_array_equal(model.predict(), fitted.predict())
    assert sorted(each.name for each in folder.iterdir()) == ["member-0", "member-1", "member-2"]


@pytest.mark.parametrize(
    ("name", "value"), [("n_estimators", 0), ("n_estimators", 1.5), ("n_jobs", 0), ("n_jobs", "2")]
)
def test_counts_that_cannot_be_are_refused(frame: pd.DataFrame, name: str, value: object) -> None:
    with pytest.raises(ParameterError, match=f"'{name}' parameter of TSM2Forecaster must be"):
        TSM2Forecaster(**(SMALL | {name: value})).fit(frame)


def test_auxiliary_tensors_reach_every_member() -> None:
    config = NetworkConfig(lookback=16, horizon=2, n_variates=2, patch_length=8, patch_stride=8)
    ensemble = Ensemble([TSM2Network(config), TSM2Network(config)]).eval()
    context = torch.randn(1, 2, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 2, 16, dtype=torch.bool)
    mask[..., 3:6] = False
    masked = ensemble(context, mask=mask)
    each = [member(context, mask=mask) for member in members_of(ensemble)]
    torch.testing.assert_close(masked, (each[0] + each[1]) / 2)
    assert not torch.allclose(masked, ensemble(context))
