"""Ant_Finance, the Ant part of Fin-Eva 1.0: `Ant/<ability>/<task>.csv`, 33 tasks, Chinese.

Upstream: GitHub alipay/financial_evaluation_dataset (CC BY 4.0), columns `id`, [`context`,] `question`, [`A` … `E`,]
`answer`; tasks without options are answered 是 or 否. Upstream publishes the gold of 71 rows per task; the others are
distilled but never scored. Upstream has no split: `test_share` of the documents with gold are held out. Prompts: for
choices Fin-R1's README; for 是/否 ours, as upstream does not state the question.
"""

from __future__ import annotations

from collections.abc import Iterator

from finr1.core.errors import RowError
from finr1.core.types import Question, Split, stable_id
from finr1.parts.source.files import FileSource, option_lines
from finr1.parts.source.reading import DataFile, SourceRow

LETTERS = ("A", "B", "C", "D", "E")
YES_NO = ("是", "否")
YES_NO_WORDING = {  # tasks without options
    "金融问题识别": "ant_finance_is_financial.v1",
    "金融事实性": "ant_finance_fact.v1",
    "金融合规性": "ant_finance_compliance.v1",
    "信息安全合规": "ant_finance_compliance.v1",
}


class AntFinance(FileSource):
    """Choices and 是/否. The file name is the task, the folder name the ability; the rules see both."""

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
        if not choices and task not in YES_NO_WORDING:
            raise RowError(row.place, "no options", f"tasks without options are {', '.join(YES_NO_WORDING)}")
        context = fields.get("context", "")
        tags = self.rules.tags({**fields, "ability": ability, "task": task})
        # questions about one text are one document, so that the text stays in one split
        document = f"ant_finance/{task}/{stable_id(context) if context else fields['id']}"
        yield self.question(
            row,
            split,
            document=document,
            gold=answer or None,
            kind="choice" if choices else "yes_no",
            tags=tags if tags.wording or choices else tags._replace(wording=YES_NO_WORDING[task]),
            places={
                "context": context,
                "question": fields["question"],
                "choices": option_lines(choices),
            },
            within={"question": "{context}\n{question}"} if context else {},
            choices=choices,
            meta={"ability": ability, "task": task},
        )
