r"""Grade a whole reply: find its answer, grade it by the rules, and tell an abstention from an answer.

What counts as the answer is the *reading*, decided here alone:

- `strict`: the only answer block after the thinking, else nothing. GRPO's reward and the filter read so by default.
- `content`: the answer block; else the last `\boxed{}` of the reply; else what the reply states as its answer ("the
  answer is", 故选, bold text, its last line), for the kind of question asked. Evaluation reads so by default.

    >>> question = Question("finqa", "page 1", "en", "reasoning business", "number", [], gold="12.5%")
    >>> graded = grade_reply("The margin rose from 10% in 2018.\n\n**Answer: 12.5%**", question, "content")
    >>> graded.answer, graded.strict.value
    ('12.5%', 1.0)
    >>> grade_reply("I cannot determine the margin.", question, "content").abstains
    True

An answer that commits to nothing (无法确定, `1+1`, all options at once) is an abstention: no gold could make it right.
All functions take time linear in the reply.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from finr1.answer.boxes import final_answer, read_boxes
from finr1.answer.candidates import candidates
from finr1.answer.choices import letters_named
from finr1.answer.choosing import LETTERS
from finr1.answer.clean import clean
from finr1.answer.grade import HEDGE, grade
from finr1.answer.grade_number import is_number
from finr1.answer.labels import labels_named
from finr1.answer.number import is_only_numbers
from finr1.answer.tags import Parsed, parse, split_thinking
from finr1.answer.yes_no import yes_or_no
from finr1.core.types import Question, Verdict


class GradedReply(NamedTuple):
    """The answer of a reply (None: none) with the rules' verdicts.

    `abstains`: it declines to answer, or names so much that it commits to nothing; its verdicts are None. `evades`: it
    abstains, is a hedge between boxes, or is undecided whatever the gold is. `form`: the completion, split by its tags.
    """

    answer: str | None
    strict: Verdict
    scaled: Verdict
    form: Parsed
    abstains: bool = False
    evades: bool = False


class _Stated(NamedTuple):
    """A text that may be a reply's answer; `clear` where the reply says that it is."""

    text: str
    clear: bool


def grade_reply(
    text: str, question: Question, reading: str, reasoning: str | None = None, truncated: bool = False
) -> GradedReply:
    """Grade a completion; `reasoning` as in `split_thinking`. No answer is wrong, an abstention undecided."""
    form = parse(text, reasoning)
    stated = _stated(form, text, question, reading, reasoning, truncated)
    answer = None if stated is None else final_answer(stated.text) or None
    if stated is None or answer is None:
        return GradedReply(None, *grade(None, question), form)
    strict, scaled = grade(stated.text, question)
    if strict.value != 1 and scaled.value != 1 and (question.gold or "").strip():
        declines = _declines(answer, question)
        is_open = not declines and strict.value is None and _is_open(stated.text, question)
        if declines or (is_open and _names_all(answer, question)):
            abstention = Verdict(None, answer, f"an abstention: {strict.why}")
            return GradedReply(answer, abstention, abstention, form, True, True)
        if is_open or strict.why == HEDGE:
            return GradedReply(answer, strict, scaled, form, False, True)
    if not stated.clear and 0 in (strict.value, scaled.value) and _kind(question) == "number":
        whole = grade(split_thinking(text, reasoning)[1], question)
        strict, scaled = (_unless_said(part, of_whole) for part, of_whole in zip((strict, scaled), whole, strict=True))
    return GradedReply(answer, strict, scaled, form)


def _unless_said(part: Verdict, of_whole: Verdict) -> Verdict:
    """The verdict on a number that the reply does not call its answer; undecided if another may be, and be right."""
    if part.value != 0 or of_whole.value == 0:
        return part
    return part._replace(value=None, why="the reply does not say which number is its answer")


def read_answer(text: str, question: Question, reading: str, truncated: bool = False) -> str | None:
    """The text that is graded as a completion's answer; None without one."""
    stated = _stated(parse(text), text, question, reading, None, truncated)
    return None if stated is None else stated.text


def _stated(
    form: Parsed, text: str, question: Question, reading: str, reasoning: str | None, truncated: bool
) -> _Stated | None:
    block = form.answer
    if reading == "strict" or (block is not None and block.strip()):
        return None if block is None else _Stated(block, True)
    reply = split_thinking(text, reasoning)[1]
    if "<" in reply:
        blocks = [block for block in _BLOCK.findall(reply) if block.strip()]
        if blocks:
            return _Stated("\n".join(blocks), True)
        opened = reply.rpartition("<answer>")[2]
        reply = _TAGS.sub("", opened if opened.strip() else reply)
    reply = reply.strip()
    boxes = read_boxes(reply)
    if boxes is not None and boxes.text:
        return _Stated(reply, True)
    return None if truncated or not reply else next(_statements(reply, question))


