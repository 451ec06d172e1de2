"""The data set's card: README.md with the header that the hub and `datasets` read, and tables that people read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finr1.core.prompt import text_hash
from finr1.data.export.layouts import COLUMNS, LAYOUTS

if TYPE_CHECKING:
    from finr1.data.export.counts import Exported
    from finr1.settings.export import ExportSettings

Manifests = Mapping[str, Mapping[str, Any]]
UNKNOWN = "unknown"


class Published(NamedTuple):
    """Rows of a source before and after Fin-R1's own filters (arXiv 2503.16252 v5, Tables 3 and 4)."""

    original: str
    kept: int


PUBLISHED: Mapping[str, Published] = {
    "finance_qt": Published("0.39k", 152),
    "finance_instruct_500k": Published("518.19k", 11_300),
    "financeiq": Published("7.17k", 2_596),
    "finpee": Published("0.35k", 179),
    "ant_finance": Published("8.45k", 1_548),
    "fincorpus": Published("235.21k", 29_288),
    "finqa": Published("8.28k", 2_948),
    "convfinqa": Published("14.12k", 7_629),
    "tfns": Published("11.93k", 2_451),
    "fincuge": Published("66.67k", 2_000),
}


def write_card(title: str, settings: ExportSettings, manifests: Manifests, found: Exported) -> str:
    """The whole text of the card."""
    licences = licences_of(settings, manifests, found)
    parts = [
        f"---\n{header(title, licences, found)}\n---\n",
        f"# {cell_text(title)}\n",
        _what(found, manifests),
        "## Loading\n",
        _loading(found),
        "## Distribution\n",
        table(_DISTRIBUTION, distribution(manifests, found), right=range(3, 10)),
        "*read*: questions of the training split that the source gave; *asked*: left after duplicates, held-out text "
        "and a chosen number of rows; *traces* = good + bad + undecided. Undecided is neither right nor wrong. "
        "*out*: rows of this data set.\n",
        *_beside_fin_r1(manifests, found),
        "## Taken out before anything was asked\n",
        _removed(manifests["questions"]),
        "## Teacher\n",
        _teacher(manifests["distil"], found),
        "## Judges\n",
        _judges(manifests["filter"], found),
        "## Prompts\n",
        _prompts(manifests, found),
        "## Columns\n",
        *_columns(),
        "## Licences\n",
        table(("source", "licence"), sorted(licences.items())),
        "The licence of a source is what its configuration says, or `unknown`; it covers the question. Whether the "
        "teacher's provider lets its texts be passed on is for whoever publishes this data set to find out.\n",
        "## How it was made\n",
        _made(manifests),
    ]
    return "\n".join(parts)


def header(title: str, licences: Mapping[str, str], found: Exported) -> str:
    """The YAML between the dashes: licence, languages, size, and which files are which split of which layout."""
    from huggingface_hub import DatasetCardData

    known = {licence.lower() for licence in licences.values()}
    rows = sum(found.rows.values())
    configs: list[dict[str, Any]] = [
        {
            "config_name": layout,
            "data_files": [{"split": split, "path": f"{layout}/{split}-*.parquet"} for split in found.rows],
        }
        for layout in LAYOUTS
    ]
    configs[0]["default"] = True
    one = next(iter(known)) if len(known) == 1 else "other"
    more: dict[str, Any] = {} if one != "other" else {"license_name": "by-source", "license_link": "README.md"}
    data = DatasetCardData(
        pretty_name=title,
        language=sorted({cell.language for cell in found.cells}),
        license=one,
        task_categories=["question-answering", "text-generation"],
        tags=["finance", "reasoning", "distillation", "chain-of-thought", "finr1"],
        size_categories=size_category(rows),
        configs=configs,
        **more,
    )
    return str(data.to_yaml())


def size_category(rows: int) -> str:
    """The hub's name for a number of rows."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if rows < bound), "1M<n<10M")


def licences_of(settings: ExportSettings, manifests: Manifests, found: Exported) -> dict[str, str]:
    """The licence of each source that a question came from; `unknown` where nobody said."""
    said = {**manifests["questions"]["counts"].get("licences", {}), **settings.licences}
    names = dict.fromkeys([*said, *(cell.source for cell in found.cells)])
    return {name: said.get(name) or UNKNOWN for name in names}


def cell_text(value: object) -> str:
    """A value inside a Markdown table: one line, without a bar that would end the cell; a dash for None."""
    if value is None:
        return "–"
    text = f"{value:,}" if isinstance(value, int) else " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def table(names: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[int] = ()) -> str:
    """A Markdown table; `right` are the columns of figures."""
    figures = set(right)
    rule = ["---:" if i in figures else "---" for i in range(len(names))]
    lines = [names, rule, *([cell_text(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


_DISTRIBUTION = ("source", "module", "language", "read", "asked", "traces", "good", "bad", "undecided", "out")
_FIGURES = _DISTRIBUTION[3:]


def distribution(manifests: Manifests, found: Exported) -> list[list[object]]:
    """Fin-R1's table: a row a source, module and language, then all together."""
    rows: dict[tuple[str, ...], Counter[str]] = {}
    for row in manifests["questions"]["counts"].get("distribution", ()):
        key = (row["source"], row["module"], row["language"])
        rows[key] = Counter({"read": row["read"], "asked": row["kept"]})
    for cell, counts in found.cells.items():
        rows.setdefault(tuple(cell), Counter()).update(counts)
    lines: list[list[object]] = [[*key, *(rows[key][name] for name in _FIGURES)] for key in sorted(rows)]
    every = sum(rows.values(), Counter())
    return [*lines, ["**all**", "", "", *(every[name] for name in _FIGURES)]]


