"""Pretrain a network: `python -m tsm2.pretraining OUT --minutes 60 --seed 0`.

It goes on from the checkpoint OUT/checkpoint where it was cut off, and writes OUT/zero at the end.
"""

import argparse
from pathlib import Path

from tsm2.pretraining.pretrain import PretrainingConfig, Progress, pretrain

__all__ = ["main"]


def _tell(progress: Progress) -> None:
    print(
        f"step {progress.step}, {progress.minutes:.1f} minutes: loss {progress.loss:.4f}, on "
        f"unseen windows {progress.validation_loss:.4f} (at the start {progress.start_loss:.4f})",
        flush=True,
    )


def main() -> None:
    """Read the command line and pretrain."""
    parser = argparse.ArgumentParser(prog="python -m tsm2.pretraining", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the checkpoint and the weights")
    parser.add_argument("--minutes", type=float, help="minutes of training in all")
    parser.add_argument("--steps", type=int, help="steps in all")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    config = PretrainingConfig(seed=given.seed, steps=given.steps, minutes=given.minutes)
    pretrain(config, checkpoint=given.out / "checkpoint", report=_tell)


if __name__ == "__main__":
    main()
