"""TSM2 as a model of Time-Series-Library: a class that its runner makes from its arguments.

    forecast         values (B, L, N)                  -> the next H rows, (B, H, N)
    imputation       values, 0 where the mask is 0     -> all rows again, (B, L, N)
    anomaly_detection                                  -> all rows again, (B, L, N)
    classification   values, 0 where the mask is 0     -> scores of the classes, (B, classes)

The network is the same one, with the horizon of the task. For classes it forecasts a vector of
every variate in place of values, and a linear map scores all vectors together.

Sizes: B windows, L seq_len, H pred_len, N enc_in variates.
Interface: Time-Series-Library, `models/*.py`, commit 4e938a1.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from tsm2.errors import ParameterError
from tsm2.networks.config import NetworkConfig, patch_sizes
from tsm2.networks.heads import ParameterKind
from tsm2.networks.tsm2 import TSM2Network

__all__ = ["Model"]

_FORECASTS = ("long_term_forecast", "short_term_forecast")
_REPEATS = ("imputation", "anomaly_detection")
_NAMES = {  # the network's settings among the runner's arguments; None and absence mean the default
    "features": "d_model",
    "blocks": "e_layers",
    "d_state": "d_state",
    "d_conv": "d_conv",
    "expand": "expand",
    "dropout": "dropout",
}


class Model(nn.Module):
    """TSM2 as the runner of Time-Series-Library calls it.

    Parameters
    ----------
    configs
        The runner's arguments. It reads `task_name`, `seq_len`, `pred_len`, `enc_in`,
        `e_layers` (blocks), `d_model` (features), `d_conv`, `expand`, `dropout`, `use_norm`,
        `num_class`, and, where they are given, `patch_len`, `stride` and `d_state`.

    Examples
    --------
    >>> from argparse import Namespace
    >>> import torch
    >>> model = Model(
    ...     Namespace(task_name="long_term_forecast", seq_len=96, pred_len=24, enc_in=7, d_model=16)
    ... )
    >>> model(torch.zeros(2, 96, 7), None, None, None).shape
    torch.Size([2, 24, 7])
    """

    def __init__(self, configs: Any) -> None:
        super().__init__()
        self.task_name = configs.task_name
        if self.task_name not in (*_FORECASTS, *_REPEATS, "classification"):
            raise ParameterError(
                f"TSM2 does not do the task {self.task_name!r}. It does: {', '.join(_FORECASTS)}, "
                f"{', '.join(_REPEATS)}, classification."
            )
        classifies = self.task_name == "classification"
        given = {ours: getattr(configs, theirs, None) for ours, theirs in _NAMES.items()}
        length = getattr(configs, "patch_len", None)
        length = None if length is None else min(length, configs.seq_len)
        use_norm = getattr(configs, "use_norm", None)
        config = NetworkConfig(
            lookback=configs.seq_len,
            horizon=self._horizon(configs),
            n_variates=configs.enc_in,
            instance_norm=(use_norm is None or bool(use_norm)) and not classifies,
            **patch_sizes(configs.seq_len, length, getattr(configs, "stride", None)),
            **{name: value for name, value in given.items() if value is not None},
        )
        if classifies:
            free: ParameterKind = "free"
            config = replace(config, outputs=(free,) * config.features)
        self.network = TSM2Network(config)
        if classifies:
            self.classify = nn.Linear(configs.enc_in * config.features, configs.num_class)

    def forward(
        self,
        x_enc: Tensor,
        x_mark_enc: Tensor | None,
        x_dec: Tensor | None = None,
        x_mark_dec: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return what the task asks for.

        Parameters
        ----------
        x_enc
            Values, (B, L, N).
        x_mark_enc
            Time marks, which are not read; for classification 1 where rows are known, (B, L).
        x_dec, x_mark_dec
            Not read: the network has no decoder.
        mask
            For imputation, 1 where values are known, (B, L, N).
        """
        context = x_enc.swapaxes(1, 2)  # (B, N, L)
        known = None
        if self.task_name == "imputation" and mask is not None:
            known = mask.swapaxes(1, 2) > 0
        elif self.task_name == "classification" and x_mark_enc is not None:
            known = (x_mark_enc > 0).unsqueeze(1).expand_as(context)
        output: Tensor = self.network(context, mask=known)
        if self.task_name == "classification":  # (B, N, 1, F)
            scores: Tensor = self.classify(output.flatten(1))
            return scores
        return output.swapaxes(1, 2)

    def _horizon(self, configs: Any) -> int:
        if self.task_name in _FORECASTS:
            return int(configs.pred_len)
        return 1 if self.task_name == "classification" else int(configs.seq_len)
