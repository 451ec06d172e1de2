"""What a mistyped setting, group or choice may have meant."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from finr1.cli.compose import CONF
from finr1.cli.nodes import GROUPS, ROLES, close_match, keywords_of
from finr1.settings.root import RootConfig

PEER_NAMES = {  # settings of TRL, verl, LLaMA-Factory and others -> ours
    "lr": "sft.learning_rate or grpo.learning_rate",
    "num_train_epochs": "sft.epochs",
    "max_steps": "grpo.steps",
    "warmup_ratio": "sft.warmup_share",
    "lr_scheduler_type": "grpo.schedule",
    "per_device_train_batch_size": "sft.rows_per_step or grpo.questions_per_step",
    "gradient_accumulation_steps": "sft.rows_per_step or grpo.questions_per_step",
    "train_batch_size": "sft.rows_per_step or grpo.questions_per_step",
    "packing": "sft.row_tokens",
    "num_generations": "grpo.group_size",
    "rollout_n": "grpo.group_size",
    "max_completion_length": "grpo.sampling.max_new_tokens",
    "max_tokens": "grpo.sampling.max_new_tokens",
    "max_prompt_length": "model.max_model_len",
    "max_length": "model.max_model_len",
    "max_seq_length": "model.max_model_len",
    "cutoff_len": "model.max_model_len",
    "num_iterations": "grpo.updates_per_rollout",
    "loss_type": "grpo.loss.kind",
    "epsilon": "grpo.loss.clip_low",
    "epsilon_high": "grpo.loss.clip_high",
    "kl_coef": "grpo.loss.beta",
    "kl_loss_coef": "grpo.loss.beta",
    "entropy_coeff": "grpo.loss.entropy_bonus",
    "mask_truncated_completions": "grpo.loss.mask_truncated",
    "scale_rewards": "grpo.advantage.scale",
    "reward_weights": "reward.<name>.weight",
    "model_name_or_path": "model.path",
    "lora_r": "model.lora.r",
    "lora_rank": "model.lora.r",
    "lora_alpha": "model.lora.alpha",
    "lora_dropout": "model.lora.dropout",
    "finetuning_type": "model.adapter",
    "save_steps": "sft.checkpoint_every_steps or grpo.checkpoint_every_steps",
    "save_total_limit": "checkpoint.keep_last",
    "output_dir": "paths.runs",
    "run_name": "name",
    "report_to": "logger",
}


def all_keys(schema: Any = RootConfig, prefix: str = "") -> Iterator[str]:
    """The dotted keys of all settings."""
    types = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        yield f"{prefix}{field.name}"
        if dataclasses.is_dataclass(types[field.name]):
            yield from all_keys(types[field.name], f"{prefix}{field.name}.")


def near_setting(key: str) -> str:
    """The setting or group that a mistyped key may have meant; at least where to look."""
    base = key.lstrip("+~").split("@")[0]
    known = [*all_keys(), *(path.name for path in CONF.iterdir() if path.is_dir())]
    parent, _, last = base.rpartition(".")
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == parent}
    if last in PEER_NAMES and last not in siblings:
        section = [name for name in PEER_NAMES[last].split(" or ") if name.startswith(f"{parent}.")]
        return f"did you mean {section[0] if section else PEER_NAMES[last]}?"
    if (near := close_match(last, siblings)).startswith("did you mean"):
        return f"did you mean {siblings[near.split()[-1].rstrip('?')]}?"
    if same_name := [k for k in known if k.rpartition(".")[2] == last]:
        return f"did you mean {' or '.join(same_name)}?"
    if keywords := _keywords_of_part(base):
        return f"write +{base}=<value>" if last in keywords else close_match(last, keywords)
    if (near := close_match(base, known)).startswith("did you mean"):
        return near
    if parent and siblings:
        return f"use one of {', '.join(sorted(siblings.values()))}"
    return "see `python -m finr1 --help`"


def choose_first(key: str) -> str:
    """The error for settings of a part that exists but was not chosen (`source.tfns`); empty for any other key."""
    group, _, name = key.rpartition(".")
    if group == "engine" and name in ROLES:
        return f"no engine has this role; choose one, as in engine@{key}=http"
    folder = group.partition(".")[0]
    if group not in GROUPS or not (CONF / folder / f"{name}.yaml").is_file():
        return ""
    return f"{key} is not chosen; choose it, as in {folder if folder == group else f'{folder}@{group}'}=[{name}]"


def near_choice(config: str) -> str:
    """The error for a choice that a group lacks, or a group that does not exist; `config` is `<group>/<choice>`."""
    group, _, name = config.rpartition("/")
    folder = CONF / group
    choices = [path.stem for path in folder.glob("*.yaml")] if group and folder.is_dir() else []
    if choices:
        return f"{group}={name}: no such {group}; {close_match(name, choices)}"
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    return f"{group or config}={name}: no such group; {close_match(group or config, groups)}"


def _keywords_of_part(key: str) -> list[str]:
    """The keywords of the part that a key like `source.tfns.path` belongs to; empty if there is none."""
    *group, name, _ = ["", "", *key.split(".")]
    path = CONF / (group[2] if len(group) > 2 else "") / f"{name}.yaml"
    if not path.is_file() or len(group) < 3:
        return []
    target = OmegaConf.select(OmegaConf.load(path), f"{name}._target_")
    return keywords_of(target) if target else []
