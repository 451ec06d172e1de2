"""Ant_Finance, the Ant part of Fin-Eva 1.0: `Ant/<ability>/<task>.csv`, 33 tasks, Chinese.

Upstream: GitHub alipay/financial_evaluation_dataset (CC BY 4.0), columns `id`, [`context`,] `question`, [`A` … `E`,]
`answer`; tasks without options are answered 是 or 否. Upstream shows the gold of 71 rows a task and hides the others':
those are distilled, never scored. There is no split: `test_share` of the documents that show a gold are held out.
Wording of choices: Fin-R1's README; of 是/否, where upstream says nothing of what is asked, ours.
"""

from __future__ import annotations

from collections.abc import Iterator

from finr1.core.errors import RowError
from finr1.core.types import Question, Split, stable_id
from finr1.parts.source.files import FileSource, option_lines
from finr1.parts.source.reading import DataFile, SourceRow

LETTERS = ("A", "B", "C", "D", "E")
YES_NO = ("是", "否")
ASKED = {  # what a task without options asks
    "金融问题识别": "ant_finance_is_financial.v1",
    "金融事实性": "ant_finance_fact.v1",
    "金融合规性": "ant_finance_compliance.v1",
    "信息安全合规": "ant_finance_compliance.v1",
}


class AntFinance(FileSource):
    """Choices and 是/否. Task and ability, for the rules too, are the names of file and folder."""

    NAME, WORDING, COLUMNS = "ant_finance", "ant_finance.v1", ("id", "question", "answer")
    FILES = (("train", "Ant/*/*.csv"), ("train", "data/Ant/*/*.csv"))
    RULES = ({"language": "zh", "module": "professional knowledge", "domain": "金融知识"},)
    TEST_SHARE = 0.5

    def questions(self, row: SourceRow, split: Split, file: DataFile) -> Iterator[Question]:
        fields = {name: text.strip() for name, text in row.values.items()}
        ability, task = file.at.split("/")[-2], file.name.removesuffix(".csv")
        choices = {letter: fields[letter] for letter in LETTERS if fields.get(letter)}
        answer = fields["answer"].upper()
        if answer and answer not in (choices or YES_NO):
            raise RowError(row.place, f"answer {answer!r}", f"answers are {', '.join(choices or YES_NO)}")
        if not fields["question"]:
            raise RowError(row.place, "an empty question")
        if not choices and task not in ASKED:
            raise RowError(row.place, "no options", f"tasks without options are {', '.join(ASKED)}")
        context = fields.get("context", "")
        tags = self.rules.tags({**fields, "ability": ability, "task": task})
        # questions on one text are one document, so that a text stays on one side
        document = f"ant_finance/{task}/{stable_id(context) if context else fields['id']}"
        yield self.question(
            row,
            split,
            document=document,
            gold=answer or None,
            kind="choice" if choices else "yes_no",
            tags=tags if tags.wording or choices else tags._replace(wording=ASKED[task]),
            places={
                "question": "\n".join(filter(None, (context, fields["question"]))),
                "choices": option_lines(choices),
            },
            choices=choices,
            meta={"ability": ability, "task": task},
        )
