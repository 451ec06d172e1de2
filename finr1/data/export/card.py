"""The dataset card: `README.md`, whose YAML header the Hub and `datasets` read. Its text is `card.md.jinja`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.core.prompt import text_hash
from finr1.data.export.layouts import COLUMNS, LAYOUTS

if TYPE_CHECKING:
    from huggingface_hub import DatasetCardData

    from finr1.data.export.counts import ExportCounts
    from finr1.settings.export import ExportSettings

Manifests = Mapping[str, Mapping[str, Any]]  # by stage

TEMPLATE = Path(__file__).with_name("card.md.jinja")
FIGURES = ("read", "selected", "traces", "good", "bad", "undecided", "rows")  # columns of the distribution table
PUBLISHED = {  # source -> rows before and after Fin-R1's own filters (arXiv 2503.16252 v5, Tables 3 and 4)
    "finance_qt": ("0.39k", 152),
    "finance_instruct_500k": ("518.19k", 11_300),
    "financeiq": ("7.17k", 2_596),
    "finpee": ("0.35k", 179),
    "ant_finance": ("8.45k", 1_548),
    "fincorpus": ("235.21k", 29_288),
    "finqa": ("8.28k", 2_948),
    "convfinqa": ("14.12k", 7_629),
    "tfns": ("11.93k", 2_451),
    "fincuge": ("66.67k", 2_000),
}


def write_card(
    title: str,
    settings: ExportSettings,
    manifests: Manifests,
    counts: ExportCounts,
    cascades: Mapping[str, Sequence[str]],
) -> str:
    """Render the card; `cascades` are the judges of answers and of reasoning, in the order in which they are asked."""
    from huggingface_hub import DatasetCard

    licences = {
        **dict.fromkeys(cell.source for cell in counts.cells),
        **manifests["questions"]["counts"].get("licences", {}),
        **settings.licences,
    }
    licences = {source: licence or "unknown" for source, licence in licences.items()}
    stage_settings = {name: without_folders(manifest.get("settings", {})) for name, manifest in manifests.items()}
    distribution = distribution_of(manifests, counts)
    per_source: dict[str, Counter[str]] = {}
    for (source, _, _), figures in distribution.items():
        per_source.setdefault(source, Counter()).update(figures)
    judge_nodes = manifests["filter"].get("settings", {}).get("judge") or {}
    judges = {kind: list(judge_nodes.get(kind) or {}) for kind in ("answer", "reasoning")}  # a manifest sorts them
    total = sum(distribution.values(), Counter())
    card = DatasetCard.from_template(
        header(title, licences, counts),
        template_path=str(TEMPLATE),
        title=title,
        manifests={name: {"settings": {}, "versions": {}, **manifest} for name, manifest in manifests.items()},
        counts=counts,
        licences=licences,
        languages=_languages(counts),
        n_sources=len({cell.source for cell in counts.cells}),
        without_rows=[name for name in licences if not per_source.get(name, Counter())["rows"]],
        cascades={kind: sorted(nodes, key=[*cascades[kind], *nodes].index) for kind, nodes in judges.items()},
        total=total,
        figures=list(FIGURES),
        distribution=[
            *([*key, *(figures[name] for name in FIGURES)] for key, figures in sorted(distribution.items())),
            ["**all**", "", "", *(total[name] for name in FIGURES)],
        ],
        published=[
            (source, figures["read"], figures["good"], *PUBLISHED[source])
            for source, figures in sorted(per_source.items())
            if source in PUBLISHED
        ],
        layouts=LAYOUTS,
        columns={name: COLUMNS[name] for layout in LAYOUTS.values() for name in layout.columns},
        settings_json=json.dumps(stage_settings, ensure_ascii=False, indent=1).replace("```", "` ` `"),
        cell=cell_text,
        table=table,
        text_hash=text_hash,
        class_name=lambda node: str(node.get("_target_", "")).rpartition(".")[2],
    )
    return str(card)


def header(title: str, licences: Mapping[str, str], counts: ExportCounts) -> DatasetCardData:
    """The YAML header: licence, languages, size, and the files of each split of each layout."""
    from huggingface_hub import DatasetCardData

    distinct = {licence.lower() for licence in licences.values()}
    mixed: dict[str, Any] = {} if len(distinct) == 1 else {"license_name": "by-source", "license_link": "README.md"}
    configs = [
        {
            "config_name": layout,
            "data_files": [{"split": split, "path": f"{layout}/{split}-*.parquet"} for split in counts.rows],
            **({"default": True} if layout == next(iter(LAYOUTS)) else {}),
        }
        for layout in (LAYOUTS if counts.rows else ())
    ]
    return DatasetCardData(
        pretty_name=title,
        language=_languages(counts),
        license="other" if mixed else distinct.pop(),
        task_categories=["question-answering", "text-generation"],
        tags=["finance", "reasoning", "distillation", "chain-of-thought", "finr1"],
        size_categories=size_category(sum(counts.rows.values())),
        configs=configs or None,
        **mixed,
    )


def _languages(counts: ExportCounts) -> list[str]:
    return sorted({cell.language for cell in counts.cells})


def size_category(rows: int) -> str:
    """The Hub's name for a number of rows."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if rows < bound), "1M<n<10M")


def distribution_of(manifests: Manifests, counts: ExportCounts) -> dict[tuple[str, ...], Counter[str]]:
    """(source, module, language) -> `FIGURES`: one row per cell of Fin-R1's distribution table."""
    figures: dict[tuple[str, ...], Counter[str]] = {}
    for row in manifests["questions"]["counts"].get("distribution", ()):
        key = (row["source"], row["module"], row["language"])
        figures[key] = Counter({"read": row["read"], "selected": row["kept"]})
    for cell, outcomes in counts.cells.items():
        figures.setdefault(tuple(cell), Counter()).update(outcomes)
    return figures


def cell_text(value: object) -> str:
    """A value as the text of a Markdown table cell: one line, markup escaped, a dash for None."""
    if value is None:
        return "–"
    text = f"{value:,}" if type(value) is int else " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], right_aligned: Iterable[str] = ()) -> str:
    """A Markdown table."""
    rule = ["---:" if name in right_aligned else "---" for name in columns]
    lines = [columns, rule, *([cell_text(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def without_folders(value: Any, key: str = "") -> Any:
    """Settings without this machine's folders: a `path` keeps its last part only, unless it is a hub id."""
    if isinstance(value, Mapping):
        return {str(name): without_folders(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    if key == "path" and isinstance(value, str) and not value.startswith(("hub:", "embedded:")):
        return Path(value).name if value.startswith(("/", ".", "~")) or value.count("/") > 1 else value
    return value
