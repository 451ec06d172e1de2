"""FinCUGE, nine Chinese NLP tasks: `FinCUGE_Publish/<task>/{train,eval,problem}_list.json`, or its instruction version.

Upstream: GitHub ssymmetry/BBT-FinCUGE-Applications (no licence given); rows are lists whose fields depend on the
task, `problem_list` rows are `{"id", "input"}` without gold: distilled, never scored. The instruction version (hub
Maciel/FinCUGE-Instruction, from GitHub Macielyoung/FinCUGE_Instruction), which Fin-R1 used, has columns `instruction`,
`input`, `output`, `task`. `eval` is held out. Prompts: per task one of the instruction version's, with its possible
answers spelt out; FinNE (news emotion), which that version lacks, has our own prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from finr1.answer.clean import clean
from finr1.answer.labels import labels_named
from finr1.core.errors import ConfigError, RowError
from finr1.core.types import Kind, Question, Split, stable_id
from finr1.parts.source.files import FileSource
from finr1.parts.source.reading import DataFile, SourceRow, find, text_of
from finr1.parts.source.rules import Rule

NONE = "无"
EMOTION = {"0": "消极", "1": "中性", "2": "积极"}
NEWS_EMOTION = {"0.0": "消极", "0.5": "中性", "1.0": "积极"}
_TOPICS = "公司 行业 大盘 中国 外国 国际 经济 政策 政治 期货 债券 房地产 外汇 虚拟货币 新冠 能源 其它"
TOPICS = {name: name for name in _TOPICS.split()}
_BOTH_WAYS = "拥有 持股 减持 分析 收购 增持 发行 拟收购 注资 入股 成立 买资 帮助 转让 借壳 欠款"
_RELATIONS = [*_BOTH_WAYS.split(), *(f"被{name}" for name in _BOTH_WAYS.split())]

_RELATIONS += ["合作", "自己", "竞争", "重组", "合并", "签约", "订单", "交易", "纠纷", "合资", "商讨"]

RELATIONS = {**{name: name for name in _RELATIONS}, "unknown": "没有关系"}


# fields of a task's rows, in order; each fills the placeholder of its name in the prompt
FIELDS: Mapping[str, Sequence[str]] = {
    "fincqa": ("text", "gold"),
    "finqa": ("text", "gold"),
    "finese": ("id", "text", "event", "gold"),
    "finfe": ("text", "gold"),
    "finna": ("gold", "text"),
    "finne": ("text", "gold"),
    "finnl": ("text", "gold"),
    "finnsp": ("id", "title", "text", "entities", "flag", "gold"),
    "finre": ("head", "tail", "gold", "text"),
}


# the fields of `problem_list` rows
PROBLEM_FIELDS = {
    "finese": ("text", "event"),
    "finnsp": ("title", "text", "entities"),
    "finre": ("head", "tail", "text"),
}
LABELS = {"finfe": EMOTION, "finne": NEWS_EMOTION, "finnl": TOPICS, "finre": RELATIONS}
INSTRUCTION = ("**/*.csv", "**/*.jsonl", "**/*.parquet")


class _Item(NamedTuple):
    """One row: the prompt's fields, kind, gold and choices; and the question at the start of its text, if one is."""

    places: Mapping[str, str]
    kind: Kind
    gold: str | None
    choices: Mapping[str, str]
    question: str = ""


