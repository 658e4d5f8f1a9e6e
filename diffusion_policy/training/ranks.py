"""Several processes that train one model: each computes its share of a batch, their gradients are summed.

`torchrun` starts the processes and says in the environment who each is. The noise of a gradient step is that of the
whole batch on every rank, so a run computes the same, up to rounding, on any number of them; only what a network draws
by itself (crops of pictures, dropout) is each one's own.

Letters: B batch.
"""

import atexit
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
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

    def pieces(self, rows: int, largest: int | None, group: int = 1) -> Iterator[slice]:
        """Yields the rows of a batch that this process computes, at most `largest` at once, or one group.

        Args:
            rows: B.
            largest: rows of a piece; None for no limit.
            group: pieces begin at multiples of this.
        """
        groups = -(-rows // group)
        low, high = (groups * edge // self.size for edge in (self.rank, self.rank + 1))
        step = max(1, (largest or rows) // group)
        for start in range(low, high, step):
            yield slice(start * group, min(rows, min(start + step, high) * group))

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
        with self._losing():
            torch.distributed.all_reduce(flat)
            sums: list[float] = flat[: len(numbers)].tolist()  # GPUs tell here that a process was lost
        places = torch.split(flat[len(numbers) :], [gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [place.view_as(g) for place, g in zip(places, gradients, strict=True)])
        return sums

    @contextmanager
    def _losing(self) -> Iterator[None]:
        """Says in one line that another process has ended."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # of gloo or NCCL, by their own names
            raise RankLostError(
                f"rank {self.rank} lost another of the {self.size} processes; what was saved is intact: if that one "
                f"names no reason, start them again with resume="
            ) from error

    def begin(self, seed: int, grad_step: int) -> None:
        """Gives each process random numbers of its own for what a network draws by itself: crops, dropout."""
        if self.rank:
            torch.manual_seed(int(np.random.SeedSequence((seed, self.rank, grad_step)).generate_state(1)[0]))

    def copy_from_first(self, model: nn.Module) -> None:
        """Gives every process the first one's parameters and buffers.

        Raises:
            RankLostError: another process has ended, e.g. because the first one refused the run.
        """
        if self.size == 1:
            return
        for tensor in (*model.parameters(), *model.buffers()):
            first = tensor.detach().contiguous()  # NCCL takes no others
            with self._losing():
                torch.distributed.broadcast(first, 0)
            tensor.data.copy_(first)


@contextmanager
def ranks_from_environment(device: str = "auto") -> Iterator[Ranks]:
    """Yields which process this is; joins the others, if torchrun started several.

    Each takes the GPU of its number on its machine as `cuda`, unless `device` is cpu.

    Args:
        device: the run's setting.

    Raises:
        ConfigError: what torchrun says is incomplete, or there are more processes than GPUs.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield Ranks()
        return
    rank, local = _number("RANK"), _number("LOCAL_RANK")
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device={device}: several processes take device=cuda (a GPU each) or cpu; give one of these")
    if device != "cpu" and torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}; start as many "
                f"processes, or give device=cpu"
            )
        torch.cuda.set_device(local)
    if rank > 0:  # what the first one says need not be said again
        logging.getLogger("diffusion_policy").setLevel(logging.ERROR)
    if not torch.distributed.is_initialized():  # of several runs in one process only the first one joins
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            torch.distributed.init_process_group(backend, timeout=_PATIENCE)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"the {size} processes did not find each other ({error}); start them by torchrun"
            ) from error
        atexit.register(torch.distributed.destroy_process_group)
    yield Ranks(rank, size)


def _number(name: str, otherwise: int | None = None) -> int:
    """Returns what torchrun says in the environment."""
    said = os.environ.get(name) or otherwise
    try:
        return int(said)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name}={said}: expected a number, as torchrun sets it; start by torchrun, or unset WORLD_SIZE"
        ) from error
