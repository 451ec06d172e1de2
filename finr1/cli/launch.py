"""Ranks: checks that a run can be split across them, and starts those of this machine with torchrun's launcher.

Each rank is the same command in its own process.
"""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from finr1.core import ranks
from finr1.core.errors import ConfigError
from finr1.run.stages import TRAINING
from finr1.settings.root import RootConfig


def per_machine(fit: Mapping[str, Any]) -> int:
    """The ranks per machine that `trainer.fit.devices` asks for; ConfigError if it is not a number of ranks."""
    devices = fit.get("devices", "auto")
    if devices in ("auto", -1, "-1"):
        return max(1, gpus()) if fit.get("accelerator") in ("gpu", "cuda") else 1
    if isinstance(devices, list):
        if len(devices) == 1:
            return 1
        remedy = "give the number of GPUs, and choose them with CUDA_VISIBLE_DEVICES"
        raise ConfigError("trainer.fit.devices", devices, "rank k takes GPU k", remedy)
    if not str(devices).isdigit() or int(devices) < 1:
        raise ConfigError("trainer.fit.devices", devices, "not a number of ranks", "use 1 or more")
    return int(devices)


def gpus() -> int:
    """The number of GPUs that this process sees."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def check_ranks(cfg: RootConfig, names: Sequence[str]) -> None:
    """ConfigError unless every rank is started, has a device, and has work; only training uses several ranks."""
    fit = cfg.trainer.get("fit") or {}
    started = ranks.world()
    if not set(names) & set(TRAINING):
        if started > 1:
            why = f"stage={cfg.stage} does not train, and only training is split across ranks"
            raise ConfigError("WORLD_SIZE", started, why, "start one process")
        return
    here, nodes = per_machine(fit), int(fit.get("num_nodes", 1))
    wanted = here * nodes
    if fit.get("accelerator") in ("gpu", "cuda"):
        available = gpus()
        if not available:
            raise ConfigError("trainer.fit.accelerator", fit["accelerator"], "no GPU is found here", "use trainer=cpu")
        if here > available:
            raise ConfigError("trainer.fit.devices", here, f"only {available} GPUs here", f"use {available} or fewer")
    if nodes > 1 and started == 1:
        remedy = "start the command with torchrun on each machine (finr1/cli/README.md)"
        raise ConfigError("trainer.fit.num_nodes", nodes, "ranks of other machines are started there", remedy)
    if started not in (1, wanted):
        why = f"trainer.fit asks for {here} devices on {nodes} machines"
        raise ConfigError("WORLD_SIZE", started, why, f"start {wanted} ranks, or change devices and num_nodes")
    if wanted == 1:
        return
    check_strategy(fit, cfg.model.adapter)
    for stage, key in (("sft", "rows_per_step"), ("grpo", "questions_per_step")):
        per_step = getattr(getattr(cfg, stage), key)
        if stage in names and per_step < wanted:
            why = f"fewer than the {wanted} ranks that share them: some would have no work"
            raise ConfigError(f"{stage}.{key}", per_step, why, f"use {wanted} or more, or fewer trainer.fit.devices")
    spans = (cfg.engine.get("policy") or {}).get("tensor_parallel_size", 1)
    if "grpo" in names and spans != 1:
        why = f"each of {wanted} ranks has its own engine on its own GPU"
        raise ConfigError("engine.policy.tensor_parallel_size", spans, why, "use 1")


def check_strategy(fit: Mapping[str, Any], adapter: str) -> None:
    """Weights are replicated (ddp) or sharded (fsdp); only full fine-tuning without autocast can be sharded."""
    strategy = fit.get("strategy", "auto")
    if strategy not in ("auto", "ddp", "fsdp"):
        remedy = "use ddp (a copy on each rank), fsdp (sharded) or auto"
        raise ConfigError("trainer.fit.strategy", strategy, "no such strategy", remedy)
    if not ranks.sharded(fit, adapter == "full"):
        return
    if adapter != "full":
        why = f"with model.adapter={adapter} the weights below the adapters are not sharded"
        raise ConfigError("trainer.fit.strategy", strategy, why, "use ddp")
    if not ranks.plain(fit):
        why = "autocast would keep a copy of all weights on every rank"
        remedy = "use 32-true, with trainer.fit.plugins as in conf/trainer/gpu8.yaml for bf16"
        raise ConfigError("trainer.fit.precision", fit["precision"], why, remedy)


def launch(n: int, arguments: Sequence[str]) -> int:
    """Run `python <arguments>` as `n` ranks; returns the exit code of the first rank that failed, or 0.

    When one rank fails, the others are ended. A rank reports its own error; this reports ranks that were killed.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # the launcher's reports hide the cause
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
    """The exit code of the rank that failed first, not of one that ended because of it."""
    failures = sorted(error.failures.items(), key=lambda item: item[1].timestamp)  # type: ignore[attr-defined]
    rank, failure = next((item for item in failures if item[1].exitcode != ranks.LOST), failures[0])
    code = int(failure.exitcode)
    if code < 0:
        name = signal.Signals(-code).name
        print(f"error: rank {rank} was ended by {name}; start the same command again to continue", file=sys.stderr)
        return 128 - code
    if code == ranks.LOST:
        print("error: the ranks lost contact, and none reports why; check the network between them", file=sys.stderr)
    return code
