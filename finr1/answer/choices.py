"""Which option letters an answer gives; and the normal form of free text.

>>> options = {"A": "bonds", "B": "stocks", "C": "cash"}
>>> texts = ("B", "stocks", "The answer is (C).", "故选AC", "C: cash", "not A but B")
>>> [sorted(letters_named(text, "ABC", options)[0]) for text in texts]
[['B'], ['B'], ['C'], ['A', 'C'], ['C'], ['B']]
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from finr1.answer.choosing import LETTERS, LONGEST, Chosen, chosen_letters
from finr1.answer.clean import clean, normal_form
from finr1.answer.number import read_numbers
from finr1.answer.units import Number
from finr1.answer.words import last_match
from finr1.answer.yes_no import yes_or_no

# letters and nothing else; letters left open (`A or B`); letters named in a sentence; only letters that it is not
Manner = Literal["list", "hedge", "prose", "denial"]
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
    denied: re.Pattern[str]  # not B, 排除B, B is wrong


_BESIDE_LETTERS = re.compile(
    r"[\s,;、/&.()\[\]*\"']|(?<=[a-h])\+(?=[a-h])|(?<![a-z])(?:and|options?|choices?|answers?)(?![a-z])|和|与"
    r"|及|选择?|选项?|答案|正确|应该?"
    r"|[故是为:项均都]",
    re.IGNORECASE,
)


_CHOOSING = re.compile(  # words without which letters need no `chosen_letters`
    r"\b(?:all|none|everything|or|maybe|perhaps|possibl[ey]|not|cannot|never|neither|nor|except\w*|exclud\w*"
    r"|eliminat\w*"
    r"|rul\w{1,3} out|wrong|incorrect|false|correct|right|true|first|second|third|fourth|last|[1-8](?:st|nd|rd|th)"
    r"|option \d|both|plus|along with|without|because|since|as|no|out"
    r"|only|alone|just|wait|actually|correction|scratch|second thoughts?)\b|n't\b"
    r"|[不非错误对除都均皆全或第改因]|还是|正确|可能|更正|以上|排除|最后|选项[一二三四五六七八\d]|\?",
    re.IGNORECASE,
)


@lru_cache(maxsize=64)
def _patterns(letters: str) -> _Patterns:
    capital, one = f"[{re.escape(letters)}]", f"[{re.escape(letters)}{re.escape(letters.lower())}]"
    join = r"(?:\s?(?:,|、|/|&|;|和|与|及|以及)\s?(?:and\s)?|\sand\s|\s)?"
    return _Patterns(
        alone=re.compile(f"{one}+"),
        lead=re.compile(
            rf"(?:[\s:(是为]|选项?|答案|option|answer)*({one})\s?[()\].:、,](?![A-Za-z]\b)\s?(?!\s*{one}\s?(?:$|[)\].:、,]))",
            re.I,
        ),
        enumerated=re.compile(rf"(?<![A-Za-z]){capital}(?=\s?[)\].:、])"),
        concludes=re.compile(
            r"(?:answers?|choice|option)\s?(?:is|are|would be|should be|must be|:|=)"
            r"|(?:答案|选项)\s?(?:应该?)?(?:是|为|选|:)|(?:故|应该?|因此|所以|我|本题|此题|该"
            r"|正确)选择?(?:项)?(?:是|为|:)?"
            r"|正确的?(?:选项|答案|说法)?(?:是|为)|^选择?|(?:i|would|we|to)\s(?:choose|select|pick)",
            re.IGNORECASE,
        ),
        sequence=re.compile(
            rf"[\s:(\[*\"'$]*(?:(?:option|choice|answer|选项?|the)s?\s?)?[\s:(\[*\"'$]*"
            rf"(?P<letters>{capital}(?:{join}\(?{capital}(?![a-z])\)?)*|{one})(?![A-Za-z']){_NO_NAME}"
        ),
        other=re.compile(
            rf"[)\s,]{{0,4}}(?:or|或者?|还是|maybe|perhaps|possibly)\s?(?:maybe\s|选)?\(?({capital})(?![A-Za-z])"
        ),
        after_option=re.compile(rf"(?:选项?|option|choice)\s?\(?({one})(?![A-Za-z])", re.IGNORECASE),
        correct=re.compile(
            rf"(?<![A-Za-z])((?:{capital}{join}){{0,7}}{capital})\)?"
            r"(?:\s(?:is|are|would be)\s(?:the\s)?(?:correct|right|best)\b"
            r"|项?\s?(?:是|为)?(?:正确|对)(?:的|答案|选项)?)"
        ),
        standing=re.compile(
            rf"{_NOT_IN_NAME}({capital})(?![A-Za-z'\d]){_NO_NAME}"
            r"(\s(?!(?:or|and|is|are|was|because|since|as|with|but)\b)[a-z])?"
        ),
        run=re.compile(rf"(?<![A-Za-z&])({capital}{{2,}})(?![A-Za-z&]){_NO_NAME}"),
        denied=re.compile(
            r"(?:\b(?:not|cannot|never|nor|neither|except|exclude|eliminate|reject|ruled? out|rather than"
            r"|instead of)\b"
            r"|n't\b|不是|不选|不可能是?|不会是|并非|而非|排除|除了|除)"
            rf"\s?(?:be\s|an?\s|the\s)?(?:option|choice|选项)?\s?\(?({capital})(?![A-Za-z])"
            rf"|(?<![A-Za-z&])({capital})\)?(?:\s(?:is|was|must be|would be|can be|looks|seems)\s"
            r"(?:\w{4,10}\s)?(?:wrong|incorrect|false|impossible|unlikely|out|excluded|eliminated|not|ruled out)\b"
            r"|\s?(?:isn't|cannot|can't)\b|选?项?\s?(?:的?说法)?[是为]?(?:错|不正确|不对|不可能|有误|除外"
            r"|被?排除|不符合|不成立|不选))",
            re.IGNORECASE,
        ),
    )


# letters of names are no options: R&D, M&A, Series A, Class B shares, A股, B轮, A-share
_NAMES_BEFORE = (
    "series class plan type grade tier part tranche rating vitamin schedule exhibit appendix company group point"
)
_NOT_IN_NAME = r"(?<![A-Za-z&\d/])(?<!& )(?<![A-Za-z]-)(?<![A-Za-z]\.)" + "".join(
    rf"(?<!\b[{word[0].upper()}{word[0]}]{word[1:]} )" for word in _NAMES_BEFORE.split()
)
_NO_NAME = (
    r"(?!\s?&|[-+/][A-Za-z\d]|\.[A-Za-z]\b|[股轮輪级級类類座档端款站城区栋线照型组位队班卷国债]"
    r"|公司|银行|产品|基金|企业|客户|部门|份额|\+(?!\s?[A-Za-z])"
    r"|\s(?:shares?|stocks?|rounds?|notes?|bonds?|rating|corporations?)\b)"
)


def letters_named(text: str, letters: str, choices: Mapping[str, str]) -> tuple[set[str], Manner]:
    """The option letters that a text gives as its answer, and in what manner.

    The first of these readings that finds letters counts:

    1. nothing but letters: `B`, `A and C`, `ABD`;
    2. the text of one option, or a list of several, or the number or the yes or no that exactly one option is;
    3. letters among words of choosing alone: `all except C` (`chosen_letters`);
    4. letters after the last "the answer is" or 故选;
    5. a leading letter with its text: `C：国家税务总局`;
    6. letters after a word like "option", then before "is correct", then on their own in a sentence.

    A letter beside another option's text gives both: the answer contradicts itself.
    """
    choices = {key.strip("().、: ").upper(): text for key, text in choices.items()}
    letters = letters.upper() if letters and len(letters) == len(choices) else "".join(choices) or letters or LETTERS
    plain = clean(text).strip().strip("()[]{}<>*.,;:。、\"'$ ")
    patterns, options = _patterns(letters), tuple(choices.items())
    bare = _BESIDE_LETTERS.sub("", plain) if len(plain) < 200 else ""
    if patterns.alone.fullmatch(bare) and _is_list(bare, plain):
        return set(bare.upper()), "list"
    by_content = _by_text(plain, options) | _by_number(plain, options)
    if by_content:
        return by_content, "list"
    beside = _TEXT_AND_LETTER.fullmatch(plain)
    if beside and (texts := _by_text(beside[1], options)):
        return texts | {beside[2]}, "prose"
    if special := key_of_meaning(plain, options):
        return {special}, "list"
    lettered = _lettered(plain, options) or (plain if _CHOOSING.search(plain) else "")
    if lettered and (chosen := chosen_letters(lettered, letters, bool(options))):
        return _or_all(set(chosen.letters), options), _manner(chosen)
    conclusion = last_match(patterns.concludes, plain)
    if conclusion:
        sequence = patterns.sequence.match(plain, conclusion.end())
        if sequence and not _is_article(sequence, plain):
            given = sequence["letters"]
            answer = {letter for letter in given if letter in letters and letter.isupper()} or {given.upper()}
            other = patterns.other.match(plain, sequence.end())
            if other:
                return answer | {other[1]}, "prose"
            return _with_text(answer, plain[sequence.end() :], options), "prose"
    lead = patterns.lead.match(plain)
    if lead and (lead[1].isupper() or lead[0].rstrip().endswith((")", ".", ":"))):
        others = set(patterns.enumerated.findall(plain, lead.end()))
        answer = _with_text({lead[1].upper()}, plain[lead.end() :], options)
        return answer | others, "list" if others else "prose"
    answer = {letter.upper() for letter in patterns.after_option.findall(plain)}
    answer = answer or {letter for run in patterns.correct.findall(plain) for letter in run if letter in letters}
    if not answer:  # "A company": an article
        answer = {letter for letter, next_word in patterns.standing.findall(plain) if letter != "A" or not next_word}
    if not answer:
        runs = {run for run in patterns.run.findall(plain) if list(run) == sorted(set(run))}
        answer = set(next(iter(runs))) if len(runs) == 1 else set()
    denied = patterns.denied.findall(plain)
    if answer and answer <= {letter for pair in denied for letter in pair}:
        return set(), "denial"
    return answer - {before for before, _ in denied}, "prose"


def _manner(chosen: Chosen) -> Manner:
    return "hedge" if chosen.is_hedge else "list" if chosen.letters else "denial"


def _is_list(bare: str, plain: str) -> bool:
    """Whether the letters of a text of nothing else are options: `B`, `b`, `ABD`, `a, c`; not `AAA`, `bad`."""
    if len(set(bare.upper())) < len(bare):
        return False
    return len(bare) == 1 or bare.isupper() or (bare.islower() and list(bare) == sorted(bare))


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


@lru_cache(maxsize=4096)
def _texts_of(options: _Options) -> list[tuple[str, str]]:
    """The options' texts and letters, longest text first."""
    texts = [(clean(text).strip(" .。").casefold(), key) for key, text in options]
    return sorted(((text, key) for text, key in texts if len(text) > 1), key=lambda item: -len(item[0]))