def _by_source(manifests: Manifests, found: Exported) -> dict[str, Counter[str]]:
    sums: dict[str, Counter[str]] = {}
    for row in distribution(manifests, found)[:-1]:
        figures = dict(zip(_FIGURES, row[3:], strict=True))
        sums.setdefault(str(row[0]), Counter()).update({k: v for k, v in figures.items() if isinstance(v, int)})
    return sums


def _beside_fin_r1(manifests: Manifests, found: Exported) -> list[str]:
    sums = {name: counts for name, counts in _by_source(manifests, found).items() if name in PUBLISHED}
    if not sums:
        return []
    names = ("source", "read here", "good here", "Fin-R1: original", "Fin-R1: kept")
    rows = [(name, counts["read"], counts["good"], *PUBLISHED[name]) for name, counts in sorted(sums.items())]
    return [
        "### Beside Fin-R1's own data\n",
        table(names, rows, right=range(1, 5)),
        "Fin-R1's figures: arXiv 2503.16252 v5, Tables 3 and 4. They count all splits of a source; here its test split "
        "is held out, and *good* counts traces, of which a question may have several.\n",
    ]


def _what(found: Exported, manifests: Manifests) -> str:
    sources = len({cell.source for cell in found.cells})
    splits = ", ".join(f"{rows:,} rows in `{split}`" for split, rows in found.rows.items())
    every = sum((Counter(counts) for counts in found.cells.values()), Counter())
    return (
        f"Financial questions of {_number(sources, 'source')} with the reasoning and the answer of a teacher "
        f"({', '.join(map(cell_text, found.teachers)) or 'none'}), judged by the recipe of Fin-R1 (arXiv 2503.16252) "
        f"and written by finr1 {manifests['filter'].get('versions', {}).get('finr1', '')}: {splits}; of "
        f"{every['traces']:,} traces {every['good']:,} were good, {every['bad']:,} bad and {every['undecided']:,} "
        "undecided.\n"
    )