class FinCUGE(FileSource):
    """Labels (one or several), and free text for fincqa, finqa, finese and finna.

    `layout` is `lists` or `instruction`; `tasks` restricts the list layout to some of the nine. Rows of finese without
    an event (`其他`), which the instruction version drops too, and rows of finnsp without an entity are set aside:
    there is nothing to answer.
    """

    NAME, WORDING, ROW = "fincuge", "fincuge_{task}.v1", object
    ASKED = ("question", "event", "head", "tail", "entities")
    FILES = (
        ("train", "FinCUGE_Publish/*/train_list.json"),
        ("train", "FinCUGE_Publish/*/problem_list.json"),
        ("test", "FinCUGE_Publish/*/eval_list.json"),
    )
    RULES = ({"language": "zh", "module": "non-reasoning business", "domain": "金融文本理解"},)

    def __init__(
        self,
        path: str,
        wording: str = "",
        rules: Sequence[Rule] | None = None,
        layout: str = "lists",
        tasks: Sequence[str] | None = None,
        name: str = "",
        licence: str = "",
    ) -> None:
        super().__init__(path, wording, rules, name=name, licence=licence)
        if layout not in ("lists", "instruction"):
            raise ConfigError(f"source.{self.name}.layout", layout, "no such layout", "use lists or instruction")
        for task in tasks or ():
            if task not in FIELDS:
                raise ConfigError(f"source.{self.name}.tasks", task, "no such task", f"use some of {', '.join(FIELDS)}")
        self.layout, self.tasks = layout, tuple(FIELDS if tasks is None else tasks)

    def files(self) -> Iterator[tuple[Split, DataFile]]:
        if self.layout == "lists":
            yield from ((split, file) for split, file in super().files() if file.at.split("/")[-2] in self.tasks)
            return
        for file in find(self.path, INSTRUCTION):
            yield ("test" if "eval" in file.name else "train"), file

    def questions(self, row: SourceRow, split: Split, file: DataFile) -> Iterator[Question]:
        if self.layout == "instruction":
            task, item = str(row.values.get("task", "")).lower(), _instruction_row(row)
        else:
            task = file.at.split("/")[-2]
            item = _list_row(row, task)
        wording = self.wording.replace("{task}", "instruction" if self.layout == "instruction" else task)
        tags = self.rules.tags({**item.places, "task": task})
        yield self.question(
            row,
            split,
            document=f"fincuge/{stable_id(item.places['text'])}",
            gold=item.gold,
            kind=item.kind,
            tags=tags if tags.wording else tags._replace(wording=wording),
            places={**item.places, "text": item.places["text"][len(item.question) :], "question": item.question},
            within={"text": "{question}{text}"},
            choices=item.choices,
            meta={"task": task},
        )


def _list_row(row: SourceRow, task: str) -> _Item:
    """Read a row of a `train_list`, `eval_list` or `problem_list` file."""
    if isinstance(row.values, dict):
        given = row.values.get("input")
        names: Sequence[str] = PROBLEM_FIELDS.get(task, ("text",))
        values = list(given) if isinstance(given, list) else [given]
        if task == "finnsp" and len(values) == 2:
            values = ["", *values]
    else:
        names, values = FIELDS[task], row.values
    if not isinstance(values, list) or len(values) != len(names):
        raise RowError(row.place, f"not the {len(names)} fields {', '.join(names)} of {task}")
    fields = {name: _text_of_value(row, name, value) for name, value in zip(names, values, strict=True)}
    if not fields["text"]:
        raise RowError(row.place, "an empty text")
    if fields.get("event") == "其他" or fields.get("entities") == "":
        missing = "event" if "event" in fields else "entity"
        raise RowError(row.place, f"no {missing}, so there is nothing to answer", reason="asks_nothing")
    gold, choices = fields.pop("gold", None), dict(LABELS.get(task, {}))
    if task == "finnsp":
        gold = gold or NONE if "flag" in fields else None
        names_of = [*clean(fields["entities"]).split(";"), *clean(gold or "").split(";"), NONE]
        choices = {name: name for name in dict.fromkeys(filter(None, (name.strip() for name in names_of)))}
        gold = gold and ";".join(name.strip() for name in clean(gold).split(";"))
    if gold is not None and choices:
        unknown = [name for name in gold.replace(";", " ").split(" ") if name not in choices]
        if task != "finnsp" and (unknown or not gold):
            raise RowError(row.place, f"label {gold!r}", f"labels are {', '.join(choices)}")
    if gold == "":
        raise RowError(row.place, "an empty answer")
    question = _question_first(fields["text"]) if task in ("fincqa", "finqa") else ""
    return _Item(fields, "label" if choices else "text", gold, choices, question)


def _question_first(text: str) -> str:
    """The question that a text begins with, if it has one."""
    head, mark, _ = text.partition("？")
    return head + mark if mark else ""


def _text_of_value(row: SourceRow, name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise RowError(row.place, f"{name} is {value!r:.60}, not text")
    return str(value).strip()


def _instruction_row(row: SourceRow) -> _Item:
    """Read a row of the instruction version; if its answer is a sentence with one label, the gold is that label."""
    if not isinstance(row.values, dict):
        raise RowError(row.place, "not an object")
    instruction, output = text_of(row, "instruction"), text_of(row, "output")
    text = str(row.values.get("input") or "").strip()
    choices = {"finfe": EMOTION, "finre": RELATIONS}.get(str(row.values.get("task", "")).lower(), {})
    labels, _ = labels_named(output, choices)
    if len(labels) != 1:
        choices = {}
    whole = "\n".join(filter(None, (instruction, text)))
    if not whole or not output:
        raise RowError(row.place, "no instruction or no output")
    gold = next(iter(labels)) if choices else output
    question = f"{instruction}\n" if text else _question_first(whole)
    return _Item({"text": whole}, "label" if choices else "text", gold, choices, question)
