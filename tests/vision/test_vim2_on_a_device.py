"""ViM2 on the GPU at hand: near that of a CPU, and its recorded steps as those that are not."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from tsm2.vision import ViM2, create_vim2

pytestmark = pytest.mark.gpu
sys.path.append(str(Path(__file__).parents[2] / "examples" / "vision"))
SIZES: Any = {"dims": (16, 32), "blocks": (1, 1), "channel_expand": (2, 1), "zero_start": False}


def small() -> ViM2:
    torch.manual_seed(0)
    return create_vim2("vim2_tiny", **SIZES, num_classes=5)


def images(device: str) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    drawn = torch.randn(4, 3, 40, 24, generator=draw), torch.arange(4)
    return [each.to(device) for each in drawn]


def test_scores_and_gradients(device: str) -> None:
    found = []
    for where in ("cpu", device):
        model = small().to(where)
        given, labels = images(where)
        scores = model(given)
        functional.cross_entropy(scores, labels).backward()  # type: ignore[no-untyped-call]
        gradients = {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}
        found.append((scores.detach().cpu(), gradients))
    (here, wanted), (there, got) = found
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        limit = 5e-3 * gradient.abs().max().item() + 1e-6
        assert (got[name] - gradient).abs().max().item() <= limit, name


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bfloat16"])
def test_recorded_steps_lead_where_others_lead(
    device: str, dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device != "cuda":
        pytest.skip("only CUDA captures steps")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    captured = import_module("captured")
    where, weights, losses = torch.device(device), [], []
    for asked in (False, True):
        model = small().to(device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

        def gradients(
            batch: Any, model: ViM2 = model, optimizer: torch.optim.AdamW = optimizer
        ) -> torch.Tensor:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
                loss = functional.cross_entropy(model(batch[0]), batch[1])
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        recorder = captured.recorder_for(
            where, optimizer, processes=1, obstacle=None, asked=asked or "auto"
        )

        def take(batch: Any, gradients: Any = gradients, step: Any = optimizer.step) -> Any:
            loss = gradients(batch)
            step()
            return loss.detach()

        if asked:
            take = captured.CapturedStep(
                gradients, model, optimizer, recorder, where, required=True
            )
        losses.append([float(take(images(device))) for _ in range(4)])
        weights.append(torch.cat([each.detach().flatten() for each in model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=1e-4)