_BLOCK = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_TAGS = re.compile(r"</?answer>")


def _statements(reply: str, question: Question) -> Iterator[_Stated]:
    """What a reply without a box may state as its answer, likeliest first."""
    kind = _kind(question)
    lines = [line for line in map(str.strip, reply[-_LONGEST_REPLY:].splitlines()) if line]
    plain = [_MARKS.sub("", line).strip() for line in lines]
    first, last = plain[0], plain[-1]
    joined = "\n".join(plain)
    for mark in reversed(deque(_ANSWER.finditer(joined), _MOST_STATED)):
        stated = joined[mark.end() : mark.end() + _LONGEST_STATED].lstrip(" :：\n").partition("\n")[0]
        reason = _REASON.search(stated, 1)
        if reason and kind not in ("choice", "text") and _says(stated[: reason.start()], question):
            stated = stated[: reason.start()]
        if stated and (_says(stated, question) or _declines(stated, question)):
            yield _Stated(f"{mark.group()} {stated}" if kind == "choice" else stated, True)
    if kind == "text":
        yield _Stated(reply, True)
        return
    bold = [span for line in lines[-_LAST_LINES:] for span in _BOLD.findall(line)]
    short = [*reversed(bold), *([] if _is_listed(plain[:2], question) else [first])]
    yield from (_Stated(text, False) for text in short if _is_bare(text, kind) and _says(text, question))
    ends = [line for line in reversed(plain[-_LAST_LINES:]) if _CONCLUDES.match(line)]
    listed = _is_listed(plain[-2:], question)
    ends += [last] if _is_bare(last, kind) and not listed else []
    ends += [reply] if kind in ("yes_no", "choice") else []
    ends += [] if listed else [last]
    yield from (_Stated(text, False) for text in ends if _says(text, question))
    yield from (_Stated(text, False) for text in (last, first) if _declines(text, question))
    yield _Stated(reply, False)


_LONGEST_REPLY, _LONGEST_STATED = 20_000, 1_000  # characters: from the end; after "the answer is"
_MOST_STATED = 8  # answers that are looked at, from the last
_LAST_LINES = 4
_MARKS = re.compile(r"\*\*|__|^#{1,6}\s|^[-*•>]\s|\$\$")
_BOLD = re.compile(r"\*\*([^*\n]{1,60})\*\*(?!\s*[:：])")
_ANSWER = re.compile(
    r"(?=[arcopls#答选结判情类分标故因所应正])(?:"  # saves trying all of it at every character
    r"(?<![A-Za-z])(?:answer|result|choice|option|prediction|sentiment|label|classification|stance)"
    r"(?:\s(?:to|for|of|in)\s[^.:;\n]{1,80}?)?\s?(?:(?:is|would be|should be|must be)(?![A-Za-z])|[:=：→])(?!\s?not\b)"
    r"|####|^(?:the\s)?(?:final\s)?(?:answer|答案|结论)[.。]?$"
    r"|(?:答案|选项|结果|结论|判断|情感(?:倾向)?|情绪|类别|分类|标签)(?:应该?)?(?:就?是|为|选|[:：])(?!不是)"
    r"|(?:故|因此|所以|应该?|正确)选择?(?:项|的是)?[是为:：]?|(?<![不未])选择?[:：]?(?=\s?[(（]?[A-H](?![A-Za-z])))",
    re.IGNORECASE | re.MULTILINE,
)
_REASON = re.compile(  # what follows an answer: why it is right, or what it is compared with
    r"\s(?:because|since|as|due to|which|compared|up from|down from|versus|vs|and (?:it|this|the))\b"
    r"|,\s(?:up|down|so|but|not|and not)\b"
    r"|因为|由于|，(?!或)|;\s",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"(?:(?:therefore|thus|hence|so|consequently|overall|in (?:conclusion|summary|short)|to sum up)\b"
    r"|因此|所以|综上|总之|由此|可见|故)",
    re.IGNORECASE,
)


def _kind(question: Question) -> str:
    """The kind of answer to look for; text where the whole reply may be the answer."""
    if question.kind == "number" and is_number(question.gold or ""):
        return "number"
    if question.kind == "label" and not question.choices:
        return "text"
    return "text" if question.kind in ("number", "code") else question.kind


def _says(text: str, question: Question) -> bool:
    """Whether a text says anything of the kind that a question asks for."""
    kind = _kind(question)
    if kind == "number":
        return bool(candidates(text)[1])
    if kind == "choice":
        return bool(letters_named(text, "".join(question.choices) or LETTERS, question.choices)[0])
    if kind == "yes_no":
        return yes_or_no(text) is not None
    return kind == "text" or bool(labels_named(text, question.choices)[0])


