"""System prompts of policy and teacher."""

from dataclasses import dataclass

from finr1.core.prompt import load


@dataclass
class PromptSettings:
    """The system prompt that policy and teacher see."""

    system: str | None = "system_short.v1"  # a file of finr1/prompt, without .txt; null: none
    teacher_system: str | None = None  # DeepSeek-R1 is asked without one (Fin-R1, README)

    def __post_init__(self) -> None:
        for key in ("system", "teacher_system"):
            if getattr(self, key) is not None:
                load(getattr(self, key), key=f"prompt.{key}")
