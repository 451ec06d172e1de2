"""Record finished runs: configuration, metrics, scores, curves and, with --picture, an image of the report page.

    python experiments/quickstart/record.py runs/quickstart [runs/<name> ...] [--to FOLDER] [--picture]

Writes <name>/{config.yaml, metrics.jsonl, summary.json, curves.svg} next to this file (or into FOLDER) and prints each
run's scores, paired tests, accuracy by template, seconds and memory as Markdown. Of absolute paths only the last part
is kept. --picture adds report.png, the top of the report page as a headless Chromium shows it (`apt-get install
chromium`).
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from markupsafe import escape

from finr1.core.errors import DataError, Finr1Error
from finr1.core.files import read_json, write_atomic, write_json
from finr1.core.jsonl import read_jsonl, write_jsonl
from finr1.evaluation.report import charts, page
from finr1.parts.engine.worked.trace import SENTENCES
from finr1.run.stages import STAGES

CURVES = (
    ("sft", "loss"),
    *(("grpo", name) for name in ("reward", "accuracy", "format", "entropy", "mismatch", "grad_norm")),
)
FIGURES = {"accuracy_strict": "accuracy (strict)", "format": "well-formed"}
COLUMNS, GAP, TITLE = 2, 16, 18  # charts per row; pixels between charts, and for the title above each
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PICTURE = (1280, 1060)  # pixels: the findings and the first score table
STYLE = """text { font: 11px sans-serif; fill: #555; } .title { font-weight: bold; fill: #111; }
polyline { fill: none; } .raw { stroke: #a9c4e4; } .bold { stroke: #1f5fa8; stroke-width: 2; }
.grid { stroke: #ddd; } .dot { fill: #1f5fa8; }"""
AT_ONCE = [text[name].split("{")[0] for text in SENTENCES.values() for name in ("plan_one", "combine")]
_ABSOLUTE = re.compile(r"(?<![\w./:<~])~?/(?:[\w.+@-]+/)*([\w.+@-]+)/?")


def without_places(value: Any) -> Any:
    """Replace every absolute path in the texts of a value by `<path>/<last part>`."""
    if isinstance(value, str):
        return _ABSOLUTE.sub(r"<path>/\1", value)
    if isinstance(value, Mapping):
        return {key: without_places(item) for key, item in value.items()}
    return [without_places(item) for item in value] if isinstance(value, list) else value


def record(run: Path, folder: Path) -> dict[str, Any]:
    """Write the four files of one run; returns its summary. DataError if the run has no report or config."""
    summary: dict[str, Any] = without_places(read_json(run / STAGES["report"].folder / "summary.json"))
    if not (run / "config.yaml").is_file():
        raise DataError(run / "config.yaml", "no such file", "give the folder of a run")
    config = without_places(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")))
    began = {name: read_json(run / STAGES[name].folder / "manifest.json")["began"] for name in summary["stages"]}
    rows = read_jsonl(run / "metrics.jsonl")
    write_atomic(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    # The metrics mirror also holds earlier attempts with other settings.
    write_jsonl(folder / "metrics.jsonl", (row for row in rows if row["time"] >= began.get(row["stage"], math.inf)))
    write_json(folder / "summary.json", summary)
    write_atomic(folder / "curves.svg", curves(summary["training"]))
    return summary


def picture(page_file: Path, image: Path) -> None:
    """Save the top of an HTML page as PNG, `PICTURE` pixels in size. DataError where no Chromium is installed."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise DataError(
            image, "no Chromium to make the picture with", "run apt-get install chromium, or omit --picture"
        )
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        size = f"--window-size={PICTURE[0]},{PICTURE[1]}"
        target = [f"--screenshot={image.resolve()}", f"--user-data-dir={profile}", size, page_file.resolve().as_uri()]
        done = subprocess.run([browser, *flags, *target], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode or not image.is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(image, f"Chromium failed: {last}", "open the page in a browser instead")


def curves(training: Mapping[str, Any]) -> str:
    """The report's charts of SFT and GRPO as one SVG document."""
    found = [(stage, name, training[stage][name]) for stage, name in CURVES if name in training.get(stage, {})]
    width, height = charts.WIDTH + GAP, charts.HEIGHT + TITLE + GAP
    parts = []
    for number, (stage, name, metric) in enumerate(found):
        chart = charts.line(name, metric["curve"], name in page.SHARES)
        if not (inside := re.fullmatch(r'<svg[^>]*>(.*)<g class="hover".*</svg>', chart)):
            continue  # nothing was logged
        row, column = divmod(number, COLUMNS)
        title = f"{stage.upper()} {name.replace('_', ' ')}: {charts.number(metric['last'])} final"
        parts.append(
            f'<g transform="translate({GAP + column * width},{GAP + row * height})">'
            f'<text class="title" x="0" y="{TITLE - 6}">{escape(title)}</text>'
            f'<g transform="translate(0,{TITLE})">{inside[1]}</g></g>\n'
        )
    size = f"{GAP + COLUMNS * width} {GAP + -(-len(found) // COLUMNS) * height}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}"><style>{STYLE}</style>\n'
    return f'{head}<rect width="100%" height="100%" fill="#fff"/>\n{"".join(parts)}</svg>\n'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def markdown(summary: Mapping[str, Any]) -> str:
    """Scores with their intervals, paired tests, seconds and memory of one run."""
    lines = [f"## {summary['name']}, seed {summary['settings'].get('seed', '–')}", ""]
    for name, benchmark in summary["benchmarks"].items():
        scores = benchmark["scores"]
        cells = dict.fromkeys((mode, figure) for modes in scores.values() for mode in modes for figure in FIGURES)
        head = [name, *(f"{mode}, {FIGURES[figure]}" for mode, figure in cells)]
        rows = [[model, *(share(modes.get(mode), figure) for mode, figure in cells)] for model, modes in scores.items()]
        lines += [*table(head, rows), ""]
        tests = [
            [pair.replace("_vs_", " vs "), f"{mode}, {FIGURES[figure]}", *difference(test)]
            for pair, modes in benchmark["paired"].items()
            for mode, strict in modes.items()
            for figure, test in (("accuracy_strict", strict), ("format", (strict or {}).get("format")))
        ]
        lines += [*table(("paired test", "figure", "points", "CI", "p", "n"), tests), ""]
    seconds, memory = summary["stages"], summary.get("memory_gib", {})
    costs = [[stage, f"{seconds[stage]:,.0f}", page.gib(memory.get(stage)) or "–"] for stage in seconds]
    costs.append(["total", f"{sum(seconds.values()):,.0f}", page.gib(max(memory.values(), default=None)) or "–"])
    return "\n".join([*lines, *table(("stage", "seconds", "peak memory"), costs)])


def by_template(run: Path) -> str:
    """Share of each model's samples written step by step, and strict accuracy of the samples by template."""
    folder = run / STAGES["evaluate"].folder / "worked"
    template_of = {row["id"]: row["meta"]["template"] for row in read_jsonl(folder / "questions.jsonl")}
    names = sorted(set(template_of.values()))
    lines = []
    for model in dict.fromkeys(row["model"] for row in read_json(folder.parent / "scores.json")):
        stepwise, right = [], defaultdict(list)
        for row in read_jsonl(folder / f"{model}.sampled.jsonl"):
            stepwise.append(not any(phrase in row["text"] for phrase in AT_ONCE))
            right[template_of[row["question_id"]]].append(row["strict"] == 1)
        means = [sum(values) / len(values) for values in (stepwise, *(right[name] for name in names))]
        lines.append([model, *(f"{mean:.2f}" for mean in means)])
    return "\n".join(table(("sampled", "step by step", *(f"`{name}`" for name in names)), lines))


def share(cells: Mapping[str, Any] | None, figure: str) -> str:
    """Format a figure with its interval, `0.445 [0.386, 0.507]`; a dash where nothing was decided."""
    if cells is None or cells[figure] is None:
        return "–"
    interval = cells["intervals"][figure]
    return f"{cells[figure]:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def difference(test: Mapping[str, Any] | None) -> list[str]:
    """Format difference in points, interval, p and number of questions of a paired test; dashes without a test."""
    if test is None:
        return ["–"] * 4
    interval = f"[{page.points(test['low'])}, {page.points(test['high'])}]"
    return [page.points(test["diff"]), interval, page.p_value(test["p"]), str(test["n"])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Record the given runs; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a finished run's folder")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent, help="folder for the records")
    parser.add_argument("--picture", action="store_true", help="add report.png, a screenshot of the report page")
    options = parser.parse_args(arguments)
    names = [run.resolve().name for run in options.runs]
    if len(set(names)) < len(names):
        parser.error("two runs have the same name: the second record would overwrite the first")
    try:
        for run, name in zip(options.runs, names, strict=True):
            print(markdown(record(run, options.to / name)), end="\n\n")
            if (run / STAGES["evaluate"].folder / "worked" / "sft.sampled.jsonl").is_file():
                print(by_template(run), end="\n\n")
            if options.picture:
                picture(run / STAGES["report"].folder / "report.html", options.to / name / "report.png")
    except Finr1Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
