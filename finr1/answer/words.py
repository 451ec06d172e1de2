"""Words by their role in an answer, in English and Chinese."""

from __future__ import annotations

import re

ANSWER_IS = re.compile(
    r"(?:answer|result|choice)\s?(?:is|:|=|would be|should be|equals)|####"
    r"|(?:答案|结果|結果)\s?(?:应该是|应该为|应是|应为|是|为|為|:)",
    re.IGNORECASE,
)
NEGATION = re.compile(
    r"\b(?:not|neither|nor|no|non|anti|un|never|cannot|hardly|less|anything but|far from|wrong|incorrect"
    r"|except\w*|exclud\w*)\b|n't\b|不(?![过仅但同])|非(?!常)|没|未|無|无|错误|除[了外]|排除"
    r"|难[言说谓称以]|缺[乏少]|谈何|何来",
    re.IGNORECASE,
)


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match of a pattern; None without any."""
    last = None
    for match in pattern.finditer(text):
        last = match
    return last


def any_of(words: str) -> str:
    """A regex for any of the words, separated by spaces: `_` is a space, `*` up to four more letters.

    >>> re.findall(any_of("declin* more_than"), "declines of more than 5")
    ['declines', 'more than']
    """
    return "|".join(re.escape(word).replace("_", r"\s").replace(r"\*", r"\w{0,4}") for word in words.split())
