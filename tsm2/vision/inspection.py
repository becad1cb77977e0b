"""What a ViM2 selected: how long a step each scan took at each patch and each channel group.

    step[t] = softplus(W rank[t] + b)        h[t] = exp(step[t] A) h[t-1] + step[t] B[t] u[t]

A long step writes what is there into the state and forgets what was before; with a step of zero a
scan passes over it. So step lengths show what was selected.

Sizes: B images, H x W patches, G channel groups, K scans.
Source: Behrouz et al. (2024), arXiv:2403.19888, section 3.1; Gu & Dao (2023), arXiv:2312.00752,
section 3.5.2, for the step as a gate.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from tsm2.errors import ParameterError
from tsm2.networks.mixers import DirectedScan, SelectiveMixer
from tsm2.vision.stages import MixerKind, MixerStep, Stage
from tsm2.vision.vim2 import ViM2

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Selection", "inspect", "plot_selection"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selection:
    """What one mixer selected in some images."""

    stage: int
    """The mixer's stage, from 0."""
    mixer: int
    """Its place in the stage, from 0."""
    kind: MixerKind
    """Whether it scans patches or channel groups."""
    orders: tuple[str, ...]
    """What each scan walks over: "rows", "columns" or "groups", and "reversed"."""
    steps: Tensor
    """Mean step lengths, in tokens: (B, K, H, W) of a token mixer, whose scans walk over patches;
    (B, K, H, W, G) of a channel mixer, whose scans walk over the groups of each patch."""

    @property
    def patches(self) -> Tensor:
        """Return the step length at each patch, the mean of all scans and groups, (B, H, W)."""
        return self.steps.mean((1, 4) if self.kind == "channel" else 1)

    @property
    def groups(self) -> Tensor:
        """Return the step length at each channel group, the mean over the image, (B, G).

        Raises
        ------
        ParameterError
            The mixer is a token mixer.
        """
        if self.kind == "token":
            raise ParameterError("a token mixer selects patches; channel mixers select groups")
        return self.steps.mean((1, 2, 3))


def inspect(model: ViM2, images: Tensor) -> list[Selection]:
    """Say what each selective mixer of a model selects in some images.

    Parameters
    ----------
    model
        The model; it runs in evaluation mode, and its mode is the same afterwards.
    images
        As `ViM2.forward` takes them.

    Returns
    -------
    One entry per mixer, in the order in which they run; an MLP selects nothing and has none.

    Examples
    --------
    >>> from tsm2.vision import vim2_nano
    >>> selections = inspect(vim2_nano(), torch.zeros(1, 3, 32, 32))
    >>> selections[0].kind, tuple(selections[0].patches.shape)
    ('token', (1, 16, 16))
    >>> selections[2].kind, tuple(selections[2].groups.shape)
    ('channel', (1, 8))
    """
    selections: list[Selection] = []
    training = model.training
    with ExitStack() as stack:
        stack.callback(model.train, training)
        model.eval()
        for number, stage in enumerate(model.stages):
            for place, step in enumerate(cast(Stage, stage).steps):
                for hook in _listen(cast(MixerStep, step), number, place, selections):
                    stack.callback(hook.remove)
        with torch.no_grad():
            model(images)
    return selections


def _listen(step: MixerStep, stage: int, place: int, found: list[Selection]) -> list[Any]:
    """Make a mixer append its selection whenever it runs; an MLP has none."""
    mixer = step.branch.mixer
    if not isinstance(mixer, SelectiveMixer):
        return []
    scans = [scan for scan in mixer.scans if isinstance(scan, DirectedScan)]

    def collect(mixer: SelectiveMixer, arguments: tuple[Tensor], _: Any) -> None:
        lead = arguments[0].shape[:3]  # (B, H, W)
        lengths = [each.mean(-1).reshape(*lead, -1) for each in mixer.steps(*arguments)]
        steps = torch.stack(lengths, dim=1)
        found.append(
            Selection(
                stage=stage,
                mixer=place,
                kind=step.kind,
                orders=tuple(_order_name(step.kind, scan) for scan in scans),
                steps=steps.squeeze(-1) if step.kind == "token" else steps,
            )
        )

    return [mixer.register_forward_hook(collect)]


def _order_name(kind: MixerKind, scan: DirectedScan) -> str:
    walked = "groups" if kind == "channel" else "rows" if scan.axes == (1, 2) else "columns"
    return f"{walked} reversed" if scan.reverse else walked


def plot_selection(
    image: Tensor,
    selections: Sequence[Selection],
    *,
    index: int = 0,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Draw the patches that each mixer selected over an image, and the channel groups beside them.

    Parameters
    ----------
    image
        What to draw under them, (channels, height, width) or (height, width), in any unit; of more
        than three channels the mean is drawn.
    selections
        What `inspect` gave.
    index
        Which of the images that were inspected this one is.
    ax
        matplotlib Axes to draw into, one per selection; None makes a figure.

    Returns
    -------
    The figure, with one panel per selection.

    Raises
    ------
    ParameterError
        There is nothing to draw, or no such image, or matplotlib is not installed.
    """
    kind = _figure_class() if ax is None else None
    if not selections:
        raise ParameterError("there are no selections to draw; an MLP or no mixer selects nothing")
    n_images = len(selections[0].steps)
    if not -n_images <= index < n_images:
        raise ParameterError(f"index must be that of one of the {n_images} images, got {index}")
    picture = _picture(image)
    height, width = picture.shape[:2]
    panels = np.ravel(np.asarray(ax)).tolist() if kind is None else _panels(kind, len(selections))
    if len(panels) < len(selections):
        raise ParameterError(
            f"ax holds {len(panels)} Axes, but there are {len(selections)} selections to draw."
        )
    extent = (0, width, height, 0)
    for panel, selection in zip(panels, selections, strict=False):
        patches = selection.patches[index].numpy(force=True)
        panel.set_axis_off()
        panel.imshow(picture.numpy(), cmap="gray", extent=extent)
        shown = panel.imshow(patches, cmap="inferno", alpha=0.6, extent=extent)
        title = f"stage {selection.stage}, mixer {selection.mixer}: {selection.kind}"
        if selection.kind == "channel":
            title += f"\nlongest steps: group {int(selection.groups[index].argmax())}"
        panel.set_title(title, fontsize=9)
        panel.figure.colorbar(shown, ax=panel, shrink=0.7, label="step length (tokens)")
    return cast("Figure", panels[0].figure)


def _figure_class() -> type[Figure]:
    """Return a Figure that a notebook shows, also where nobody has imported pyplot."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ParameterError("drawing needs matplotlib: pip install 'tsm2[plot]'") from error

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return ShownFigure


def _panels(kind: type[Figure], needed: int) -> list[Axes]:
    """Return fresh Axes, up to four in a row."""
    columns = min(4, needed)
    rows = -(-needed // columns)
    figure = kind(figsize=(3 * columns, 3.4 * rows), layout="constrained")
    every: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in every[needed:]:
        unused.remove()
    return every[:needed]


def _picture(image: Tensor) -> Tensor:
    """Bring an image to (height, width) or (height, width, 3), from 0 to 1."""
    if image.ndim not in (2, 3):
        raise ParameterError(
            f"one image is needed, (channels, height, width) or (height, width), got shape "
            f"{tuple(image.shape)}"
        )
    shown = image.detach().cpu().float()
    if shown.ndim == 3:
        shown = shown.permute(1, 2, 0) if len(shown) == 3 else shown.mean(0)
    low, high = shown.min(), shown.max()
    return (shown - low) / (high - low).clamp_min(1e-12)
