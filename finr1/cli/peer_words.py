"""Words of TRL, verl, ms-swift, open-r1 and OpenRLHF, and our own old names, by the setting they stand for."""

import dataclasses

from finr1.settings.root import RootConfig

# Our sections that peers' words are looked up in; in the others (`evaluate`, `engine`) they mean something else.
_SECTIONS = ("sft", "grpo", "trainer", "model")

_GRPO = {
    "group_size": "num_generations rollout.n n_samples_per_prompt",
    "questions_per_step": "train_batch_size rollout_batch_size generation_batch_size gen_batch_size prompts_per_step",
    "steps": "max_steps total_training_steps num_episodes",
    "updates_per_rollout": "num_iterations steps_per_generation ppo_epochs ppo_mini_batch_size mini_batch_size",
    "refill_rounds": "dynamic_sample dynamic_filtering filter_groups max_num_gen_batches max_resample_times",
    "schedule": "lr_scheduler_type lr_scheduler",
    "warmup_steps": "lr_warmup_steps",
    "sampling.max_new_tokens": "max_completion_length max_response_length response_length generate_max_len",
    "sampling.temperature": "rollout.temperature",
    "loss.kind": "loss loss_type loss_agg_mode loss_mode policy_loss_type importance_sampling_level",
    "loss.clip_low": "clip_low epsilon epsilon_low clip_ratio clip_ratio_low cliprange eps_clip eps_clip_low",
    "loss.clip_high": "clip_high epsilon_high clip_ratio_high eps_clip_high",
    "loss.dual_clip": "dual_clip delta clip_ratio_c",
    "loss.normaliser": "count",
    "loss.beta": "beta kl_coef kl_loss_coef init_kl_coef kl_beta",
    "loss.entropy_bonus": "entropy_bonus entropy_coef entropy_coeff entropy_loss_coef",
    "loss.mask_truncated": "mask_truncated mask_truncated_completions overlong_filter",
    "advantage.baseline": "baseline adv_estimator advantage_estimator",
    "advantage.scale": "scale scale_rewards norm_adv_by_std_in_grpo",
    "advantage.spread_tolerance": "spread_tolerance",
    "advantage.combine": "combine",
    "advantage.train_per_group": "train_per_group",
    "advantage.overlong_buffer_tokens": "overlong_buffer_tokens overlong_buffer.len soft_cache_length",
    "advantage.overlong_weight": "overlong_weight overlong_buffer.penalty_factor",
    "correction.kind": "correction vllm_importance_sampling_correction vllm_importance_sampling_mode rollout_is",
    "correction.low": "correction_low",
    "correction.high": "correction_high vllm_importance_sampling_cap tis_imp_ratio_cap rollout_is_threshold",
    "canary.tokens": "canary_tokens",
    "canary.bound": "canary_bound",
    "samples.every_steps": "samples_every_steps",
    "samples.kept": "samples_kept num_completions_to_print",
    "eval.every_steps": "eval_every eval_steps test_freq",
    "eval.questions": "eval_questions",
    "eval.alarm_drop": "eval_drop",
}
_BELOW_GRPO = {  # at the top level these words are other stages' too
    f"sampling.{word}": word for word in ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty")
}
_BOTH = {  # sft, grpo
    ("learning_rate", "learning_rate"): "lr learning_rate optim.lr actor_learning_rate",
    ("rows_per_step", "questions_per_step"): "per_device_train_batch_size gradient_accumulation_steps batch_size",
    ("row_tokens", "row_tokens"): "max_seq_length micro_train_batch_size micro_batch_size ppo_micro_batch_size_per_gpu "
    "ppo_max_token_len_per_gpu",
    ("epochs", "steps"): "num_train_epochs total_epochs num_epochs max_epochs",
    ("warmup_share", "warmup_steps"): "warmup_ratio lr_warmup_steps_ratio lr_warmup_ratio",
    ("max_grad_norm", "max_grad_norm"): "max_grad_norm grad_clip gradient_clipping max_norm",
    ("checkpoint_every_steps", "checkpoint_every_steps"): "save_steps save_freq",
}
_SFT = {"neftune_alpha": "neftune_noise_alpha", "turns": "assistant_only_loss"}
_OTHERS = {
    "model.path": "model_name_or_path pretrain",
    "model.max_model_len": "max_length max_prompt_length vllm_max_model_length max_model_length",
    "model.attention": "attn_implementation",
    "reward": "reward_funcs reward_functions",
    "logger": "report_to",
    "source": "dataset_name dataset",
    "name": "run_name experiment_name",
    "paths.runs": "output_dir",
}


def hint(key: str) -> str:
    """`did you mean <our setting>?` for a peer's word (`num_generations`, `actor_rollout_ref.rollout.n`), or "".

    A word below `sft` or `grpo` names that stage's setting alone.
    """
    section, dot, _ = key.partition(".")
    if dot and section not in _SECTIONS and section in {field.name for field in dataclasses.fields(RootConfig)}:
        return ""
    words = {".".join(key.split(".")[-n:]) for n in (1, 2)}
    stage = section if dot and section in ("sft", "grpo") else ""
    ours = [name for name, peers in _table(stage) if words & set(peers.split())]
    return f"did you mean {' or '.join(dict.fromkeys(ours))}?" if ours else ""


def _table(stage: str) -> list[tuple[str, str]]:
    sft = [(f"sft.{name}", peers) for (name, _), peers in _BOTH.items()]
    sft += [(f"sft.{name}", peers) for name, peers in _SFT.items()]
    grpo = [(f"grpo.{name}", peers) for (_, name), peers in _BOTH.items()]
    grpo += [(f"grpo.{name}", peers) for name, peers in _GRPO.items()]
    below = [(f"grpo.{name}", peers) for name, peers in _BELOW_GRPO.items()]
    return {"sft": sft, "grpo": grpo + below}.get(stage, sft + grpo) + list(_OTHERS.items())
