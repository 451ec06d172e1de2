"""Which labels an answer names.

>>> labels_named("Outlook: positive", {"0": "Bearish", "1": "Bullish"})[0]
{'1'}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from finr1.answer.choosing import LETTERS, LONGEST, chosen_letters
from finr1.answer.clean import clean

_SYNONYMS = (
    ("positive", "bullish", "optimistic", "favorable", "积极", "正面", "利好", "看多", "看涨", "乐观"),
    ("negative", "bearish", "pessimistic", "unfavorable", "消极", "负面", "利空", "看空", "看跌", "悲观"),
    ("neutral", "中性", "中立"),
)


@lru_cache(maxsize=1024)
def _label_pattern(items: tuple[tuple[str, str], ...]) -> tuple[dict[str, str], re.Pattern[str] | None]:
    names = {
        normal: key for key, meaning in items for normal in (clean(key).casefold(), clean(meaning).casefold()) if normal
    }
    for words in _SYNONYMS:  # a synonym counts where exactly one label has that meaning
        keys = {names[word] for word in words if word in names}
        if len(keys) == 1:
            names |= dict.fromkeys((word for word in words if word not in names), keys.pop())
    if not names:
        return names, None
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return names, re.compile(rf"(?<![a-z\d.])(?:{pattern})(?![a-z\d]|\.\d)")


_ID = re.compile(r"-?\d+(?:\.\d+)?|[a-z]")  # an id that a sentence may hold by chance
_BESIDE_ID = re.compile(  # an answer of these words and ids alone means the ids
    r"\b(?:the|is|it|this|its|of|an?|and|or|either|i|think|so|overall|final|text|tweet|news|tone|stance|answers?|labels?"
    r"|class(?:ification)?|category|sentiment|prediction|output|result|options?|choices?|id)\b"
    r"|答案|标签|类别|分类|情感|情绪|倾向|结果|选项?|预测|判断|属于|我|认为|应该?|[是为第类的和或]|还是|[^\w%$€£¥]"
)
_BEFORE_ID = re.compile(
    r"(?:\b(?:answer|label|class(?:ification)?|category|sentiment|prediction|output|result|option|choice|id)"
    r"|答案|标签|类别|分类|情感|情绪|倾向|结果|选项?|预测)(?:\s?(?:is|as|of|=|:|应?该?是|应?为))?[\s\"'(\[*]*"
)
_AFTER_ID = re.compile(r"\s?(?:$|[,.;:)\]\"'*(\n。-]|(?:because|since|as|due)\b|因)")
_LONGEST_BEFORE = 30
_PERCENT = re.compile(r"\s?%")
_NOUN = re.compile(
    r"\b(?:text|tweet|news|tone|stance|labels?|class(?:ification)?|category|sentiment|prediction|outlook)\b"
    r"|标签|类别|分类|情感|情绪|倾向|预测|判断"
)


def labels_named(text: str, choices: Mapping[str, str]) -> tuple[set[str], str]:
    """The labels in a text, by id, meaning or synonym (longest names first), and the text without them.

    A figure of a sentence is no id (`rose 1%`): an id begins the text, or follows a word like "label", or only such
    words stand beside it.
    """
    names, pattern = _label_pattern(tuple(choices.items()))
    if pattern is None:
        return set(), text
    text = clean(text).casefold()
    rest = pattern.sub(" ", text)
    found = list(pattern.finditer(text))
    if any(map(_ID.fullmatch, (match.group() for match in found))) and _BESIDE_ID.sub("", rest):
        found = [match for match in found if not _ID.fullmatch(match.group()) or _is_id(match, text)]
    return {names[match.group()] for match in found}, rest


def _is_id(match: re.Match[str], text: str) -> bool:
    before = text[max(match.start() - _LONGEST_BEFORE, 0) : match.start()]
    leads = not before.strip(" \"'([*#") or any(m.end() == len(before) for m in _BEFORE_ID.finditer(before))
    return leads and _AFTER_ID.match(text, match.end()) is not None


def labels_chosen(text: str, choices: Mapping[str, str]) -> tuple[set[str], bool] | None:
    """The labels that a text of labels and words of choosing accepts, and whether it leaves open which of them.

    >>> labels_chosen("not bearish but bullish", {"0": "Bearish", "1": "Bullish"})
    ({'1'}, False)
    """
    names, pattern = _label_pattern(tuple(choices.items()))
    if pattern is None or len(choices) > len(LETTERS) or len(text) > LONGEST:
        return None
    letters = dict(zip(choices, LETTERS, strict=False))
    plain = pattern.sub(lambda match: letters[names[match.group()]], _NOUN.sub("answer", clean(text).casefold()))
    chosen = chosen_letters(plain.strip(), LETTERS[: len(choices)])
    return chosen and ({key for key, letter in letters.items() if letter in chosen.letters}, chosen.is_hedge)


def mentions_id(text: str, choices: Mapping[str, str]) -> bool:
    """Whether a figure of a text may be a label's id."""
    _, pattern = _label_pattern(tuple(choices.items()))
    text = clean(text).casefold()
    return pattern is not None and not all(_PERCENT.match(text, m.end()) for m in pattern.finditer(text))
