"""What a network selected: the numbers are those of its scans, and the sample's links show."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from tsm2 import TSM2Forecaster
from tsm2.datasets import SAMPLE_LINKS, load_sample
from tsm2.errors import NotFittedError, WindowError
from tsm2.fitted.inspection import averaging_weights, influence, inspect_network, step_sizes
from tsm2.networks.mixers import DirectedScan
from tsm2.networks.tsm2 import NetworkConfig, TSM2Network

NAMES = {"context": ["a", "b", "c"]}


def network(**changes: Any) -> TSM2Network:
    sizes = {"lookback": 20, "horizon": 4, "n_variates": 3, "patch_length": 8, "patch_stride": 4}
    starts = {"zero_start": False, "zero_head": False}
    settings: dict[str, Any] = sizes | starts | {"features": 8} | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TSM2Network(NetworkConfig(**settings)).eval()


def context(rows: int = 5) -> torch.Tensor:
    return torch.randn(rows, 3, 20, generator=torch.Generator().manual_seed(1))


def same(forecast: torch.Tensor) -> torch.Tensor:
    return forecast


def test_steps_are_what_the_scans_take() -> None:
    """A scan of constant weights takes the softplus of its bias everywhere."""
    net = network()
    scans = [module for module in net.modules() if isinstance(module, DirectedScan)]
    for place, scan in enumerate(scans):
        torch.nn.init.zeros_(scan.step.weight)
        torch.nn.init.constant_(scan.step.bias, place)
    table = step_sizes(net, {"context": context()}, NAMES)
    wanted = {("time", "forward"): 0.0, ("variate", "forward"): 1.0, ("variate", "backward"): 2.0}
    for (mixer, direction), bias in wanted.items():
        own = table[(table["mixer"] == mixer) & (table["direction"] == direction)]
        assert len(own) == 3 * 4
        np.testing.assert_allclose(own["step"], functional.softplus(torch.tensor(bias)), rtol=1e-6)
    assert not any(scan.select._forward_hooks for scan in scans)  # none is left behind


def test_steps_differ_by_token_and_are_means_over_windows() -> None:
    net = network()
    whole = step_sizes(net, {"context": context()}, NAMES)["step"]
    one_by_one = [step_sizes(net, {"context": one[None]}, NAMES)["step"] for one in context()]
    np.testing.assert_allclose(whole, np.mean(one_by_one, axis=0), rtol=1e-5)
    assert whole.nunique() > 30


def test_patches_say_which_rows_they_hold() -> None:
    table = step_sizes(network(), {"context": context()}, NAMES)
    own = table[(table["variate"] == "b") & (table["mixer"] == "time")]
    assert own["patch"].tolist() == [1, 2, 3, 4]
    assert own["first"].tolist() == [-19, -15, -11, -7]
    assert own["last"].tolist() == [-12, -8, -4, 0]
    filled = step_sizes(network(patch_stride=7), {"context": context()}, NAMES)
    assert filled["first"].min() == -19  # the first patch is filled up on its left


def test_averaging_names_every_weight_of_the_network() -> None:
    net = network(blocks=2)
    table = averaging_weights(net)
    stored = [p for name, p in net.named_parameters() if "average" in name or "readout" in name]
    assert len(table) == sum(weights.numel() for weights in stored) == 14 + 6
    last = table[(table["block"] == 2) & (table["reader"] == "variate mixer")]
    assert last["source"].tolist() == ["time mixer"] * 3 + ["variate mixer"] * 2
    assert last["source_block"].tolist() == [0, 1, 2, 0, 1]
    reach = averaging_weights(network(blocks=2, averaging_reach=1))
    assert reach[(reach["block"] == 2) & (reach["reader"] == "time mixer")][
        "source_block"
    ].tolist() == [1, 1]


def test_influence_is_nothing_where_no_way_leads() -> None:
    alone = influence(
        network(variate_mixer="none"), {"context": context()}, NAMES, point=same
    ).to_numpy()
    assert (alone.diagonal() > 0.01).all()
    assert (alone[~np.eye(3, dtype=bool)] == 0).all()
    forward = influence(
        network(variate_directions="forward"), {"context": context()}, NAMES, point=same
    ).to_numpy()
    assert (forward[np.triu_indices(3, 1)] == 0).all()  # no forecast looks at later variates
    assert (forward[np.tril_indices(3)] > 0).all()


def test_influence_counts_the_forecasts_move() -> None:
    net = network(blocks=0)
    still = context().clone()
    still[:, 1] = still[:, 1].mean(-1, keepdim=True)
    with torch.inference_mode():
        moved = (net(still) - net(context()))[:, 1].square().mean().sqrt()
    table = influence(net, {"context": context()}, NAMES, point=same)
    assert table.loc["b", "b"] == pytest.approx(moved.item(), rel=1e-5)


def test_covariates_are_sources_too() -> None:
    inputs = {
        "context": context(),
        "past": context()[:, :2],
        "future": torch.randn(5, 1, 24, generator=torch.Generator().manual_seed(2)),
    }
    names = NAMES | {"past": ["wind", "sun"], "future": ["holiday"]}
    net = network(n_past=2, n_future=1)
    for parameter in net.parameters():  # what starts at zero would move nothing
        if not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.1)
    selection = inspect_network(net, inputs, names, point=same)
    assert list(selection.influence.columns) == ["a", "b", "c", "wind", "sun", "holiday"]
    assert bool((selection.influence[["wind", "holiday"]] > 0).all(axis=None))
    assert selection.steps["variate"].unique().tolist() == ["a", "b", "c"]


def test_networks_without_scans_have_no_steps() -> None:
    selection = inspect_network(network(blocks=0), {"context": context()}, NAMES, point=same)
    assert selection.steps.empty
    assert selection.averaging.empty
    assert list(selection.steps) == list(step_sizes(network(), {"context": context()}, NAMES))


# --- the estimator --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted() -> TSM2Forecaster:
    return TSM2Forecaster(
        lookback=96,
        horizon=24,
        max_epochs=5,
        mixer_learning_rate=1e-2,
        sam_radius=0.14,
        random_state=0,
    ).fit(load_sample(5000))


def test_what_the_sample_follows_from_moves_its_forecasts_and_noise_does_not(
    fitted: TSM2Forecaster,
) -> None:
    table = fitted.inspect(load_sample(5000)).influence
    noise = ["noise_a", "noise_b"]
    known = [(link.target, link.source) for link in SAMPLE_LINKS if link.source in table]
    assert len(known) == 2
    for target, source in known:
        assert table.loc[target, source] > 2.5 * table.loc[target, noise].max(), table
    others = table.drop(index=noise)
    assert bool((others[noise] < 0.15).all(axis=None)), table


def test_a_table_is_looked_at_in_windows_spread_over_it(fitted: TSM2Forecaster) -> None:
    frame = load_sample(5000)
    last = fitted.inspect()
    pd.testing.assert_frame_equal(last.influence, fitted.inspect(frame.iloc[-96:]).influence)
    assert not fitted.inspect(frame).influence.equals(last.influence)
    array = TSM2Forecaster(24, 6, max_epochs=1).fit(frame.iloc[:200].to_numpy())
    assert list(array.inspect().influence) == [0, 1, 2, 3, 4]
    series = TSM2Forecaster(24, 6, max_epochs=1).fit([frame.iloc[:200], frame.iloc[100:250]])
    assert np.isfinite(series.inspect().influence).all(axis=None)


def test_mistakes(fitted: TSM2Forecaster) -> None:
    with pytest.raises(NotFittedError):
        TSM2Forecaster().inspect()
    with pytest.raises(WindowError):
        fitted.inspect(load_sample(50))


def test_a_selection_shows_its_influences_in_a_notebook(fitted: TSM2Forecaster) -> None:
    selection = fitted.inspect(load_sample(5000))
    shown = selection._repr_html_()
    assert shown.startswith("<p>How far a forecast (row) moves without the history of a column")
    for name in selection.influence:
        assert shown.count(f"<th>{name}</th>") == 2  # what moves, and what is moved
    assert shown.count("<td>") == selection.influence.size
