"""Which option letters or labels an answer gives; and the normal form of free text.

>>> options = {"A": "bonds", "B": "stocks", "C": "cash"}
>>> texts = ("B", "stocks", "The answer is (C).", "故选AC", "C: cash", "not A but B")
>>> [sorted(letters_named(text, "ABC", options)[0]) for text in texts]
[['B'], ['B'], ['C'], ['A', 'C'], ['C'], ['B']]
>>> labels_named("Outlook: positive", {"0": "Bearish", "1": "Bullish"})[0]
{'1'}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from finr1.answer.clean import clean, normal_form
from finr1.answer.number import read_numbers
from finr1.answer.units import Number
from finr1.answer.words import last_match

LETTERS = "ABCDEFGH"
_FLOAT_ERROR = 1e-14  # relative, of floating-point arithmetic


def normalise(text: str) -> str:
    """The text without case, width, white space, punctuation and a leading "the", for comparison.

    >>> normalise("The Profit & Loss  (P.&L.) ")
    'profitandlossp.andl'
    """
    text = normal_form(text).casefold().strip().removeprefix("the ").replace("&", " and ")
    plain = (text.translate(_ASCII_PUNCTUATION) if text.isascii() else _PUNCTUATION.sub("", text)).strip(".")
    return plain[1:] if plain.startswith("-") and plain[1:2].isalpha() else plain


_PUNCTUATION = re.compile(r"[^\w%+\-.√×]|_")
_ASCII_PUNCTUATION = {code: None for code in range(128) if _PUNCTUATION.match(chr(code))}


_Options = tuple[tuple[str, str], ...]  # letter and text


@lru_cache(maxsize=4096)
def _normal_options(options: _Options) -> dict[str, str]:
    return {key: normalise(text) for key, text in options}


@lru_cache(maxsize=4096)
def _option_values(options: _Options) -> dict[str, Number]:
    """The options' numbers; empty unless each is one."""
    numbers = {key: read_numbers(text, most=2) for key, text in options}
    single = {key: values[0] for key, values in numbers.items() if len(values) == 1}
    return single if len(single) == len(options) else {}


class _Patterns(NamedTuple):
    """The patterns for one set of option letters."""

    alone: re.Pattern[str]  # letters only
    lead: re.Pattern[str]  # `C: text` at the start
    enumerated: re.Pattern[str]  # letters that begin an option: `A) … B) …`
    concludes: re.Pattern[str]  # `the answer is`, 故选: the letters that follow count
    sequence: re.Pattern[str]  # `A, B and C`
    other: re.Pattern[str]  # `or B`, after a sequence
    after_option: re.Pattern[str]  # option A, 选项B
    correct: re.Pattern[str]  # `C is correct`
    standing: re.Pattern[str]  # a capital on its own
    run: re.Pattern[str]  # ABD inside Chinese text
    negated: re.Pattern[str]  # not B, 排除B


_BESIDE_LETTERS = re.compile(
    r"[\s,;、/&.()\[\]*\"']|(?<![a-z])(?:and|options?|choices?|answers?)(?![a-z])|和|与|及|选择?|选项?|答案|正确|应该?"
    r"|[故是为:项均都]",
    re.IGNORECASE,
)


@lru_cache(maxsize=64)
def _patterns(letters: str) -> _Patterns:
    capital, one = f"[{re.escape(letters)}]", f"[{re.escape(letters)}{re.escape(letters.lower())}]"
    join = r"(?:\s?(?:,|、|/|&|;|和|与|及|以及)\s?(?:and\s)?|\sand\s|\s)?"
    return _Patterns(
        alone=re.compile(f"{one}+"),
        lead=re.compile(
            rf"(?:[\s:(是为]|选项?|答案|option|answer)*({one})\s?[)\].:、,]\s?(?!\s*{one}\s?(?:$|[)\].:、,]))", re.I
        ),
        enumerated=re.compile(rf"(?<![A-Za-z]){capital}(?=\s?[)\].:、])"),
        concludes=re.compile(
            r"(?:answers?|choice|option)\s?(?:is|are|would be|should be|must be|:|=)"
            r"|(?:答案|选项)\s?(?:应该?)?(?:是|为|选|:)|(?:故|应该?|因此|所以|我|本题|此题|该|正确)选择?(?:项)?(?:是|为|:)?"
            r"|正确的?(?:选项|答案|说法)?(?:是|为)|^选择?|(?:i|would|we|to)\s(?:choose|select|pick)",
            re.IGNORECASE,
        ),
        sequence=re.compile(
            rf"[\s:(\[*\"'$]*(?:(?:option|choice|answer|选项?|the)s?\s?)?[\s:(\[*\"'$]*"
            rf"(?P<letters>{capital}(?:{join}\(?{capital}(?![a-z])\)?)*|{one})(?![A-Za-z'])"
        ),
        other=re.compile(rf"[)\s]{{0,3}}(?:or|或者?)\s?\(?({capital})(?![A-Za-z])"),
        after_option=re.compile(rf"(?:选项?|option|choice)\s?\(?({one})(?![A-Za-z])", re.IGNORECASE),
        correct=re.compile(
            rf"(?<![A-Za-z])({capital})\)?(?:\s(?:is|would be)\s(?:the\s)?(?:correct|right|best)\b"
            r"|项?\s?(?:是|为)?(?:正确|对)(?:的|答案|选项)?)"
        ),
        standing=re.compile(
            rf"(?<![A-Za-z])({capital})(?![A-Za-z'])(\s(?!(?:or|and|is|are|was|because|since|as|with|but)\b)[a-z])?"
        ),
        run=re.compile(rf"(?<![A-Za-z&])({capital}{{2,}})(?![A-Za-z])"),
        negated=re.compile(
            rf"(?:\bnot\b|\bnor\b|\bneither\b|n't\b|不是|不选|并非|排除|除了|除)\s?(?:be\s|an?\s|the\s)?(?:option|choice|选项)?\s?\(?({capital})(?![A-Za-z])",
            re.IGNORECASE,
        ),
    )


