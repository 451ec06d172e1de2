"""Option letters that a text of letters and words of choosing accepts, denies or leaves open.

>>> texts = ("A, B and D are correct, C is not", "all except C", "A is wrong", "A or maybe B", "不选A,选B")
>>> [(*sorted(chosen.letters), chosen.is_hedge) for text in texts if (chosen := chosen_letters(text, "ABCD"))]
[('A', 'B', 'D', False), ('A', 'B', 'D', False), (False,), ('A', 'B', True), ('B', False)]
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

LETTERS = "ABCDEFGH"
LONGEST = 200  # characters; a longer text is no mere choice
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_HAN_DIGITS = "一二三四五六七八"
_WRONG = (
    r"wrong|incorrect|false|impossible|out|excluded|eliminated|not (?:the )?(?:correct|right|true|best|possible)\b"
    r"|错误?|不正确|不对|不成立|不可能(?![是为选])|不符合(?:题意)?|有误|[除以]外|被排除|排除(?=$|[,;.。])"
)
_RIGHT = (
    r"(?:all |both )?(?:the )?(?:correct|right|true|best)(?: (?:answers?|choices?|options?|ones?))?"
    r"|[都均皆全]?(?:部(?:都|是)?)?(?:正确|对|成立|符合(?:题意)?)|[都均皆]可以?"
)
_NOUN = r"(?:options?|answers?|choices?|statements?|ones?|选项|答案|说法)"
# roles, in the order in which they are tried
_ROLES = (
    (
        "retract",  # what was chosen before no longer counts
        rf"\b(?:(?:no,? )?(?:wait|actually|correction|scratch that|on second thoughts?)\b|no,)"
        rf"|更正|改(?:为|成|(?=选))"
        rf"|\b(?:the )?best(?: {_NOUN})? is\b(?! not)|最[佳优好]的?{_NOUN}?[是为]",
    ),
    ("none", r"none(?: of (?:the above|these|them))?\b|以?上?(?:选项|答案|说法)?[都均皆全]不(?:是|对|正确|选)的?"),
    (
        "choose",  # what follows is the answer, also where the question asks for the wrong statement: 不正确的是C
        rf"(?:{_WRONG}|{_RIGHT})的?(?: ?{_NOUN})? ?(?:(?:是|为|有|is|are)\b(?! not)|:)"
        rf"|{_NOUN} ?(?:is|are|:|=|(?:would|should|must) be)(?! not)|[,;而] ?(?:应该?|就)?是|应该?为"
        r"|\bit(?: i|')s\b(?! not)"
        r"|答案 ?(?:应该?)?(?:是|为|选|:)|(?<!不)(?<!不应)(?<!不能)选择?(?!项)|\b(?:choose|select|pick)\b"
        r"|\b(?:so|hence|thus|therefore)\b|因此|所以|故",
    ),
    ("wrong", rf"(?:\b(?:is|are|was|were|be)\b ?|[是为])?(?:{_WRONG}|n't (?:the )?(?:correct|right|true|best)\b)的?"),
    (
        "deny",
        r"\b(?:(?:is|are|was|were|does|do|can|could|would|should|must)(?:n't| not)|can(?:not|'t)|won't|not|never"
        r"|neither|nor)\b(?: be\b)?|不可能是?|不会?是|不应?该?选|不能选|不为|不包?[含括]|并非"
        r"|而?非|而不是|排除|剔除|去掉|除了?"
        r"|\b(?:exclud\w{1,3}|eliminat\w{1,3}|rul(?:ed?|es|ing) out|except(?:ing)?(?: for)?|other than|rather than"
        r"|instead of|without|(?<=all )but|(?<=everything )but|reject\w{0,3})\b",
    ),
    ("right", rf"(?:\b(?:is|are|was|were|是|为) )?(?:{_RIGHT})的?"),
    (
        "all",
        rf"\ball(?: of)?(?: the)?(?: ?(?:above|them|these|others?|rest|two|three|four|five|{_NOUN}))?\b"
        r"|\bevery(?:thing| one| option)?\b|\b(?:the )?(?:others|rest)\b|以上(?:选项|答案|说法)?[都均皆全]?|全部?"
        r"|(?:所有|其余|其他)(?:选项)?",
    ),
    ("or", r"\bor\b|或者?|还是|抑或|要么|\?"),
    (
        "maybe",
        r"\b(?:maybe|perhaps|possibly|probably|likely|alternatively|else|(?:could|may|might)(?: also)? be)\b"
        r"|也?可能是?|也许是?|或许是?|大概",
    ),
    (
        "break",
        r"[.;:。\n]|\bbut\b|但是?"
        r"|\b(?:because|since|(?<!well )as(?! well))\b|因为|由于",
    ),
    (
        "filler",
        rf"\b(?:the|is|are|be|its?|that|i|we|would|should|must|my|final|and|also|both|plus|along with|only|as|well"
        rf"|{_NOUN}"
        rf"|either|above"
        r"|think|thought|at first|first|initially|say|go|with|will|they|just|alone)\b"
        r"|答案|选项|应该?|就?是|为|本题|此题|[两三四五]?[个项者]|题|我|认为"
        r"|只有?|仅|即|和|与|及|原[来先本]?|一?开始|最[初终]|[先后]来?|综上(?:所述)?|总之"
        r"|以及|外|[都均皆也的故了]|[\s,、/&()\[\]*\"'$=<>{}!]",
    ),
)


_IS_WRONG = re.compile(_WRONG, re.IGNORECASE)


class Chosen(NamedTuple):
    """What a text chooses: letters (none where it only denies some), and whether it leaves open which of them."""

    letters: frozenset[str]
    is_hedge: bool


@dataclass
class _Group:
    """Letters that stand together, and what is said of them."""

    letters: set[str] = field(default_factory=set)
    status: str = ""  # right, wrong
    is_hedge: bool = False
    is_open: bool = True


@lru_cache(maxsize=64)
def _pattern(letters: str) -> re.Pattern[str]:
    capital = f"[{re.escape(letters)}]"
    ordinals = "|".join(_ORDINALS[: len(letters)])
    roles = "|".join(f"(?P<{name}>{pattern})" for name, pattern in _ROLES)
    return re.compile(
        rf"(?<![A-Za-z&])(?P<letters>(?-i:{capital}+)(?![A-Za-z'])|(?!a (?!or\b|and\b)){capital}(?![A-Za-z']))"
        rf"|(?P<ordinal>(?:\b(?:{ordinals}|last)|[1-8](?:st|nd|rd|th))(?= {_NOUN}\b)"
        rf"|第[{_HAN_DIGITS}1-8](?=[个项])|最后一(?=[个项])|(?:选项|\b(?:option"
        rf"|choice) ?)[{_HAN_DIGITS}1-8](?![\d.%]))"
        rf"|{roles}",
        re.IGNORECASE,
    )


def chosen_letters(plain: str, letters: str, are_all: bool = True) -> Chosen | None:
    """The letters that a cleaned text chooses; None for a text that holds any other word, or no letter at all.

    Args:
        plain: cleaned text.
        letters: the letters of the options.
        are_all: whether these are the question's options, so that "all" means them.
    """
    if len(plain) > LONGEST:
        return None
    tokens: list[tuple[str, str]] = []
    at = 0
    for match in _pattern(letters).finditer(plain):
        if match.start() != at or match.end() == at:
            return None
        at = match.end()
        tokens.append((match.lastgroup or "", match.group()))
    if at != len(plain):
        return None
    return _read(tokens, letters, are_all)


def _read(tokens: list[tuple[str, str]], letters: str, are_all: bool) -> Chosen | None:
    groups: list[_Group] = []
    pending, names_all, joined_by_or = "", False, False
    for i, (role, token) in enumerate(tokens):
        last = groups[-1] if groups else None
        if role in ("letters", "ordinal"):
            named = set(token.upper()) if role == "letters" else _by_ordinal(token, letters)
            if named is None or (len(named) != len(token) and role == "letters"):
                return None
            if last is None or not (last.is_open or joined_by_or) or pending:
                last = _Group(status=pending)
                groups.append(last)
            last.is_hedge |= joined_by_or and len(groups) + len(last.letters) > 1 and pending != "wrong"
            last.letters |= named
            pending, joined_by_or = "", False
        elif role == "none" and (last is None or not last.is_open):
            return None
        elif role in ("or", "maybe"):
            joined_by_or = last is not None and (last.is_open or role == "or")
        elif role == "choose":
            opposed = _IS_WRONG.match(token) and any(group.status == "right" for group in groups)
            pending = "wrong" if opposed else "right"  # correct: A, C; incorrect: B
        elif role == "deny":
            following = next((role for role, _ in tokens[i + 1 :] if role != "filler"), "")
            if following in ("letters", "ordinal"):
                pending = "wrong"
            elif last is not None:
                last.status, last.is_open = "wrong", False
        elif role in ("right", "wrong", "none"):
            role = "right" if role == "right" else "wrong"
            if last is not None and last.is_open and (not last.status or role == "wrong"):  # 选A不对
                last.status = role
            elif role == "right" and token.casefold().startswith(("all", "both", "都", "均", "皆", "全")):
                names_all |= all(group.status == "wrong" for group in groups)
            if last is not None:
                last.is_open = False
        elif role == "all":
            names_all |= last is None or last.status == "wrong" or not last.is_open
        elif role == "retract":
            groups, pending, joined_by_or = [], "", False
        elif role == "break" and last is not None and (token != ":" or last.status):
            last.is_open = False
    if names_all and not are_all:
        return None
    return _accepted(groups, names_all, letters)


def _accepted(groups: list[_Group], names_all: bool, letters: str) -> Chosen | None:
    denied = {letter for group in groups if group.status == "wrong" for letter in group.letters}
    if names_all:
        return Chosen(frozenset(letters) - denied, False)
    if not groups:
        return None
    said = [group for group in groups if group.status == "right"] or [group for group in groups if not group.status]
    accepted = frozenset(letter for group in said for letter in group.letters)
    if accepted & denied:
        return None
    return Chosen(accepted, any(group.is_hedge for group in said))


def _by_ordinal(token: str, letters: str) -> set[str] | None:
    """The letter of `third`, `第三`, `option 3` or `最后`."""
    token = token.casefold()
    if token in ("last", "最后一"):
        return {letters[-1]}
    at = next((n for n, word in enumerate(_ORDINALS) if token == word), -1)
    digit = next((char for char in token if char in _HAN_DIGITS or char.isdecimal()), "")
    at = at if at >= 0 else _HAN_DIGITS.find(digit) if digit in _HAN_DIGITS else int(digit) - 1
    return {letters[at]} if (digit != "" and at < len(letters)) or 0 <= at < len(letters) else None