def _is_bare(text: str, kind: str) -> bool:
    """Whether a line or a bold span is hardly more than an answer: not a heading, a step or a sentence of working."""
    if len(text) > 60 or text.endswith((":", "：")) or _STEP.match(text):
        return False
    return kind != "number" or (is_only_numbers(text) and not _YEAR.fullmatch(text))


_STEP = re.compile(r"step\b|第.{1,3}步|步骤|\d+[.)、]\s", re.IGNORECASE)
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)年?")


def _is_listed(lines: Sequence[str], question: Question) -> bool:
    """Whether two lines list or discuss one option or label after the other."""
    if len(lines) < 2 or _kind(question) not in ("choice", "label"):
        return False
    labels = _kind(question) == "label" and all(len(line) <= 30 and _says(line, question) for line in lines)
    return labels or all(map(_OPTION.match, lines))


_OPTION = re.compile(r"(?:选项|option\s)?\(?[A-H]\s?(?:[.、:：)]|项|选项)", re.IGNORECASE)


def _declines(answer: str, question: Question) -> bool:
    """Whether an answer declines to answer, and says nothing of the kind that is asked for."""
    if not _WORD.search(answer):
        return False
    text, kind = clean(answer[:_LONGEST_REFUSAL]), _kind(question)
    if not (_CANNOT.search(text) or (len(text) <= _LONGEST_VAGUE[kind == "text"] and _VAGUE.search(text))):
        return False
    if kind == "text":
        return len(answer) <= _LONGEST_REFUSAL and not _CANNOT.search(clean(question.gold or ""))
    return not _says(_YEAR.sub(" ", answer) if kind == "number" else answer, question)


_WORD = re.compile(r"[^\W\d_]{2}")
_LONGEST_REFUSAL, _LONGEST_VAGUE = 300, (60, 20)  # characters; the last of free text
_CANNOT = re.compile(
    r"(?=[cundilwa无不难没说信数条资材缺抱对])(?:(?<![A-Za-z])(?:"
    r"(?:can ?not|can['’]t|could not|couldn['’]t|not able to|unable to|do not|don['’]t"
    r"|not possible to|impossible to|no way to)(?: \w+)? (?:know|determine|tell|say|answer|provide|give|assist|help"
    r"|compute|calculate|find|decide|comply|verify|conclude)"
    r"|(?:can ?not|could not|can['’]t) be (?:determined|answered|calculated|computed|decided|concluded|known|verified)"
    r"|(?:not enough|insufficient|no sufficient|lack(?:s|ing)?(?: of)?|without) (?:\w+ )?(?:information|data|context)"
    r"|(?:information|data) (?:is|are) (?:not (?:available|sufficient|provided)|insufficient|missing)"
    r"|no idea|as an ai)(?![A-Za-z])"
    r"|(?:无法|不能|难以|没法|无从)(?:准确|直接|确切|做出|作出)?(?:确定|判断|回答|得出|计算|提供|得知|确认|作答|知道|推断|给出)"
    r"|不知道|不好说|说不准|(?:信息|数据|条件|资料|材料)(?:不足|不够|有限)|缺乏(?:足够|相关|充分)|抱歉|对不起)",
    re.IGNORECASE,
)
_VAGUE = re.compile(
    r"(?=[nuimps不未可也或看视])(?:(?<![A-Za-z])(?:"
    r"not sure|unsure|uncertain|unclear|unknown|undetermined|indeterminate|it depends|maybe|perhaps"
    r"|possibly|not available|not applicable|n/a|sorry)(?![A-Za-z])|不确定|不清楚|未知|可能|也许|或许|看情况|视情况)",
    re.IGNORECASE,
)


def _names_all(answer: str, question: Question) -> bool:
    """Whether an answer names every option or label, or numbers that it does not choose from."""
    kind, letters = _kind(question), "".join(question.choices) or LETTERS
    if kind == "choice":
        return len(letters_named(answer, letters, question.choices)[0]) == len(question.choices)
    if kind == "label":
        return len(labels_named(answer, question.choices)[0]) == len(question.choices)
    return kind == "number"


def _is_open(answer: str, question: Question) -> bool:
    """Whether an answer is undecided whatever the gold is."""
    golds = list(question.choices)
    if question.kind == "number":
        golds = [_NOT_MEANT] if is_number(question.gold or "") else []
    elif question.kind == "yes_no":
        golds = ["yes", "no"]
    return bool(golds) and all(grade(answer, replace(question, gold=gold)).strict.value is None for gold in golds)


_NOT_MEANT = "918273645.546372819"  # a gold that no answer means: a number that commits to anything is wrong
