"""ViM2: the image backbone of the MambaMixer paper.

    image -> stem -> stages of mixers -> norm -> mean over the image -> classifier

Maps go in and out channels-first, as PyTorch's vision libraries have them, but lie channels-last in
memory, so that no scan, convolution or linear map moves them. The surface is that of a timm model;
nothing here needs timm.

Sizes: B images, H x W patches, F features.
Source: Behrouz et al. (2024), arXiv:2403.19888, section 4, table 8, figures 2 and 8.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from os import PathLike
from typing import Any, Self

import torch
from torch import Tensor, nn

from tsm2.errors import ParameterError
from tsm2.vision.config import GlobalPool, ViM2Config
from tsm2.vision.hub import check_weights, find_folder, read_folder, write_folder
from tsm2.vision.stages import Stem, stages_of

__all__ = ["ViM2"]

_OUTPUT_FORMATS = ("NCHW", "NHWC")
_OF_WEIGHTS = ("url", "file", "source", "hf_hub_id", "hf_hub_filename", "architecture", "tag")
"""Entries of timm's record that say where other weights are."""


class ViM2(nn.Module):
    """Classify images, or give the maps of each stage to a detector or a segmenter.

    Parameters
    ----------
    config
        Sizes and settings.
    device, dtype
        Where and in what precision the weights are made; torch's defaults if None.

    Attributes
    ----------
    feature_info
        Of each stage: its width, how many pixels one of its patches is wide, its module's name.

    Examples
    --------
    >>> from tsm2.vision import ViM2, ViM2Config
    >>> model = ViM2(ViM2Config(dims=(16, 32), blocks=(1, 1), channel_expand=(2, 1), num_classes=5))
    >>> model(torch.zeros(2, 3, 32, 48)).shape
    torch.Size([2, 5])
    """

    stages: nn.Sequential

    def __init__(
        self,
        config: ViM2Config,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.in_chans = config.in_chans
        self.num_features = self.head_hidden_size = config.dims[-1]
        self.drop_rate = config.drop_rate
        self.global_pool = config.global_pool
        self.feature_info = [
            {
                "num_chs": features,
                "reduction": config.patch_size * 2**number,
                "module": f"stages.{number}",
            }
            for number, features in enumerate(config.dims)
        ]
        with nullcontext() if device is None else torch.device(device):
            self.stem = Stem(config.in_chans, config.dims[0], config.patch_size)
            self.stages = nn.Sequential(*stages_of(config))
            self.norm: nn.Module = nn.LayerNorm(self.num_features)
            self.head_drop = nn.Dropout(config.drop_rate)
            self.head = _classifier(self.num_features, config.num_classes)
        if dtype is not None:
            self.to(dtype)

    def forward(self, image: Tensor) -> Tensor:
        """Return the classes' scores, (B, num_classes), of images, (B, in_chans, height, width).

        Parameters
        ----------
        image
            Pixels of any height and width from one patch up, standardised as in training. What
            does not fill a patch is filled up with zeros at the right and the bottom.

        Returns
        -------
        Scores before softmax; the pooled features if there is no classifier.

        Raises
        ------
        ParameterError
            The image has other channels than the model, or is smaller than one patch.
        """
        return self.forward_head(self.forward_features(image))

    def forward_features(self, image: Tensor) -> Tensor:
        """Return the last map, normalised, (B, F, H, W)."""
        return self._normalise(self.stages(self.stem(image)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool a map and classify it.

        Parameters
        ----------
        x
            What `forward_features` gave.
        pre_logits
            Stop before the classifier.

        Returns
        -------
        Scores, (B, num_classes); or pooled features, (B, F).
        """
        if self.global_pool == "avg":
            x = x.mean((2, 3))
        elif self.global_pool == "max":
            x = x.amax((2, 3))
        x = self.head_drop(x)
        if pre_logits or isinstance(self.head, nn.Identity):
            return x
        if not self.global_pool:  # a classifier of every patch
            x = x.permute(0, 2, 3, 1)
        scores: Tensor = self.head(x)
        return scores if self.global_pool else scores.permute(0, 3, 1, 2)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the maps of some stages beside the last.

        Parameters
        ----------
        x
            Images, as in `forward`.
        indices
            Which stages: their numbers, negative ones from the end; so many of the last if one
            number; all if None.
        norm
            Normalise the last stage's map.
        stop_early
            Do not run stages that are not asked for.
        output_fmt
            "NCHW" or "NHWC".
        intermediates_only
            Return the list of maps alone.

        Returns
        -------
        What `forward_features` gives (the last map that was computed, if stopped early) and the
        maps; or these alone.
        """
        if output_fmt not in _OUTPUT_FORMATS:
            raise ParameterError(f"output_fmt must be one of {_OUTPUT_FORMATS}, got {output_fmt!r}")
        taken = self._stage_numbers(indices)
        last = len(self.stages) - 1
        n_run = max(taken) + 1 if stop_early else len(self.stages)
        maps = []
        x = self.stem(x)
        for number, stage in enumerate(list(self.stages)[:n_run]):
            x = stage(x)
            if number in taken:
                maps.append(self._normalise(x) if norm and number == last else x)
        if output_fmt == "NHWC":
            maps = [each.permute(0, 2, 3, 1) for each in maps]
        if intermediates_only:
            return maps
        return (self._normalise(x) if n_run > last else x), maps

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Throw away the stages after the last that is asked for.

        Parameters
        ----------
        indices
            As in `forward_intermediates`.
        prune_norm
            Throw away the last norm.
        prune_head
            Throw away the classifier; it goes with the last stage in any case.

        Returns
        -------
        The numbers of the stages that were asked for.
        """
        taken = self._stage_numbers(indices)
        shorter = max(taken) + 1 < len(self.stages)
        if shorter:
            self.stages = nn.Sequential(*list(self.stages)[: max(taken) + 1])
            self.feature_info = self.feature_info[: max(taken) + 1]
            self.num_features = self.head_hidden_size = self.config.dims[max(taken)]
        if prune_norm or shorter:
            self.norm = nn.Identity()
        if prune_head or shorter:
            self.reset_classifier(0, "")
        return taken

    def save_pretrained(self, path: str | PathLike[str]) -> None:
        """Write a folder that `from_pretrained` and timm read: safetensors and JSON.

        Parameters
        ----------
        path
            The folder; made if missing. `huggingface_hub.upload_folder` puts it on the Hub.

        Raises
        ------
        OutputError
            The folder cannot be written.
        SavedModelError
            Parts of the model were thrown away, so that its settings do not describe it.
        """
        weights = self.state_dict()
        check_weights(ViM2(self.config, device="meta"), weights, "A pruned model cannot be saved")
        write_folder(path, self.config, weights, self._timm_cfg())

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        *,
        revision: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **settings: Any,
    ) -> Self:
        """Read a folder that `save_pretrained` or timm wrote, or a repository on the Hub.

        Parameters
        ----------
        path
            The folder, or "owner/repository" on the Hugging Face Hub.
        revision
            Branch, tag or commit of the repository.
        device, dtype
            Where and in what precision the weights shall be.
        **settings
            Fields of `ViM2Config` that are to differ from what was saved and change no weight's
            shape, such as `drop_path_rate`, `global_pool` and `backend`.

        Returns
        -------
        The model, in evaluation mode.

        Raises
        ------
        SavedModelError
            There is no such model, it is damaged, or its weights do not fit the settings; every
            weight that does not fit is named.
        """
        config, weights = read_folder(find_folder(path, revision), settings)
        model = cls(config, device=device, dtype=dtype)
        check_weights(
            model,
            weights,
            "For other classes load it as it was saved and call reset_classifier",
        )
        model.load_state_dict(weights)
        return model.eval()

    def get_classifier(self) -> nn.Module:
        """Return the last linear map."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: GlobalPool | None = None) -> None:
        """Put a new classifier in place.

        Parameters
        ----------
        num_classes
            Its outputs; 0 for none.
        global_pool
            See `ViM2Config`; None leaves it as it is.
        """
        weight = self.stem.proj.weight
        if global_pool is not None:
            if global_pool not in ("avg", "max", ""):
                raise ParameterError(f"global_pool must be 'avg', 'max' or '', got {global_pool!r}")
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.config = replace(self.config, num_classes=num_classes, global_pool=self.global_pool)
        head = _classifier(self.num_features, num_classes)
        self.head = head.to(device=weight.device, dtype=weight.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute mixers again in the backward pass instead of keeping what is inside them.

        Parameters
        ----------
        enable
            Whether to.
        """
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Say how parameters form layers, for learning rates that decay with depth.

        Parameters
        ----------
        coarse
            By stages instead of mixers.

        Returns
        -------
        Regular expressions, as `timm.models.group_parameters` takes them.
        """
        if coarse:
            blocks: Any = r"^stages\.(\d+)"
        else:
            blocks = [
                (r"^stages\.(\d+)\.downsample", (0,)),
                (r"^stages\.(\d+)\.steps\.(\d+)", None),
                (r"^stages\.(\d+)\.readout", (99999,)),
                (r"^norm", (99999,)),
            ]
        return {"stem": r"^stem", "blocks": blocks}

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that are rates, steps, skips or averaging weights."""
        last = ("log_rate", "skip", "step.bias", "average.token", "average.channel")
        readout = ("readout.token", "readout.channel")
        return {name for name, _ in self.named_parameters() if name.endswith(last + readout)}

    def _timm_cfg(self) -> dict[str, Any]:
        """Return what timm keeps beside a model: its own record if timm made this one."""
        own = {"first_conv": "stem.proj", "classifier": "head"}
        made = getattr(self, "pretrained_cfg", {})
        return {name: each for name, each in made.items() if name not in _OF_WEIGHTS} | own

    def _normalise(self, x: Tensor) -> Tensor:
        """Normalise the features of a map, (B, F, H, W)."""
        normal: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normal.permute(0, 3, 1, 2)

    def _stage_numbers(self, indices: int | Sequence[int] | None) -> list[int]:
        n_stages = len(self.stages)
        if indices is None:
            return list(range(n_stages))
        if isinstance(indices, int):
            numbers = list(range(n_stages - indices, n_stages))
        else:
            numbers = [index + n_stages if index < 0 else index for index in indices]
        if not numbers or min(numbers) < 0 or max(numbers) >= n_stages:
            raise ParameterError(
                f"indices must name some of the {n_stages} stages, got {indices!r}"
            )
        return numbers


def _classifier(features: int, num_classes: int) -> nn.Module:
    if num_classes == 0:
        return nn.Identity()
    head = nn.Linear(features, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head