def _lettered(plain: str, options: _Options) -> str:
    """A short text with each option's text replaced by its letter: `not bonds but stocks`; empty without any."""
    if len(plain) > LONGEST or _LETTER.search(plain):
        return ""
    text = folded = plain.casefold()
    for option, key in _texts_of(options):
        text = text.replace(option, key)
    return "" if text == folded else text


def _by_number(plain: str, options: _Options) -> set[str]:
    """The letter of the only option that is the answer's only number; the answer must not contain a letter."""
    if len(plain) > 200 or not _DIGIT.search(plain) or _LETTER.search(plain):
        return set()
    values = _option_values(options)
    numbers = read_numbers(plain, cleaned=True, most=2) if values else []
    if len(numbers) != 1:
        return set()
    number = numbers[0]
    equal = {k for k, option in values.items() if abs(option.value - number.value) <= _FLOAT_ERROR * abs(option.value)}
    if not equal and number.bare and len({option.factor for option in values.values()}) == 1:  # 7 for 7%
        equal = {k for k, option in values.items() if abs(option.figure - number.value) <= _FLOAT_ERROR * option.figure}
    return equal if len(equal) == 1 else set()


_THESE = (
    r"(?: of)?(?: the)? (?:above|these|them|options|choices|answers|statements)(?: (?:is |are )?(?:correct|right))?"
)
_ABOVE = "(?:以上)?(?:各项|选项|答案|说法)?"
_HOLD = "(?:是|对|正确|选|包括|符合|属于)的?"
_ALL = re.compile(rf"(?:all|both)(?:{_THESE}| (?:are )?correct)|{_ABOVE}(?:全部|[都均皆全]){_HOLD}|全选", re.IGNORECASE)
_NONE = re.compile(rf"(?:none|neither){_THESE}|{_ABOVE}[都均皆全]不{_HOLD}", re.IGNORECASE)
_MOST_CHARS = 40


