"""Several processes that train one model: each computes its share of a batch, their gradients are summed.

`torchrun` starts the processes and says in the environment who each is. The random numbers of a gradient step are those
of the whole batch on every rank, so a run computes the same, up to rounding, on any number of them.

Letters: B batch.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import nn

from diffusion_policy.errors import ConfigError, RankLostError

_PATIENCE = timedelta(hours=2)  # for the first rank, which alone validates and rolls out


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this is.

    Args:
        rank: 0 to size - 1; 0 writes, validates, rolls out.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def pieces(self, rows: int, largest: int | None) -> Iterator[slice]:
        """Yields the rows of a batch that this process computes, at most `largest` at once.

        Args:
            rows: B.
            largest: rows of a piece; None for no limit.
        """
        low, high = (rows * edge // self.size for edge in (self.rank, self.rank + 1))
        step = largest or max(1, high - low)
        for start in range(low, high, step):
            yield slice(start, min(start + step, high))

    def sum_gradients(self, parameters: Iterable[nn.Parameter], numbers: Sequence[float]) -> list[float]:
        """Sums the gradients of all ranks, in place, and some numbers with them; returns those sums.

        Raises:
            RankLostError: another process has ended.
        """
        if self.size == 1:
            return list(numbers)
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in trained:
            if parameter.grad is None:  # a share without rows
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        said = torch.tensor(numbers, dtype=torch.float32, device=gradients[0].device)
        flat = torch.cat([said, *(gradient.reshape(-1) for gradient in gradients)])
        try:
            torch.distributed.all_reduce(flat)
        except RuntimeError as error:  # of gloo or NCCL, by their own names
            raise RankLostError(
                f"rank {self.rank} lost another of the {self.size} processes; what was saved is intact: start them "
                f"again with resume="
            ) from error
        places = torch.split(flat[len(numbers) :], [gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [place.view_as(g) for place, g in zip(places, gradients, strict=True)])
        sums: list[float] = flat[: len(numbers)].tolist()
        return sums

    def copy_from_first(self, model: nn.Module) -> None:
        """Gives every process the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                torch.distributed.broadcast(tensor.data, 0)


@contextmanager
def ranks_from_environment() -> Iterator[Ranks]:
    """Yields which process this is; joins the others, if torchrun started several.

    Each takes the GPU of its number on its machine as `cuda`, where there are any.

    Raises:
        ConfigError: what torchrun says is incomplete.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    try:
        rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    except (KeyError, ValueError) as error:
        raise ConfigError(
            "WORLD_SIZE is set, but not RANK and LOCAL_RANK: start by torchrun, or unset WORLD_SIZE"
        ) from error
    if torch.cuda.is_available():
        torch.cuda.set_device(local)
    if rank > 0:  # what the first one says need not be said again
        logging.getLogger("diffusion_policy").setLevel(logging.ERROR)
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE
    )
    try:
        yield Ranks(rank, size)
    finally:
        torch.distributed.destroy_process_group()
