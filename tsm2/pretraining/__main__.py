"""Pretrain a network: `python -m tsm2.pretraining OUT --minutes 60 --seed 0`.

It goes on from the checkpoint OUT/checkpoint where it was cut off, on any device and with any
number of workers. At the end it writes OUT/zero, which `TSM2Forecaster.from_pretrained("OUT/zero")`
reads.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tsm2.errors import TSM2Error
from tsm2.networks.pretrained import save_pretrained
from tsm2.pretraining.lessons import choose_workers
from tsm2.pretraining.pretrain import PretrainingConfig, Progress, pretrain
from tsm2.training import choose_device

__all__ = ["card", "command", "main"]

_CAPTURES: dict[str, Any] = {"auto": "auto", "always": True, "never": False}


def command(config: PretrainingConfig, trust: float) -> str:
    """Return the command line that pretrains so.

    Examples
    --------
    >>> command(PretrainingConfig(steps=500), 0.5)
    'python -m tsm2.pretraining OUT --seed 0 --steps 500 --trust 0.5'
    """
    given: dict[str, float | None] = {
        "seed": config.seed,
        "minutes": config.minutes,
        "steps": config.steps,
        "trust": None if trust == 1 else trust,
    }
    options = (f"--{name} {value}" for name, value in given.items() if value is not None)
    return " ".join(("python -m tsm2.pretraining OUT", *options))


def card(config: PretrainingConfig, last: Progress, n_weights: int, trust: float) -> str:
    """Return the text of README.md beside the weights."""
    return "\n".join(
        (
            "---",
            "library_name: tsm2",
            "pipeline_tag: time-series-forecasting",
            "---",
            "",
            "# A small TSM2 that needs no fit",
            "",
            f"{n_weights} weights, learned from series that `tsm2.pretraining.generate` has drawn.",
            "It has seen no real series, so that nobody's licence is upon it but that of tsm2.",
            "",
            "```python",
            "from tsm2 import TSM2Forecaster",
            "",
            'forecast = TSM2Forecaster.from_pretrained("zero").predict(history)',
            "```",
            "",
            "| about | |",
            "|---|---|",
            f"| made by | `{command(config, trust)}` |",
            f"| steps | {last.step}, of {config.batch_rows} series each |",
            f"| minutes | {last.minutes:.1f}, {_where(config)} |",
            f"| loss on generated windows | {last.validation_loss:.4f}; the classical forecasts "
            f"that it starts from: {last.start_loss:.4f} |",
            "",
            "What it reads and how it errs on real tables: see the guide "
            '"Forecasts without a fit" in the documentation.',
            "",
        )
    )


def _where(config: PretrainingConfig) -> str:
    """Say in words on what the last run of a pretraining ran."""
    device = torch.device(choose_device(config.device))
    workers = choose_workers(config.workers, device)
    drawn = f"windows drawn by {workers} more processes" if workers else "windows drawn between"
    if device.type == "cpu":
        return f"on {torch.get_num_threads()} threads of a processor, {drawn}"
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    return f"at the end on {name}, {drawn}"


def _tell(progress: Progress) -> None:
    sys.stdout.write(
        f"step {progress.step}, {progress.minutes:.1f} minutes: loss {progress.loss:.4f}, on "
        f"unseen windows {progress.validation_loss:.4f} (at the start {progress.start_loss:.4f}), "
        f"waited for windows {progress.waited:.0%} of the time\n"
    )
    sys.stdout.flush()


def main() -> None:
    """Read the command line, pretrain, and write the weights."""
    parser = argparse.ArgumentParser(prog="python -m tsm2.pretraining", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the checkpoint and the weights")
    parser.add_argument("--minutes", type=float, help="minutes of training in all")
    parser.add_argument("--steps", type=int, help="steps in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--trust",
        type=float,
        default=1.0,
        help="share of what the network adds to the classical forecasts' mean, in (0, 1]",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where the network learns; auto for the first of cuda, mps and cpu that is here",
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="processes that draw windows ahead of it, 0 for none; they change no weight. Without "
        "it, as many as there are cores that the network leaves free",
    )
    parser.add_argument(
        "--capture-steps",
        choices=_CAPTURES,
        default="auto",
        help="replay steps as CUDA graphs: auto where that is possible, always or else an error, "
        "or never",
    )
    given = parser.parse_args()
    try:
        config = PretrainingConfig(
            seed=given.seed,
            steps=given.steps,
            minutes=given.minutes,
            device=given.device,
            workers=given.workers,
            capture_steps=_CAPTURES[given.capture_steps],
        )
    except TSM2Error as error:
        parser.error(str(error))
    if not 0 < given.trust <= 1:
        parser.error(f"--trust must be above 0 and at most 1, got {given.trust}")
    network, reports = pretrain(config, checkpoint=given.out / "checkpoint", report=_tell)
    network.shrink(given.trust)
    last = reports[-1]
    made = {"command": command(config, given.trust), "seed": config.seed, "trust": given.trust}
    facts = {**made, **asdict(last)}
    count = sum(each.numel() for each in network.parameters())
    text = card(config, last, count, given.trust)
    save_pretrained(network, given.out / "zero", facts=facts, card=text)


if __name__ == "__main__":
    main()