def letters_named(text: str, letters: str, choices: Mapping[str, str]) -> tuple[set[str], bool]:
    """The option letters that a text gives as its answer, and whether it merely lists them (`A,B`) or says more.

    The first of these readings that finds letters counts:

    1. nothing but letters: `B`, `A and C`, `ABD`;
    2. the text of one option, or a list of several, or the number that exactly one option is;
    3. letters after the last "the answer is" or 故选;
    4. a leading letter with its text: `C：国家税务总局`;
    5. letters after a word like "option", then before "is correct", then on their own in a sentence.

    A letter beside another option's text gives both: the answer contradicts itself.
    """
    letters = letters or LETTERS
    plain = clean(text).strip().strip("()[]{}<>*.,;:。、\"'$ ")
    patterns, options = _patterns(letters), tuple(choices.items())
    bare = _BESIDE_LETTERS.sub("", plain) if len(plain) < 200 else ""
    if patterns.alone.fullmatch(bare) and (len(bare) == 1 or bare.isupper()) and len(set(bare.upper())) == len(bare):
        return set(bare.upper()), True
    by_content = _by_text(plain, options) | _by_number(plain, options)
    if by_content:
        return by_content, True
    conclusion = last_match(patterns.concludes, plain)
    if conclusion:
        sequence = patterns.sequence.match(plain, conclusion.end())
        if sequence and not _is_article(sequence, plain):
            given = sequence["letters"]
            answer = {letter for letter in given if letter in letters and letter.isupper()} or {given.upper()}
            other = patterns.other.match(plain, sequence.end())
            if other:
                return answer | {other[1]}, False
            return _with_text(answer, plain[sequence.end() :], options), False
    lead = patterns.lead.match(plain)
    if lead and (lead[1].isupper() or lead[0].rstrip().endswith((")", ".", ":"))):
        others = set(patterns.enumerated.findall(plain, lead.end()))
        answer = _with_text({lead[1].upper()}, plain[lead.end() :], options)
        return answer | others, bool(others)
    answer = {letter.upper() for letter in patterns.after_option.findall(plain)} or set(patterns.correct.findall(plain))
    if not answer:  # "A company": an article
        answer = {letter for letter, next_word in patterns.standing.findall(plain) if letter != "A" or not next_word}
    if not answer:
        runs = {run for run in patterns.run.findall(plain) if list(run) == sorted(set(run))}
        answer = set(next(iter(runs))) if len(runs) == 1 else set()
    return answer - set(patterns.negated.findall(plain)), False


def letters_standing(text: str) -> set[str]:
    """The option letters that stand alone in a text, wherever they are."""
    return set(_LETTER.findall(clean(text)))


def _is_article(sequence: re.Match[str], plain: str) -> bool:
    """Whether the "a" after "the answer is" is an article: "a decrease", "A company"."""
    after = plain[sequence.end() : sequence.end() + 9]
    word = re.match(r"\s([a-z]+)", after)
    if sequence["letters"] not in ("a", "A"):
        return sequence["letters"].islower() and word is not None
    return word is not None and word[1] not in _AFTER_LETTER


_AFTER_LETTER = ["is", "are", "because", "since", "as", "and", "or", "with", "which", "for", "but"]


def _by_text(plain: str, options: _Options) -> set[str]:
    """The letters of the options whose texts make up a whole answer."""
    normal = normalise(plain) if len(plain) < 2000 else ""
    if not normal:
        return set()
    normal_options = _normal_options(options)
    same = [key for key, text in normal_options.items() if text == normal]
    if len(same) == 1:
        return set(same)
    texts = {text: key for key, text in normal_options.items() if text}
    parts = [normalise(part) for part in _LIST.split(plain)] if len(plain) < 2000 else []
    if len(parts) > 1 and len(texts) == len(options) and all(part in texts for part in parts):
        return {texts[part] for part in parts}
    return set()


_LIST = re.compile(r"[,;、\n]|\sand\s|和|与|以及")


def _by_number(plain: str, options: _Options) -> set[str]:
    """The letter of the only option that is the answer's only number; the answer must not contain a letter."""
    if len(plain) > 200 or not _DIGIT.search(plain) or _LETTER.search(plain):
        return set()
    values = _option_values(options)
    numbers = read_numbers(plain, cleaned=True, most=2) if values else []
    if len(numbers) != 1:
        return set()
    value = numbers[0].value
    equal = {k for k, option in values.items() if abs(option.value - value) <= _FLOAT_ERROR * abs(option.value)}
    return equal if len(equal) == 1 else set()


_DIGIT = re.compile(r"\d")
_LETTER = re.compile(r"(?<![A-Za-z])[A-H](?![A-Za-z])")


def _with_text(answer: set[str], rest: str, options: _Options) -> set[str]:
    """The letters; with a single one, also the other option whose text follows it, if any."""
    normal = normalise(rest) if len(answer) == 1 and len(rest) < 2000 else ""
    same = {key for key, text in _normal_options(options).items() if text == normal} if len(normal) > 1 else set()
    return answer if not same or same & answer else answer | same


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


def labels_named(text: str, choices: Mapping[str, str]) -> tuple[set[str], str]:
    """The labels in a text, by id, meaning or synonym (longest names first), and the text without them."""
    names, pattern = _label_pattern(tuple(choices.items()))
    if pattern is None:
        return set(), text
    text = clean(text).casefold()
    return {names[match.group()] for match in pattern.finditer(text)}, pattern.sub(" ", text)