def _meaning(plain: str) -> str | None:
    """What a short text means: "all" or "none" of the options, "yes" or "no"."""
    if len(plain) > _MOST_CHARS:
        return None
    return "all" if _ALL.fullmatch(plain) else "none" if _NONE.fullmatch(plain) else yes_or_no(plain)


@lru_cache(maxsize=4096)
def _keys_of_meanings(options: _Options) -> dict[str, str]:
    """The option that alone has a meaning; yes and no only where two options are these."""
    said = [(_meaning(clean(text).strip(" .。")), key) for key, text in options]
    count = Counter(meaning for meaning, _ in said)
    polar = count["yes"] == count["no"] == 1
    return {m: key for m, key in said if m and count[m] == 1 and (polar or m not in ("yes", "no"))}


def key_of_meaning(text: str, options: _Options) -> str | None:
    """The option that says the same as a text: 正确 for 对, "True" for "yes", 以上都是 for "all of the above"."""
    keys = _keys_of_meanings(options)
    if not keys or any(letter in dict(options) for letter in _LETTER.findall(text)):
        return None
    return keys.get(_meaning(clean(text).strip(" .。")) or "")


def _or_all(letters: set[str], options: _Options) -> set[str]:
    """The letters; the option "all of the above" alone where they are all the others."""
    every = _keys_of_meanings(options).get("all")
    return {every} if every and letters | {every} == {key for key, _ in options} else letters


_TEXT_AND_LETTER = re.compile(r"([^()]+)\(([A-H])")  # `stocks (B)`, stripped at its end
_DIGIT = re.compile(r"\d")
_LETTER = re.compile(r"(?<![A-Za-z])[A-H](?![A-Za-z])")


def _with_text(answer: set[str], rest: str, options: _Options) -> set[str]:
    """The letters; with a single one, also the other option whose text follows it, if any."""
    normal = normalise(rest) if len(answer) == 1 and len(rest) < 2000 else ""
    same = {key for key, text in _normal_options(options).items() if text == normal} if len(normal) > 1 else set()
    return answer if not same or same & answer else answer | same
