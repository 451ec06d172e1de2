"""An engine that returns scripted answers, for tests and for trying a pipeline without a model."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from finr1.core.errors import ConfigError
from finr1.core.types import Completion
from finr1.parts.engine.base import OnDone, Request
from finr1.settings.sampling import Sampling

Respond = Callable[[Request, int], str | Completion | None]  # None: answer from the script

TEMPLATE = "<think>\nThe gold answer is {gold}.\n</think>\n<answer>\n\\boxed{{gold}}\n</answer>"


class ScriptedEngine:
    """Returns scripted answers, without tokens.

    Args:
        answers: texts by question id (one text, or a list indexed by sample, repeated), or one list for all questions,
            indexed by request, repeated.
        template: answer to questions that `answers` lacks; `{gold}` is replaced by the gold, `{sample}` by the sample's
            number.
        respond: dotted path of a function `(request, sample) -> text or Completion`, called first; if it returns None,
            the script is used.
        fail_ids: questions whose calls fail.
        fail_every: every n-th request fails (0: none).
        kill_after: send SIGKILL to this process after so many answered requests (0: never).
    """

    name = "scripted"

    def __init__(
        self,
        answers: Mapping[str, str | Sequence[str]] | Sequence[str] | None = None,
        template: str = TEMPLATE,
        respond: str | Respond | None = None,
        fail_ids: Sequence[str] = (),
        fail_every: int = 0,
        kill_after: int = 0,
    ) -> None:
        self.answers = answers or {}
        self.template = template
        self.respond = _function(respond) if isinstance(respond, str) else respond
        self.fail_ids, self.fail_every, self.kill_after = frozenset(fail_ids), fail_every, kill_after
        self.asked: list[Request] = []  # every request so far, for tests

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """Answer in order; a request scripted to fail returns completions with `finish_reason="error"`."""
        results: list[list[Completion]] = []
        for index, request in enumerate(requests):
            self.asked.append(request)
            results.append([self._complete(request, sample) for sample in range(sampling.n)])
            if on_done:
                on_done(index, results[-1])
            if len(self.asked) == self.kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
        return results

    def close(self) -> None:
        """Do nothing: there are no resources."""

    def _complete(self, request: Request, sample: int) -> Completion:
        question, number = request.question, len(self.asked)
        if question.id in self.fail_ids or (self.fail_every and number % self.fail_every == 0):
            return Completion("", "error", error="scripted failure")
        if self.respond and (answer := self.respond(request, sample)) is not None:
            return answer if isinstance(answer, Completion) else Completion(answer)
        if not isinstance(self.answers, Mapping):
            return Completion(self.answers[(number - 1) % len(self.answers)])
        if question.id in self.answers:
            texts = self.answers[question.id]
            return Completion(texts if isinstance(texts, str) else texts[sample % len(texts)])
        return Completion(self.template.replace("{gold}", question.gold or "").replace("{sample}", str(sample)))


def _function(path: str) -> Respond:
    module, _, name = path.rpartition(".")
    try:
        function: Respond = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        remedy = "give the dotted path of a function (request, sample) -> text"
        raise ConfigError("engine.respond", path, f"cannot be imported ({error})", remedy) from error
    return function
