"""Weights from one network into another."""

from torch import nn

from tsm2.errors import ParameterError

__all__ = ["start_from"]


def start_from(network: nn.Module, earlier: nn.Module) -> None:
    """Let a network begin with the weights of an earlier one.

    Parameters
    ----------
    network
        Takes the weights.
    earlier
        Gives them; its weights have the same names and shapes.

    Raises
    ------
    ParameterError
        They do not; the message names every weight that differs.
    """
    weights = dict(earlier.named_parameters())  # what was measured of the earlier fit is its own
    own = {name: tuple(weight.shape) for name, weight in network.named_parameters()}
    given = {name: tuple(weight.shape) for name, weight in weights.items()}
    faults = [
        f"{name} was {given.get(name, 'absent')} and is {own.get(name, 'absent')}"
        for name in own | given
        if own.get(name) != given.get(name)
    ]
    if faults:
        raise ParameterError(
            f"warm_start needs the sizes of the earlier fit, but: {'; '.join(faults)}. Set the "
            f"network's parameters as they were, or pass warm_start=False."
        )
    network.load_state_dict(weights, strict=False)
