"""Several processes that train one model: which one this is, and what they tell each other.

A *rank* is one process, with one GPU where there are GPUs, a copy of the model and an engine of its own. They are
started by `finr1/cli/launch.py`, or by torchrun on each machine. What a step holds does not depend on how many there
are: they divide its questions to sample and its rows to train on, and add their gradients up. The first rank alone
writes to the run folder.

Everything but gradients goes between the CPUs, over a gloo group with a long time limit: a rank may wait for hours
while the first one asks a teacher, or another one's reward a judge.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from finr1.core.errors import Finr1Error

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # of a rank that waits for another one
MEETING = timedelta(minutes=10)  # within which all must have come to where they meet
LAUNCHER = os.getppid()  # where this process is a rank
LOST = 3  # exit code of a rank that ends because another one did


class LostRank(Finr1Error):
    """Another rank has ended: it has said why, or was killed."""


class Ranks:
    """This process among those that train together; alone, nothing is sent and every method gives back what it got.

    Args:
        rank: the number of this process, from 0.
        world: how many there are.
        group: of torch.distributed, between CPUs; None where this process is alone.
    """

    def __init__(self, rank: int = 0, world: int = 1, group: Any = None) -> None:
        self.rank, self.world, self._group = rank, world, group

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part of what all ranks hold in the same order: every `world`-th."""
        return items[self.rank :: self.world]

    def unshard(self, own: Sequence[T]) -> list[T]:
        """The inverse of `shard`, on every rank: all parts, in the order of the whole."""
        parts = self.gather(own)
        return [parts[i % self.world][i // self.world] for i in range(sum(map(len, parts)))]

    def share(self, items: Sequence[T], sizes: Sequence[int]) -> list[T]:
        """This rank's part, in the given order, so that the sizes of all parts are about equal.

        The largest first, each to the rank with the least so far (Graham 1969, longest processing time: at most 4/3 of
        the best). All ranks must hold the same items; a rank has nothing where there are fewer of them than ranks.
        """
        loads, owner = [0] * self.world, [0] * len(items)
        for i in sorted(range(len(items)), key=lambda i: -sizes[i]):
            owner[i] = loads.index(min(loads))
            loads[owner[i]] += sizes[i]
        return [item for item, rank in zip(items, owner, strict=True) if rank == self.rank]

    def rounds(self, items: Sequence[T], sizes: Sequence[int]) -> list[tuple[T, bool]]:
        """This rank's part where all must take the same number of passes at once, and whether each item counts.

        The largest first, one a rank and round, so that those of a round are about equal. Where the last round has
        fewer items than ranks, the others pass the last item once more; it does not count there.
        """
        order = sorted(range(len(items)), key=lambda i: -sizes[i])
        places = range(self.rank, -(-len(items) // self.world) * self.world, self.world)
        return [(items[order[min(place, len(items) - 1)]], place < len(items)) for place in places]

    def gather(self, value: T) -> list[T]:
        """What each rank gives, in their order, on every rank. Values are pickled."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        with _others():
            dist.all_gather_object(values, value, self._group)
        return values

    def broadcast(self, value: T) -> T:
        """What the first rank gives, on every rank; the values of others do not count."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        values: list[Any] = [value if self.first else None]
        with _others():
            dist.broadcast_object_list(values, 0, self._group)
        return values[0]  # type: ignore[no-any-return]

    def to_first(self, value: T) -> list[T]:
        """What each rank gives, in their order, on the first rank; on others nothing."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] | None = [None] * self.world if self.first else None
        with _others():
            dist.gather_object(value, values, 0, self._group)
        return values or []

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over ranks of a tensor on the CPU, the same to the last bit on all."""
        if self.world == 1:
            return numbers
        import torch.distributed as dist

        total = numbers.clone()
        with _others():
            dist.all_reduce(total, group=self._group)
        return total

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients of all ranks, in place; one that no rank has stays None.

        Once an optimiser step, after the last micro-batch: ranks may have different numbers of them, or none.
        """
        if self.world == 1:
            return
        import torch
        import torch.distributed as dist

        trained = [p for p in parameters if p.requires_grad]
        found = self.sum(torch.tensor([float(p.grad is not None) for p in trained]))
        with _others():
            works = []
            for p, ranks in zip(trained, found.tolist(), strict=True):
                if ranks:
                    p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                    works.append(dist.all_reduce(p.grad, async_op=True))
            for work in works:
                work.wait()

    def broadcast_parameters(self, parameters: Iterable[Tensor]) -> None:
        """The first rank's values into everybody's."""
        if self.world == 1:
            return
        import torch.distributed as dist

        with _others():
            for p in parameters:
                dist.broadcast(p.detach(), 0)


ALONE = Ranks()


@contextlib.contextmanager
def _others(words: str = "") -> Iterator[None]:
    """What torch says when a connection breaks, by these words where it may say anything, becomes LostRank."""
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not re.search(words, str(error)):
            raise
        raise LostRank(f"another rank has ended ({str(error).splitlines()[0]})") from None


def lost_in_passes() -> contextlib.AbstractContextManager[None]:
    """The same around passes through weights in pieces."""
    return _others(r"gloo/transport|closed by peer|reset by peer|NCCL")


def sharded(fit: Mapping[str, Any], full: bool) -> bool:
    """Whether `trainer.fit` has several ranks hold pieces of the weights (`data/sharding.py`), not copies.

    With `strategy: fsdp`; with `auto` on GPUs, where all weights are trained (`full`) and passes are without autocast.
    """
    strategy = fit.get("strategy", "auto")
    on_gpus = fit.get("accelerator") in ("gpu", "cuda")
    return strategy == "fsdp" or (strategy == "auto" and on_gpus and full and plain(fit))


def plain(fit: Mapping[str, Any]) -> bool:
    """Whether passes are computed in the weights' own type, without autocast."""
    return str(fit.get("precision") or 32) in ("32", "32-true")


def world() -> int:
    """How many processes torchrun, or `finr1/cli/launch.py`, says there are; 1 where it was neither."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def number() -> int:
    """Which of them this one is."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


def _end_with_parent() -> None:
    """Have the kernel end this process when its launcher ends, even by SIGKILL: nobody would look after the ranks."""
    set_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h; elsewhere nothing happens
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != LAUNCHER:  # it ended before
        raise LostRank("the launcher has ended")


def leave(code: int) -> int:
    """End this process where it is a rank; alone, give the exit code back.

    What was registered for the end is done, but torch's libraries are not taken down: now and then a thread of theirs
    was still there, and the process, with all its work done, was aborted ("terminate called without an active
    exception").
    """
    if world() == 1:
        return code
    atexit._run_exitfuncs()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def init_ranks() -> Ranks:
    """Wait until all processes are there; called once in a process, before any engine is built.

    torch's default group is made here: an in-process vLLM engine that found none would make one of its own.
    """
    if world() == 1:
        return ALONE
    import torch
    import torch.distributed

    dist: Any = torch.distributed  # not all that its documentation names is exported
    _end_with_parent()
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    with _others():
        store, rank, size = next(dist.rendezvous("env://", timeout=MEETING))
        store.set_timeout(PATIENCE)
        store = dist.PrefixStore("default_pg", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        return Ranks(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=PATIENCE))
