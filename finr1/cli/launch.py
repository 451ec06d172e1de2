"""Starts the ranks of a machine with torchrun's own launcher: each is the same command in a process of its own."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from finr1.core.errors import ConfigError
from finr1.core.ranks import LOST


def per_machine(fit: Mapping[str, Any]) -> int:
    """The ranks that `trainer.fit.devices` asks for on each machine; ConfigError for what says no number."""
    devices = fit.get("devices", "auto")
    if devices in ("auto", -1, "-1"):
        return max(1, gpus()) if fit.get("accelerator") in ("gpu", "cuda") else 1
    if isinstance(devices, list):
        if len(devices) == 1:
            return 1
        remedy = "give their number, and choose GPUs by CUDA_VISIBLE_DEVICES"
        raise ConfigError("trainer.fit.devices", devices, "rank k takes GPU k", remedy)
    if not str(devices).isdigit() or int(devices) < 1:
        raise ConfigError("trainer.fit.devices", devices, "not a number of ranks", "use 1 or more")
    return int(devices)


def gpus() -> int:
    """How many GPUs this process sees."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def launch(n: int, arguments: Sequence[str]) -> int:
    """Run `python <arguments>` as `n` ranks; returns the exit code of the first one that failed, or 0.

    When one fails the others are ended. A rank says itself what was wrong; of one that was killed, this does.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # what the launcher reports is not what went wrong
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)(*arguments)
    except ChildFailedError as error:
        return _code(error)
    except SignalException as error:
        return 128 + int(error.sigval)
    finally:
        logging.disable(logging.NOTSET)
    return 0


def _code(error: object) -> int:
    """The exit code of the rank that failed first, not of one that ended because it did."""
    failures = sorted(error.failures.items(), key=lambda item: item[1].timestamp)  # type: ignore[attr-defined]
    rank, failure = next((item for item in failures if item[1].exitcode != LOST), failures[0])
    code = int(failure.exitcode)
    if code < 0:
        name = signal.Signals(-code).name
        print(f"error: rank {rank} was ended by {name}; start the same command again to continue", file=sys.stderr)
        return 128 - code
    if code == LOST:
        print("error: the ranks have lost each other, and none says why; look at what connects them", file=sys.stderr)
    return code