def _number(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _loading(found: Exported) -> str:
    lines = [f'load_dataset("<this folder>", "{layout}", split="{next(iter(found.rows))}")' for layout in LAYOUTS]
    return "```python\nfrom datasets import load_dataset\n\n" + "\n".join(lines) + "\n```\n"


def _removed(manifest: Mapping[str, Any]) -> str:
    counts = manifest["counts"]
    removed = [(_REASONS.get(name, name), n) for name, n in sorted(counts.get("removed", {}).items())]
    if counts.get("not_chosen"):
        removed.append(("not chosen (`questions.limit_per_source`)", counts["not_chosen"]))
    checked = counts.get("checked")
    if checked is None:
        words = "**These rows were not checked against any benchmark** (`questions.decontaminate=false`).\n"
    elif checked:
        held = ", ".join(f"{cell_text(name)} ({n:,} held-out questions)" for name, n in checked.items())
        words = f"Every row was checked against {held}, in prompt and gold, by text and by document.\n"
    else:
        words = "The run named no benchmark: only documents that a source itself holds out were taken out.\n"
    rows = table(("reason", "rows"), removed, right=[1]) if removed else "Nothing was taken out.\n"
    where = "`1_questions/removed.jsonl` of the run has each of them, but those not chosen, with its partner"
    return f"{rows}\n{words}{where}.\n"


_REASONS = {
    "duplicate": "the same wording and choices as a row that was kept",
    "near_duplicate": "almost the wording of a row that was kept",
    "contradictory_gold": "equally worded rows with different golds",
    "in_benchmark": "a benchmark asks it too",
    "benchmark_document": "its document is held out by a benchmark",
    "held_out_document": "its document is held out by a source",
    "benchmark_overlap": "shares a run of words with a benchmark's row",
    "asks_nothing": "a row that asks nothing",
    "unreadable": "a row that its source could not read",
    "doubtful_gold": "executed answer, annotated answer and program disagree",
}


def _teacher(manifest: Mapping[str, Any], found: Exported) -> str:
    settings = manifest.get("settings", {})
    distil, engine = settings.get("distil") or {}, settings.get("engine.teacher") or {}
    counts = manifest["counts"]
    facts = {
        "teacher": ", ".join(f"{name} ({n:,} traces)" for name, n in found.teachers.items()),
        "engine": str(engine.get("_target_", "")).rpartition(".")[2],
        "forced beginning": f"the think tag and a line break ({engine['lead_in']})"
        if engine.get("lead_in")
        else "none",
        "system prompt": (settings.get("prompt") or {}).get("teacher_system") or "none",
        "boxed instruction": "in the question's language" if distil.get("boxed") else "none",
        **{name.replace("_", " "): value for name, value in (distil.get("sampling") or {}).items()},
        "failed calls": counts.get("failed"),
        "cut by the length limit": counts.get("truncated"),
        "completion tokens": counts.get("tokens") or None,
    }
    return table(("", ""), facts.items())


def _judges(manifest: Mapping[str, Any], found: Exported) -> str:
    settings = manifest.get("settings", {})
    judges, rules = settings.get("judge") or {}, settings.get("filter") or {}
    rows = [
        (kind, name, str(node.get("_target_", "")).rpartition(".")[2], decided[name])
        for kind, decided in (("answer", found.answer_judges), ("reasoning", found.reasoning_judges))
        for name, node in (judges.get(kind) or {}).items()
        if kind == "answer" or rules.get("reasoning", True)
    ]
    for name in ("nobody could tell", "not judged"):
        rows += [("answer", name, "", found.answer_judges[name])] if found.answer_judges[name] else []
    model = (settings.get("engine.judge") or {}).get("model")
    model_words = f"The judges' model is {cell_text(model)}. " if isinstance(model, str) else ""
    needed = rules.get("criteria_needed", 7)
    held = "all seven criteria hold" if needed == 7 else f"{needed} of the seven criteria hold"
    criteria = f"and {held}." if rules.get("reasoning", True) else "(its reasoning was not judged)."
    scale = (
        "11.8 counts as 11.8% and 0.118" if rules.get("scale_tolerant", True) else "scale and unit must be the gold's"
    )
    reasons = table(("why not good", "traces"), sorted(found.reasons.items()), right=[1]) if found.reasons else ""
    head = table(("judges", "name", "class", "traces it judged"), rows, right=[3])
    words = f"{model_words}A trace is good when its answer is right {criteria}"
    return f"{head}\n{words} Answers: {scale}; `verdicts` of each row has both.\n\n{reasons}"


def _prompts(manifests: Manifests, found: Exported) -> str:
    distil = manifests["distil"].get("settings", {})
    names: list[tuple[str, object]] = sorted(found.wordings.items())
    system = (distil.get("prompt") or {}).get("teacher_system")
    names += [(system, "system prompt")] if system else []
    languages = sorted({cell.language for cell in found.cells})
    if (distil.get("distil") or {}).get("boxed"):
        names += [(f"boxed_{language}.v1", "boxed instruction") for language in languages]
    rows = [(name, text_hash(name), use) for name, use in names]
    words = (
        "Texts of `finr1/prompt`; a text is never changed, a new one gets a higher version. `prompt_hash` of a row is "
    )
    head = table(("text", "hash", "questions"), rows)
    return f"{head}\n{words}that of the whole chat that the teacher was asked with.\n"


def _columns() -> list[str]:
    lines = [table(("layout", "columns"), [(name, ", ".join(layout.columns)) for name, layout in LAYOUTS.items()])]
    used = dict.fromkeys(column for layout in LAYOUTS.values() for column in layout.columns)
    return [*lines, table(("column", "what"), [(name, COLUMNS[name]) for name in used])]


def _made(manifests: Manifests) -> str:
    rows = [
        (name, manifest.get("fingerprint"), manifest.get("code"), manifest.get("versions", {}).get("finr1"))
        for name, manifest in manifests.items()
    ]
    settings = {name: without_places(manifest.get("settings", {})) for name, manifest in manifests.items()}
    text = json.dumps(settings, ensure_ascii=False, indent=1).replace("```", "` ` `")
    return (
        f"{table(('stage', 'fingerprint', 'its code', 'finr1'), rows)}\n"
        "A stage's fingerprint covers its settings, its code and the fingerprints of what it read.\n\n"
        f"<details><summary>Settings</summary>\n\n```json\n{text}\n```\n\n</details>\n"
    )


def without_places(value: Any, key: str = "") -> Any:
    """Settings without folders of the machine: of a `path` only the last part stays, unless it is a hub id."""
    if isinstance(value, Mapping):
        return {str(name): without_places(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    if key == "path" and isinstance(value, str) and not value.startswith(("hub:", "embedded:")):
        return Path(value).name if value.startswith(("/", ".", "~")) or value.count("/") > 1 else value
    return value
