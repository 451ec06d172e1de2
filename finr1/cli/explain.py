"""Errors in one line: `<key>=<value>: <why>; <what to do>`. Hydra's errors of many lines are matched by `_PATTERNS`."""

import errno
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from finr1.cli.peer_words import hint
from finr1.cli.suggest import all_keys, choose_first, near_choice, near_setting
from finr1.core.errors import Finr1Error, causes


def explain(error: BaseException, overrides: Sequence[str]) -> str | None:
    """One line for an error that the user can fix; None for any other."""
    for cause in causes(error):
        if isinstance(cause, Finr1Error):
            return _with_full_key(_one_line(str(cause)), overrides)
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            where = cause.filename or "the run folder"
            return f"{where}: no space left on the device; free some and start the same command again: it continues"
    if isinstance(error, PermissionError):
        return f"{error.filename}: permission denied; give another paths.runs=<folder>, or fix its permissions"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _one_line(_explain_hydra(error, overrides))
    return None


def _with_full_key(line: str, overrides: Sequence[str]) -> str:
    """Complete the key of a settings class used in several places: `sampling.n` becomes `grpo.sampling.n`."""
    key = line.partition("=")[0]
    full = [name for name, _ in map(_split, overrides) if name.endswith(f".{key}")]
    return line.replace(key, full[0], 1) if len(full) == 1 else line


class _Report(NamedTuple):
    """What Hydra reports: the messages of an error and its causes, the innermost reason, the overrides by key."""

    text: str
    reason: str
    values: dict[str, str]

    def setting(self, key: str) -> str:
        """`key=value` for a key on the command line, else the key."""
        return f"{key}={self.values[key]}" if key in self.values else key

    @property
    def full_key(self) -> str:
        """The key that OmegaConf names; empty if it names none."""
        match = re.search(r"full_key: (\S+)", self.text)
        return match[1] if match else ""


def _explain_hydra(error: HydraException | OmegaConfBaseException, overrides: Sequence[str]) -> str:
    if isinstance(error, OverrideParseException):
        remedy = "quote a value with blanks, commas or braces, as 'key=\"a, b\"'"
        return f"{error.override}: not of the form key=value; {remedy}"
    chain = list(causes(error))
    inner = [cause for cause in chain if isinstance(cause, OmegaConfBaseException) and "$" not in str(cause)]
    reason = str(inner[-1] if inner else error).strip().splitlines()[0].rstrip(".")
    report = _Report("\n".join(map(str, chain)), reason, dict(map(_split, overrides)))
    for pattern, explanation in _PATTERNS:
        if match := re.search(pattern, report.text):
            return explanation(match, report)
    where = report.setting(report.full_key) if report.full_key else "configuration"
    return f"{where}: {reason}; see `python -m finr1 --cfg job`"


def _cannot_override(match: re.Match[str], report: _Report) -> str:
    key, is_group = match[1], bool(match[2])
    inner = key if is_group else report.full_key or key  # `samples={sft: 8}` fails at samples.sft
    user_named = inner != key and [name for name in all_keys() if name.startswith(key)] == [key]
    near = f"a new one is +{inner}=<value>" if user_named else hint(key) or near_setting(inner)
    return f"{report.setting(key)}: {choose_first(inner) or f'no such setting; {near}'}"


def _unknown_key(match: re.Match[str], report: _Report) -> str:
    key = report.full_key or match[1]
    return f"{report.setting(key)}: no such setting; {near_setting(key)}"


def _several_values(match: re.Match[str], report: _Report) -> str:
    override = re.search(r"'(\S*)'", report.text)
    return f"{override[1] if override else ''}: several values; add --multirun, or quote the value if it holds a comma"


def _chosen_twice(match: re.Match[str], report: _Report) -> str:
    return f"{match[1]}: chosen twice; give {match[1]}=<choice> once (+{match[1]} only if no default chooses one)"


def _wrong_type(match: re.Match[str], report: _Report) -> str:
    key = _split(match[1])[0]
    if peer := hint(key):  # the name of a section here, of a setting elsewhere: grpo.loss=dapo
        return f"{report.setting(key)}: no such setting; {peer}"
    reason = f"{report.reason[:1].lower()}{report.reason[1:]}"
    return f"{report.setting(key)}: {reason}; give a value of the right type"


_PATTERNS: tuple[tuple[str, Callable[[re.Match[str], _Report], str]], ...] = (
    (r"Could not (?:find|load) '([^']+)'", lambda match, report: near_choice(match[1])),
    (r"Could not override '([^']+)'\.\s*(No match in the defaults list)?", _cannot_override),
    (r"Key '([^']+)' (?:is )?not in '[^']*'", _unknown_key),
    (r"requires --multirun|Ambiguous value", _several_values),
    (r"Multiple values for (\S+?)\.? ", _chosen_twice),
    (
        r"Could not delete from config\. '([^']+)'",
        lambda match, report: f"~{match[1]}: no such setting; {near_setting(match[1])}",
    ),
    (r"[Ee]rror merging override (\S+)", _wrong_type),
)


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def _one_line(text: str) -> str:
    return " ".join(text.split())
