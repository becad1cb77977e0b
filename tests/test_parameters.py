"""The estimator's parameters: the network's settings are those of `NetworkConfig`."""

from inspect import signature
from typing import Any, get_type_hints

import pytest
from sklearn.utils import _param_validation

from tsm2 import TSM2Forecaster
from tsm2.errors import ParameterError
from tsm2.networks.config import SETTINGS, NetworkConfig
from tsm2.parameters import CONSTRAINTS, check_parameters

NAMES = [each.name for each in SETTINGS]
CHOSEN = {"level", "separate_heads"}  # which the estimator may choose: "auto"
NUMBERS = [name for name in NAMES if get_type_hints(NetworkConfig)[name] in (int, float)]


def test_the_estimator_has_every_setting_as_the_network_has_it() -> None:
    given = signature(TSM2Forecaster).parameters
    assert {name: given[name].default for name in NAMES} == {
        each.name: "auto" if each.name in CHOSEN else each.default for each in SETTINGS
    }
    wanted = get_type_hints(NetworkConfig)
    wanted |= dict.fromkeys(("patch_length", "patch_stride"), int | None)
    hints = get_type_hints(TSM2Forecaster.__init__)
    same = set(NAMES) - CHOSEN
    assert {name: hints[name] for name in same} == {name: wanted[name] for name in same}


def test_every_parameter_has_a_constraint() -> None:
    assert set(CONSTRAINTS) == set(TSM2Forecaster().get_params())


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_the_network_refuses_the_estimator_refuses(name: str) -> None:
    for value in (*((-1,) if name in NUMBERS else ()), object(), "lstm"):
        if name == "backend" and value == "lstm":
            continue  # a text; kernels are looked up when one is needed
        with pytest.raises(ParameterError, match=f"^{name} must be"):
            NetworkConfig(lookback=96, horizon=24, n_variates=1, **{name: value})
        with pytest.raises(ParameterError, match=f"The '{name}' parameter of Mine must be"):
            check_parameters("Mine", TSM2Forecaster(**{name: value}).get_params())


def test_scikit_learns_private_constraints_mean_what_tsm2_takes_them_for() -> None:
    """`sklearn.utils._param_validation` has no promise of stability.

    `tsm2.parameters` imports from it, so that without one of these names the import of
    `TSM2Forecaster` breaks; with another meaning of `Interval` or `StrOptions`, it lets through or
    refuses the wrong parameters. The way out is to check all of them by annotations, as
    `NetworkConfig` checks its fields, and to drop `_parameter_constraints`.
    """
    for name in ("Interval", "StrOptions", "InvalidParameterError"):
        assert hasattr(_param_validation, name)
    validate: Any = _param_validation.validate_parameter_constraints
    for setting in (each for each in SETTINGS if each.name not in CHOSEN):
        name, constraints = setting.name, CONSTRAINTS[setting.name]
        assert isinstance(constraints, list)
        for constraint in map(_param_validation.make_constraint, constraints):
            right = _param_validation.generate_valid_param(constraint)
            validate({name: constraints}, {name: right}, caller_name="Mine")
            if (
                right is not None or name == "averaging_reach"
            ):  # None for patches is the estimator's
                NetworkConfig(
                    lookback=96, horizon=24, n_variates=1, **{"zero_start": False, name: right}
                )
        with pytest.raises(_param_validation.InvalidParameterError, match=f"The '{name}' param"):
            validate({name: constraints}, {name: object()}, caller_name="Mine")
