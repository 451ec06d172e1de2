"""Log to Weights & Biases (`logger=wandb`): offline by default; a restarted run continues its W&B run."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finr1.core.errors import ConfigError
from finr1.core.files import write_atomic

MODES = ("offline", "online", "disabled")


class WandbLogger:
    """Logs metrics as `<stage>/<metric>` against `<stage>/step`.

    The W&B run id is kept in `<run>/wandb_id`, so that a run that is killed and resumed stays one W&B run. The API key
    is never part of the configuration: W&B reads it from `wandb login` or WANDB_API_KEY.

    Args:
        entity: user or team; null: W&B's default.
        mode: offline (files below `<run>/wandb`, for `wandb sync`), online or disabled.
    """

    def __init__(
        self, project: str = "finr1", entity: str | None = None, mode: str = "offline", tags: Sequence[str] = ()
    ) -> None:
        if mode not in MODES:
            raise ConfigError("logger.wandb.mode", mode, "no such mode", f"use one of {', '.join(MODES)}")
        self.project, self.entity, self.mode, self.tags = project, entity, mode, list(tags)
        self.run_id = ""
        self._run: Any = None
        self._steps: set[str] = set()

    def start(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> None:
        """Start or resume the W&B run of this run folder. `config` holds plain values without secrets."""
        import wandb

        id_file = run_dir / "wandb_id"
        self.run_id = id_file.read_text().strip() if id_file.exists() else secrets.token_hex(4)
        write_atomic(id_file, self.run_id + "\n")
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=name,
            id=self.run_id,
            resume="allow" if self.mode == "online" else None,  # offline runs are joined by their id when synced
            mode=self.mode,  # type: ignore[arg-type]
            dir=str(run_dir),
            config=dict(config),
            tags=self.tags,
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, metrics: Mapping[str, float], step_name: str, step: int) -> None:
        """Log one step of a stage; `step_name` (`<stage>/step`) is the x axis of that stage's metrics."""
        if step_name not in self._steps:
            stage = step_name.removesuffix("/step")
            self._run.define_metric(step_name, hidden=True)
            self._run.define_metric(f"{stage}/*", step_metric=step_name)
            self._steps.add(step_name)
        self._run.log({**metrics, step_name: step})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def close(self, failed: bool) -> None:
        """Finish the W&B run, with exit code 1 if the run failed."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))
            self._run = None
