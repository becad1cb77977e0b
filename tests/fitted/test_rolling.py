"""Rolling forward: every piece reads the rows before it and the covariates beside it."""

import pytest
import torch
from torch import Tensor, nn

from tsm2.fitted.rolling import roll_forward


class Recording(nn.Module):
    """Forecasts the last value plus 1, 2 and 3, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Tensor]] = []

    def forward(self, context: Tensor, **auxiliary: Tensor) -> Tensor:
        self.seen.append({"context": context, **auxiliary})
        return context[..., -1:] + torch.arange(1.0, 4.0)


def rolled(steps: int, **auxiliary: Tensor) -> tuple[Tensor, list[dict[str, Tensor]]]:
    network = Recording()
    context = torch.arange(5.0).expand(2, 1, -1)
    forecast = roll_forward(network, context, steps, 3, auxiliary, point=lambda x, *_: x)
    return forecast, network.seen


@pytest.mark.parametrize("steps", [1, 3, 4, 8])
def test_forecasts_go_on_from_forecasts(steps: int) -> None:
    forecast, seen = rolled(steps)
    assert forecast[0, 0].tolist() == [5.0 + k for k in range(steps)]
    assert len(seen) == -(-steps // 3)
    assert all(set(each) == {"context"} for each in seen)


def test_future_covariates_move_along() -> None:
    _, seen = rolled(6, future=torch.arange(11.0).expand(2, 1, -1), static=torch.ones(2, 1, 1))
    assert seen[0]["future"][0, 0].tolist() == list(range(8))
    assert seen[1]["future"][0, 0].tolist() == list(range(3, 11))
    assert torch.equal(seen[1]["static"], seen[0]["static"])


def test_forecasts_count_as_known_and_past_covariates_as_unknown() -> None:
    mask = torch.tensor([False, True, True, False, True]).expand(2, 1, -1)
    _, seen = rolled(6, mask=mask, past=torch.arange(1.0, 6.0).expand(2, 1, -1))
    assert seen[1]["mask"][0, 0].tolist() == [False, True, True, True, True]
    assert seen[1]["past"][0, 0].tolist() == [4.0, 5.0, 0.0, 0.0, 0.0]
    assert seen[1]["past_mask"][0, 0].tolist() == [True, True, False, False, False]
    assert "past_mask" not in seen[0]
