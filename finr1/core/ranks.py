"""Communication between the ranks of a training run.

A *rank* is one process, with one GPU where there are GPUs, its own engine, and a copy or a shard of the model. Ranks
are started by `finr1/cli/launch.py`, or by torchrun on each machine. A step's content does not depend on their number:
they share its questions to sample and its rows to train on, and sum their gradients. Only the first rank writes to the
run folder.

Everything but gradients is sent between CPUs, over a gloo group with a long timeout: a rank may wait for hours while
the first one queries a teacher, or another rank's reward queries a judge.
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
TIMEOUT = timedelta(days=7)  # of a rank that waits for another
RENDEZVOUS_TIMEOUT = timedelta(minutes=10)  # for all ranks to start
LAUNCHER = os.getppid()  # the parent of a rank
LOST = 3  # exit code of a rank that ends because another one did


class LostRank(Finr1Error):
    """Another rank has ended, with its own error message or by a kill."""


class Ranks:
    """This process and the ranks it trains with. With one rank nothing is sent; every method returns its input.

    `rank` counts from 0; `group` is torch.distributed's process group between CPUs, None with one rank.
    """

    def __init__(self, rank: int = 0, world: int = 1, group: Any = None) -> None:
        self.rank, self.world, self._group = rank, world, group

    @property
    def first(self) -> bool:
        """Whether this is the first rank, the one that writes."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part of a sequence that all ranks hold: every `world`-th item."""
        return items[self.rank :: self.world]

    def unshard(self, own: Sequence[T]) -> list[T]:
        """The inverse of `shard`: the whole sequence in its order, on every rank."""
        parts = self.gather(own)
        return [parts[i % self.world][i // self.world] for i in range(sum(map(len, parts)))]

    def share(self, items: Sequence[T], sizes: Sequence[int]) -> list[T]:
        """This rank's part, in the given order, with about equal total size on every rank.

        The largest item first, each to the rank with the smallest total (Graham 1969, longest processing time: at most
        4/3 of the optimum). All ranks must pass the same items; with fewer items than ranks some get none.
        """
        loads, owner = [0] * self.world, [0] * len(items)
        for i in sorted(range(len(items)), key=lambda i: -sizes[i]):
            owner[i] = loads.index(min(loads))
            loads[owner[i]] += sizes[i]
        return [item for item, rank in zip(items, owner, strict=True) if rank == self.rank]

    def rounds(self, items: Sequence[T], sizes: Sequence[int]) -> list[tuple[T, bool]]:
        """This rank's part, with the same number of items on every rank, and whether each item counts.

        The largest items first, one per rank and round, so that the items of a round are about equal in size. In an
        incomplete last round the remaining ranks repeat the last item, which does not count there.
        """
        order = sorted(range(len(items)), key=lambda i: -sizes[i])
        places = range(self.rank, -(-len(items) // self.world) * self.world, self.world)
        return [(items[order[min(place, len(items) - 1)]], place < len(items)) for place in places]

    def gather(self, value: T) -> list[T]:
        """All ranks' values in rank order, on every rank. Values are pickled."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        with _connected() as dist:
            dist.all_gather_object(values, value, self._group)
        return values

    def broadcast(self, value: T) -> T:
        """The first rank's value, on every rank."""
        if self.world == 1:
            return value
        values: list[Any] = [value if self.first else None]
        with _connected() as dist:
            dist.broadcast_object_list(values, 0, self._group)
        return values[0]  # type: ignore[no-any-return]

    def to_first(self, value: T) -> list[T]:
        """All ranks' values in rank order on the first rank, an empty list on the others."""
        if self.world == 1:
            return [value]
        values: list[Any] | None = [None] * self.world if self.first else None
        with _connected() as dist:
            dist.gather_object(value, values, 0, self._group)
        return values or []

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum of a CPU tensor over ranks, bit-identical on all of them."""
        if self.world == 1:
            return numbers
        total = numbers.clone()
        with _connected() as dist:
            dist.all_reduce(total, group=self._group)
        return total

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum the gradients over ranks, in place; a gradient that no rank has stays None.

        Called once per optimiser step, after the last micro-batch; ranks may have different numbers of micro-batches.
        """
        if self.world == 1:
            return
        import torch

        trained = [p for p in parameters if p.requires_grad]
        n_holders = self.sum(torch.tensor([float(p.grad is not None) for p in trained]))
        with _connected() as dist:
            works = []
            for p, n in zip(trained, n_holders.tolist(), strict=True):
                if n:
                    p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                    works.append(dist.all_reduce(p.grad, async_op=True))
            for work in works:
                work.wait()

    def broadcast_parameters(self, parameters: Iterable[Tensor]) -> None:
        """Overwrite the parameters with the first rank's."""
        if self.world == 1:
            return
        with _connected() as dist:
            for p in parameters:
                dist.broadcast(p.detach(), 0)


ALONE = Ranks()


@contextlib.contextmanager
def _connected(pattern: str = "") -> Iterator[Any]:
    """Give torch.distributed; turn its RuntimeError for a broken connection, matched by `pattern`, into LostRank."""
    import torch.distributed

    try:
        yield torch.distributed
    except RuntimeError as error:
        if world() == 1 or not re.search(pattern, str(error)):
            raise
        raise LostRank(f"another rank has ended ({str(error).splitlines()[0]})") from None


def lost_in_passes() -> contextlib.AbstractContextManager[Any]:
    """Raise LostRank where passes through sharded weights lose a rank."""
    return _connected(r"gloo/transport|closed by peer|reset by peer|NCCL")


def sharded(fit: Mapping[str, Any], full: bool) -> bool:
    """Whether the ranks hold shards of the weights (`training/loop/sharding.py`) instead of copies.

    They do with `strategy: fsdp`, and with `auto` on GPUs if all weights are trained (`full`) without autocast.
    """
    strategy = fit.get("strategy", "auto")
    on_gpus = fit.get("accelerator") in ("gpu", "cuda")
    return strategy == "fsdp" or (strategy == "auto" and on_gpus and full and plain(fit))


def plain(fit: Mapping[str, Any]) -> bool:
    """Whether passes are computed in the dtype of the weights, without autocast."""
    return str(fit.get("precision") or 32) in ("32", "32-true")


def world() -> int:
    """Number of ranks, as set by torchrun or `finr1/cli/launch.py`; 1 without them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def number() -> int:
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


def _end_with_parent() -> None:
    """Have the kernel kill this process when its launcher ends, even by SIGKILL, so that no rank is orphaned."""
    set_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h; no effect on other systems
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != LAUNCHER:  # it ended before the call
        raise LostRank("the launcher has ended")


def leave(code: int) -> int:
    """Exit the process if it is one of several ranks, else return the exit code.

    Exit handlers run, but torch's libraries are not torn down: a thread of theirs sometimes outlived them and aborted
    the finished process ("terminate called without an active exception").
    """
    if world() == 1:
        return code
    atexit._run_exitfuncs()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def init_ranks() -> Ranks:
    """Wait for all ranks to start; called once per process, before any engine is built.

    Creates torch's default process group: an in-process vLLM engine that finds none would create its own.
    """
    if world() == 1:
        return ALONE
    import torch

    _end_with_parent()
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    with _connected() as dist:
        store, rank, size = next(dist.rendezvous("env://", timeout=RENDEZVOUS_TIMEOUT))
        store.set_timeout(TIMEOUT)
        store = dist.PrefixStore("default_pg", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        return Ranks(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=TIMEOUT))
