"""The class for Time-Series-Library, called as its runner calls a model, task by task."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tsm2.adapters.tslib import Model
from tsm2.errors import ParameterError
from tsm2.networks.config import NetworkConfig

ARGUMENTS = {  # what the runner has by default, but for the sizes
    "seq_len": 24, "label_len": 12, "pred_len": 6, "enc_in": 3, "dec_in": 3, "c_out": 3,
    "d_model": 8, "e_layers": 2, "d_layers": 1, "d_ff": 32, "d_conv": 4, "expand": 2,
    "dropout": 0.1, "embed": "timeF", "freq": "h", "use_norm": 1, "num_class": 4, "patch_len": 8,
}  # fmt: skip
TASKS = [
    "long_term_forecast",
    "short_term_forecast",
    "imputation",
    "anomaly_detection",
    "classification",
]


def made(task: str, **changed: Any) -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Model(Namespace(task_name=task, **ARGUMENTS | changed))
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def call(model: Model, values: Tensor) -> Tensor:
    """Call the model as the runner of its task does."""
    n_windows = len(values)
    marks, decoder = drawn(n_windows, 24, 4), torch.zeros(n_windows, 18, 3)
    output: Tensor
    if model.task_name == "long_term_forecast":
        output = model(values, marks, decoder, drawn(n_windows, 18, 4))
    elif model.task_name == "short_term_forecast":
        output = model(values, None, decoder, None)
    elif model.task_name == "imputation":
        mask = (drawn(n_windows, 24, 3, seed=1) > -0.5).float()
        output = model(values.masked_fill(mask == 0, 0), marks, None, None, mask)
    elif model.task_name == "anomaly_detection":
        output = model(values, None, None, None)
    else:
        output = model(values, torch.ones(n_windows, 24), None, None)
    return output


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_its_shape_and_trains(task: str) -> None:
    model = made(task).train()
    output = call(model, drawn(5, 24, 3))
    shapes = {"imputation": (5, 24, 3), "anomaly_detection": (5, 24, 3), "classification": (5, 4)}
    assert output.shape == shapes.get(task, (5, 6, 3))
    output.square().mean().backward()  # type: ignore[no-untyped-call]
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert silent == []


@pytest.mark.parametrize("task", TASKS[:2])
def test_forecasts_are_the_networks(task: str) -> None:
    model, values = made(task), drawn(2, 24, 3)
    with torch.no_grad():
        wanted = model.network(values.swapaxes(1, 2)).swapaxes(1, 2)
        torch.testing.assert_close(call(model, values), wanted)


@pytest.mark.parametrize("task", TASKS)
def test_kept_weights_forecast_the_same(task: str, tmp_path: Path) -> None:
    model, values = made(task), drawn(2, 24, 3)
    torch.save(model.state_dict(), tmp_path / "checkpoint.pth")
    again = Model(Namespace(task_name=task, **ARGUMENTS)).eval()
    again.load_state_dict(torch.load(tmp_path / "checkpoint.pth"))
    assert torch.equal(call(again, values), call(model, values))


def test_imputation_does_not_read_what_is_masked() -> None:
    model, values = made("imputation"), drawn(2, 24, 3)
    mask = (drawn(2, 24, 3, seed=2) > 0).float()
    with torch.no_grad():
        output = model(values, None, None, None, mask)
        hidden = model(values + 100 * (1 - mask), None, None, None, mask)
        seen = model(values + mask, None, None, None, mask)
    torch.testing.assert_close(hidden, output)
    torch.testing.assert_close(seen, output + 1, rtol=1e-3, atol=1e-3)


def test_classes_are_learnt_and_padding_is_not_read() -> None:
    model = made("classification", dropout=0.0).train()
    labels = torch.arange(64) % 4
    values = 0.1 * drawn(64, 24, 3)
    values[..., 1] += torch.sin(torch.arange(24) / 2 * (1 + labels[:, None]))
    padding = torch.ones(64, 24)
    padding[:, 20:] = 0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        functional.cross_entropy(model(values, padding), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    scores = model.eval()(values, padding)
    assert (scores.argmax(1) == labels).float().mean() > 0.9
    values[:, 20:] = 50
    torch.testing.assert_close(model(values, padding), scores)


def test_arguments_reach_the_network() -> None:
    config = made(
        "long_term_forecast", use_norm=0, stride=4, d_state=3, patch_len=48
    ).network.config
    assert (config.features, config.blocks, config.dropout) == (8, 2, 0.1)
    assert (config.patch_length, config.patch_stride, config.d_state) == (24, 4, 3)
    assert not config.instance_norm


@pytest.mark.parametrize("length", [24, 12])
def test_what_is_not_given_or_none_is_the_networks_default(length: int) -> None:
    few: dict[str, Any] = {"seq_len": length, "pred_len": 6, "enc_in": 3}
    nothing = dict.fromkeys(("d_model", "e_layers", "dropout", "use_norm", "patch_len", "stride"))
    patch = min(16, length)
    wanted = NetworkConfig(
        lookback=length, horizon=6, n_variates=3, patch_length=patch, patch_stride=patch
    )
    for given in (few, few | nothing):
        model = Model(Namespace(task_name="long_term_forecast", **given))
        assert model.network.config == wanted


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("d_model", "8", "features must be an integer of at least 1, got '8'"),
        ("e_layers", -1, "blocks must be an integer of at least 0, got -1"),
        ("dropout", 7, "dropout must be a number in"),
        ("patch_len", 0, "patch_length must be an integer of at least 1, got 0"),
    ],
)
def test_a_wrong_argument_is_refused(task: str, name: str, value: object, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        made(task, **{name: value})


def test_another_task_is_refused() -> None:
    with pytest.raises(ParameterError, match="does not do the task 'zero_shot_forecast'"):
        made("zero_shot_forecast")
