"""Several processes for one fit: each takes a part of every batch, and all take the same step.

    loss of a batch = sum over processes of (share * loss of its part)
    share           = targets known in the part / targets known in the batch

Every process draws the same batches and takes every R-th window of each, so that the steps are
those of one process with the whole batch, but for the order in which numbers are added. Parts of a
batch differ in size, and with gaps in what is known: a plain mean over processes would weigh them
alike. Each process learns the shares and the loss of the whole batch from one sum over all.

Sizes: R processes.
"""

import os
import warnings

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from tsm2.errors import ParameterError, ProcessesWarning, SavedModelError
from tsm2.prepared.windows import Batch

__all__ = ["Processes", "check_side_by_side", "launched", "warn_if_alone"]

_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


class Processes:
    """The processes that share a fit, seen from one of them.

    Parameters
    ----------
    accelerator
        Knows them, and sums over them.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.rank, self.count = accelerator.process_index, accelerator.num_processes

    def rows(self, size: int) -> slice:
        """Return the rows of a batch of so many windows that are this process's part.

        A batch may have fewer windows than there are processes. One without a part takes the first
        window all the same, as every process must run the network as often; it has no weight.
        """
        return slice(self.rank, None, self.count) if self.rank < size else slice(0, 1)

    def sums(self, loss: Tensor, part: Batch, size: int) -> Tensor:
        """Return what `loss` is the mean of, as a sum, and over how many known targets, (2,)."""
        mask = part.target_mask
        known = torch.tensor(part.target.numel()) if mask is None else mask.sum()
        count = known.to(loss) if self.rank < size else torch.zeros_like(loss)
        return torch.stack((loss.detach() * count, count))

    def shared(self, loss: Tensor, part: Batch, size: int) -> tuple[Tensor, Tensor]:
        """Return this process's term of a batch's loss, and the loss of the whole batch.

        Parameters
        ----------
        loss
            Mean over the known targets of `part`.
        part
            The rows of the batch that `rows` names.
        size
            Windows of the whole batch.

        Returns
        -------
        What to take gradients of, whose mean over the processes is that of the batch's loss; and
        that loss, the same in every process.
        """
        if self.count == 1:
            return loss, loss.detach()
        own = self.sums(loss, part, size)
        total, count = self.sum(own).unbind()
        count = count.clamp(min=1)
        return loss * (own[1] * self.count / count), total / count

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, the same in each."""
        if self.count == 1:
            return values
        return torch.as_tensor(self.accelerator.reduce(values, "sum"))

    def any(self, here: bool) -> bool:
        """Return whether it is so in any of the processes."""
        if self.count > 1:
            if here:
                self.accelerator.set_trigger()
            return bool(self.accelerator.check_trigger())
        return here

    def first(self, seed: int) -> int:
        """Return the first process's number: each draws its own where none is given."""
        seeds = [seed]
        if self.count > 1:
            broadcast_object_list(seeds)
        return seeds[0]

    def check_together(self, steps: int) -> None:
        """Check that all processes go on from the same step of a checkpoint.

        Raises
        ------
        SavedModelError
            They see different folders, such as disks of several machines.
        """
        found = gather_object([steps]) if self.count > 1 else [steps]
        if len(set(found)) > 1:
            raise SavedModelError(
                f"the {self.count} processes of this fit found checkpoints after {found} steps. "
                f"Name a folder that all of them share, and start them together."
            )


def launched() -> int:
    """Return how many processes there are, as this one's launcher says: torchrun, MPI or a like."""
    for name in _COUNTS:
        count = os.environ.get(name, "")
        if count.isdecimal():
            return int(count)
    return 1


def warn_if_alone() -> None:
    """Warn of a launcher that was asked for several processes, where a fit would have but this one.

    `accelerate launch` starts several on a CPU through MPI alone. Otherwise it starts one, which
    can tell by the address where the others would have met. And whoever makes an Accelerator of
    another device before the fit has set up a process of its own, whatever the launcher did.
    """
    begun = bool(PartialState._shared_state)
    if begun and PartialState().num_processes > 1:
        return
    count = launched()
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ
    if count > 1 and begun:
        said = f"the launcher says that there are {count} processes"
    elif by_accelerate and not any(name in os.environ for name in _COUNTS):
        said = "accelerate launch was asked for several processes, and started one"
    else:
        return
    warnings.warn(
        f"{said}; this fit runs alone in its process. Start it as torchrun --nproc-per-node 2 "
        f"SCRIPT for two that share it, and make no Accelerator before the fit.",
        ProcessesWarning,
        stacklevel=2,
    )


def check_side_by_side(n_jobs: int) -> None:
    """Refuse fits side by side in processes of their own where a launcher's processes share one.

    Raises
    ------
    ParameterError
        The new processes would take themselves for those of the launcher, and wait for the others.
    """
    if n_jobs > 1 and (count := launched()) > 1:
        raise ParameterError(
            f"n_jobs asks for {n_jobs} fits side by side, but {count} processes share every fit "
            f"already. Leave n_jobs out, or start one process."
        )
