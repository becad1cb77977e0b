"""What a network may be set to: every field refuses what it may not be, and says what it may be."""

import dataclasses
from inspect import Parameter
from math import nan
from typing import Any

import numpy as np
import pytest

from tsm2.errors import ParameterError
from tsm2.networks.config import SETTINGS, NetworkConfig, patch_sizes
from tsm2.networks.tsm2 import NetworkConfig as ImportedAsBefore

SIZES: dict[str, Any] = {"lookback": 40, "horizon": 6, "n_variates": 3}

NUMBER = [-1, 2.5, 4.0, nan, "4", True, None, (4,)]
COUNT = [0, *NUMBER]
FLAG = [0, 1, "True", None]
CHOICE = ["lstm", "", 1, True, None, ["none"]]
WRONG: dict[str, list[Any]] = {
    **dict.fromkeys(("lookback", "horizon", "n_variates"), COUNT),
    **dict.fromkeys(("n_past", "n_future", "n_static", "leaders", "blocks"), NUMBER),
    **dict.fromkeys(("features", "patch_length", "patch_stride"), COUNT),
    **dict.fromkeys(("d_state", "d_conv", "expand"), COUNT),
    "averaging_reach": [value for value in COUNT if value is not None],
    **dict.fromkeys(("gaps", "reverts", "bounded", "averaging_learned", "zero_start"), FLAG),
    **dict.fromkeys(("zero_head", "instance_norm", "separate_heads"), FLAG),
    "dropout": [-0.1, 1.0, 7, nan, "0.1", True, None],
    "pre_norm": [*CHOICE, "batch"],
    "selection": [*CHOICE, "output"],
    "time_mixer": [*CHOICE, "mlp"],
    "variate_mixer": [*CHOICE, "linear"],
    "variate_directions": [*CHOICE, "backward"],
    "averaging": [*CHOICE, "streem"],
    "readout": [*CHOICE, "first"],
    "level": [*CHOICE, "median"],
    "quantiles": [
        0.5, "0.5", [0.1, 0.5], ("0.1", 0.5), (0.5, True), (0.5,), (), (0.1, 0.9), (0.9, 0.5),
        (0.0, 0.5), (0.5, 1.0), (0.5, 0.5), (0.5, nan),
    ],
    "outputs": ["location", ["location"], (), (1,), ("location", "mean")],
    "backend": [1, True, None],
}  # fmt: skip


def test_every_field_is_tried() -> None:
    assert {each.name for each in dataclasses.fields(NetworkConfig)} == set(WRONG)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_field_is_named_with_what_it_may_be(name: str, value: object) -> None:
    with pytest.raises(ParameterError, match=f"^{name} must be .*, got ") as caught:
        NetworkConfig(**SIZES | {name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": 0}, "features must be an integer of at least 1, got 0"),
        ({"dropout": 7}, r"dropout must be a number in \[0, 1\), got 7"),
        ({"level": "median"}, "level must be one of 'mean', 'last', got 'median'"),
        ({"zero_head": 1}, "zero_head must be True or False, got 1"),
        ({"averaging_reach": 0}, "averaging_reach must be an integer of at least 1 or None, got 0"),
        ({"outputs": ("mean",)}, "a tuple, each one of 'location', 'scale', 'free' or None, got"),
        ({"backend": 1}, "backend must be a text, got 1"),
        ({"patch_length": 64, "patch_stride": 8}, r"patch_length \(64\) must not exceed lookback"),
        ({"quantiles": (0.1, 0.5), "outputs": ("free",)}, "and quantiles None, got"),
        ({"readout": "last"}, "zero_start=False"),
        ({"reverts": True, "instance_norm": False}, "pass instance_norm=True"),
        ({"leaders": 4, "instance_norm": False}, "pass instance_norm=True"),
        ({"leaders": 41}, r"leaders \(41\) must not exceed lookback \(40\)"),
    ],
)
def test_messages_say_the_way_out(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        NetworkConfig(**SIZES | changes)


def test_numbers_of_numpy_are_numbers() -> None:
    given: dict[str, Any] = {
        "lookback": np.int64(40), "horizon": np.int32(6), "n_variates": np.uint8(3),
        "dropout": np.float32(0.5), "zero_head": np.bool_(True),
        "quantiles": (np.float64(0.1), 0.5),
    }  # fmt: skip
    config = NetworkConfig(**given)
    assert config.n_patches == 3


def test_the_network_module_offers_it_too() -> None:
    assert ImportedAsBefore is NetworkConfig


def test_settings_are_the_fields_that_no_data_decides() -> None:
    names = [each.name for each in SETTINGS]
    decided = {"lookback", "horizon", "n_variates", "n_past", "n_future", "n_static"}
    decided |= {"gaps", "reverts", "bounded", "leaders", "quantiles", "outputs"}
    assert names == [f.name for f in dataclasses.fields(NetworkConfig) if f.name not in decided]
    assert all(each.default is not Parameter.empty for each in SETTINGS)
    defaults = {each.name: each.default for each in SETTINGS}
    patches = patch_sizes(40, defaults.pop("patch_length"), defaults.pop("patch_stride"))
    assert NetworkConfig(**SIZES, **defaults, **patches) == NetworkConfig(**SIZES)


def test_patches_that_are_given_stay() -> None:
    assert patch_sizes(8, None, None) == {"patch_length": 8, "patch_stride": 8}
    assert patch_sizes(96, 12, None) == {"patch_length": 12, "patch_stride": 12}
    assert patch_sizes(96, 0, 0) == {"patch_length": 0, "patch_stride": 0}
