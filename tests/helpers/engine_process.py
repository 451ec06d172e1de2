"""Run a program with the real engine in a separate process, as an engine changes the state of its process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any


def result_of(program: str) -> dict[str, Any]:
    """Return the JSON that the program prints after `RESULT` on a line."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=600, env=environment, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (line,) = (line for line in run.stdout.splitlines() if line.startswith("RESULT"))
    return json.loads(line.removeprefix("RESULT"))  # type: ignore[no-any-return]
