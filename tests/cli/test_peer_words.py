"""The words of TRL, verl, ms-swift, open-r1 and OpenRLHF lead to our settings; so do our own old names."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from finr1.cli import peer_words
from finr1.cli.compose import compose
from finr1.cli.explain import explain
from finr1.cli.nodes import check_keys
from finr1.core.errors import ConfigError
from finr1.settings.root import RootConfig

WORDS = {
    "grpo.num_generations=8": "grpo.group_size",
    "num_generations=8": "grpo.group_size",
    "actor_rollout_ref.rollout.n=8": "grpo.group_size",
    "n_samples_per_prompt=8": "grpo.group_size",
    "grpo.lr=1e-6": "grpo.learning_rate",
    "sft.lr=1e-6": "sft.learning_rate",
    "lr=1e-6": "sft.learning_rate or grpo.learning_rate",
    "learning_rate=1e-6": "sft.learning_rate or grpo.learning_rate",
    "actor_rollout_ref.actor.optim.lr=1e-6": "sft.learning_rate or grpo.learning_rate",
    "grpo.beta=0.04": "grpo.loss.beta",
    "beta=0.04": "grpo.loss.beta",
    "algorithm.kl_ctrl.kl_coef=0.001": "grpo.loss.beta",
    "grpo.epsilon=0.2": "grpo.loss.clip_low",
    "epsilon_high=0.28": "grpo.loss.clip_high",
    "grpo.clip_ratio_low=0.2": "grpo.loss.clip_low",
    "grpo.delta=3": "grpo.loss.dual_clip",
    "grpo.loss_type=dapo": "grpo.loss.kind",
    "grpo.loss=dapo": "grpo.loss.kind",
    "grpo.correction=token_mask": "grpo.correction.kind",
    "grpo.scale_rewards=none": "grpo.advantage.scale",
    "grpo.max_completion_length=512": "grpo.sampling.max_new_tokens",
    "data.max_response_length=512": "grpo.sampling.max_new_tokens",
    "grpo.temperature=0.9": "grpo.sampling.temperature",
    "grpo.max_steps=100": "grpo.steps",
    "trainer.total_training_steps=100": "grpo.steps",
    "grpo.num_iterations=2": "grpo.updates_per_rollout",
    "grpo.per_device_train_batch_size=8": "grpo.questions_per_step",
    "sft.per_device_train_batch_size=8": "sft.rows_per_step",
    "per_device_train_batch_size=8": "sft.rows_per_step or grpo.questions_per_step",
    "max_grad_norm=1": "sft.max_grad_norm or grpo.max_grad_norm",
    "grpo.eval_every=5": "grpo.eval.every_steps",
    "grpo.train_per_group=4": "grpo.advantage.train_per_group",
    "model_name_or_path=x": "model.path",
    "model.model_name_or_path=x": "model.path",
}


@pytest.mark.parametrize("override", WORDS)
def test_a_peers_word_names_our_setting(override: str) -> None:
    with pytest.raises(Exception) as caught:
        compose([override])
    assert explain(caught.value, [override]) == f"{override}: no such setting; did you mean {WORDS[override]}?"


def test_so_does_a_word_that_is_added() -> None:
    cfg = compose(["+grpo.num_generations=8"])
    with pytest.raises(ConfigError, match=r"grpo\.num_generations=8: no such setting; did you mean grpo\.group_size\?"):
        check_keys(OmegaConf.to_container(cfg), RootConfig)


def test_words_below_other_sections_are_left_alone() -> None:
    assert peer_words.hint("evaluate.batch_size") == peer_words.hint("engine.judge.beta") == ""
    assert peer_words.hint("temperature") == ""  # of several stages: the general hint lists them


def test_every_suggestion_exists() -> None:
    cfg = OmegaConf.structured(RootConfig)
    ours = [f"grpo.{name}" for name in (*peer_words._GRPO, *peer_words._BELOW_GRPO)]
    ours += [f"{stage}.{name}" for pair in peer_words._BOTH for stage, name in zip(("sft", "grpo"), pair, strict=True)]
    ours += [*(f"sft.{name}" for name in peer_words._SFT), *peer_words._OTHERS]
    for name in ours:
        section, _, last = name.rpartition(".")
        assert last in (OmegaConf.select(cfg, section) if section else cfg), name
