"""Whether a text says yes or no.

>>> texts = ("Yes, as it is not correct that it rose", "说法是错误的", "没错", "不完全正确", "yes or no", "由证监会")
>>> [polarity(text) for text in texts]
['yes', 'no', 'yes', 'no', None, None]
>>> polarity("有"), yes_or_no("有")
(None, 'yes')
"""

from __future__ import annotations

import re

from finr1.answer.clean import clean
from finr1.answer.words import ANSWER_IS, last_match

_HAN = "\u4e00-\u9fff"
_YES = r"yes|yeah|yep|yup|affirmative|true|correct|right(?! (?:now|away|of|to)\b)|accurate"
_NO = r"no(?:pe)?(?!\. ?\d+$)|not|never|false|incorrect|untrue|wrong|inaccurate|impossible"
_YES_HAN = rf"肯定(?=的(?![{_HAN}]))|正确|准确|属实|属于|合规|可以|符合|成立|真实|合理"
_NO_HAN = rf"否定(?=的?(?![{_HAN}]))|错误|有误|有错|不实|虚假|不是|不会|不能|不可以?|不行|不可能|并非|没有|[×✗✘]"
# one character counts only on its own: it ends or begins many other words (由证监会, 反对, 传真, 但是, 对于)
_ALONE = rf"(?<![{_HAN}])|(?<=[为為是选填案果均都得])"
_ENDS = rf"(?![{_HAN}a-z])"
_STARTS = (
    "(?:会(?![计計议議员員费費])|是(?!非)|能(?![力源量耗够]))"  # followed by more at the start of a text: 会导致亏损
)
_NOT_THE_WORD = "(?![率性地]|答案|选项|做法|处理|管理|检查|风险)"  # 正确率, 合规性
_NOT = r"(?:\b(?:not|cannot|never|none|neither|nor|nothing|nobody|no|hardly|barely|scarcely|far from|anything but)|n't)"
_FEW_WORDS = r"(?:\s(?!(?:but|and|or|if|because|since|as|yes)\b)[a-z']{1,15}){0,4}?\s"
_NOT_HAN = r"(?:并非|并没有?|没有|[不没未非]|难以)(?:是|能|算|太|够|很|都|全|尽|甚|十分|完全|怎么|那么|一定){0,2}"
_TOKEN = re.compile(
    rf"(?P<neither>{_NOT}{_FEW_WORDS}(?:false|incorrect|untrue|wrong|inaccurate)\b|{_NOT_HAN}(?:错误?|假|虚假|否|不)"
    r"|(?:没有?|无)(?:任何)?(?:问题|异议))"
    rf"|(?P<no>{_NOT}{_FEW_WORDS}(?:{_YES})\b|{_NOT_HAN}(?:{_YES_HAN}|对|真){_NOT_THE_WORD}的?"
    rf"|\b(?:{_NO})\b|(?:{_NO_HAN}){_NOT_THE_WORD}的?|(?:{_ALONE})[否错假][的了]?{_ENDS})"
    rf"|(?P<yes>\b(?:{_YES})\b(?!-[a-z])|(?:{_YES_HAN}){_NOT_THE_WORD}的?|[√✓✔]|(?:{_ALONE})[对真是会能][的了]?{_ENDS}"
    rf"|(?<![^\s]){_STARTS})"
)
_IDIOMS = (  # before any other reading
    (  # two negations as the whole answer
        re.compile(
            r"^(?:(?:it|this|that|the (?:statement|claim))(?: is|'s| was) )?not (?:false|incorrect|untrue|wrong)$"
            r"|^(?:并非|并?不是?|没有?)(?:错误|虚假|假)的?$|^没有?(?:任何|什么)?问题$"
        ),
        "正确",
    ),
    (re.compile(r"(?<!不)没(?:有(?:什么)?)?错(?!误的?[^\s,。])误?|(?<![^\s,。是])不错|错不了|无误|no mistake"), "正确"),
    (re.compile(r"(?<!不)(?:肯定|确实|的确|当然)(?=[是会对能不])"), ""),
    (
        re.compile(
            r"no (?:problem|objection|matter|wonder)s?|毫?无疑[问义]"
            r"|(?:no|without|beyond) (?:any? )?(?:doubt|question)|not only|不仅|不但"
        ),
        " ",
    ),
    (re.compile(r"(?<![不没非])是(?=[不没否并]|正确|准确|错|假|真|对|合规|成立)"), " "),  # the copula of 是错误的
)
_UNSURE = re.compile(
    r"\bdoubt|not (?:sure|certain|clear|given|provided|available|disclosed|reported"
    r"|mentioned|applicable)"
    r"|not (?:necessarily|always|known|stated|specified|possible to|enough)|unsure|uncertain"
    r"|unclear"
    r"|unknown|undetermin|indetermin|inconclusive|insufficient|depends|maybe|perhaps|possibly|sometimes|\bn/a\b"
    r"|(?:cannot|can't|can not|could not|couldn't|unable to|impossible to) (?:be )?"
    r"(?:determin|tell|say|know|answer|judg|decid|verif|conclu|confirm)"
    r"|(?:don't|do not|doesn't|does not|didn't) (?:know|say|specify|state|mention|provide|give)"
    r"|no (?:way (?:to|of)|idea|data|(?:\w{1,12} )?information|answer|comment)"
    r"|part(?:ly|ially)|in part|to some extent|somewhat|half[- ](?:true|right|correct)|mostly|nearly|almost"
    r"|opposite|(?:un)?likely"
    r"|(?:不能|无法|难以|不好|没法|不可|尚未|未能)"
    r"(?:确定|判断|确认|得知|得出|知道|回答|肯定|断定|说|判定|推断)"
    r"|不确定|不清楚|不知道?|不明|不详|未知|存疑|(?:没有?|未)(?:提[到及供]|说明|披露|显示|给出|涉及)"
    r"|(?:没有?|无|缺[乏少])(?:足够|充分|相关|任何)?的?(?:信息|数据|资料|证据|依据|答案)"
    r"|(?:信息|数据|资料|证据|依据)不[足够充]|不一定|未必|不总是|不[都全]是|相反|部分(?=正确|对|符合|合规|属|成立|真|准)"
    r"|一定程度|某种程度|有时|取决于|视情况|看情况|也许|或许|可能(?=是|会|对|正确|不|错)|大概"
)
_QUESTION_WORDS = re.compile(
    r"(?<!答案)是否(?:[^:?,。\n]{0,20}[:?]|[^:?,。\s]*$)?|是不是|对不对|会不会|能否|可否"
    r"|是(?:或者?|还是|与|和)(?:否|不是)|对(?:或者?|还是)(?:错|不对)|正确(?:或者?|还是)(?:错误|不正确)"
    r"|whether\b|yes/no|yes or no|true or false|true/false"
)
_QUESTION = re.compile(r"^[^?\n]{1,300}\?\s*(?=\S)")  # that the text answers
_RETRACTED = re.compile(  # what is said before no longer counts
    r"[.;!?…。\n]\s*(?:no,? )?(?:wait|actually|correction|scratch that|on second thoughts?|更正)[,.:…—]\s*"
)
_CONTRADICTS = re.compile(r"\W+(?:that|this|it|the (?:claim|statement|answer))(?: is|'s) ")  # no, that's right
_CONCLUSION = re.compile(rf"(?:^|(?<=[.!?。\n]))[^.!?。\n]*(?:{ANSWER_IS.pattern})[\s:*\"'(]*", re.IGNORECASE)
_REASON = re.compile(r"\s?[,.;:。、(\n]|\s(?:because|since|as)\b|\s?因为")
_BECAUSE = re.compile(r"\s?,?\s?(?:\b(?:because|since|due to|that)\b|因为|由于)")
_EDGES = " \n.。!,;:\"'()[]*$"
IS_YES_OR_NO = re.compile(r"\s*(?:yes|no|true|false|是|否|对|错|正确|错误)[.。!]?\s*", re.IGNORECASE)
_MAX_WORDS = 50
_MAX_CHARS = 1000
_WHOLE_ANSWERS = dict.fromkeys(
    (
        *("y", "t", "有", "行", "存在", "确实", "的确", "确实如此", "的确如此", "当然", "毫无疑问"),
        *("no doubt", "without a doubt", "indeed", "of course", "absolutely", "certainly", "definitely", "exactly"),
    ),
    "yes",
)
_WHOLE_ANSWERS |= dict.fromkeys(("n", "f", "negative", "无", "没", "不", "不存在"), "no")


def yes_or_no(text: str) -> str | None:
    """As `polarity`, and also what means yes or no only as a whole answer to a yes/no question: Y, 有, 无."""
    return polarity(text) or _WHOLE_ANSWERS.get(clean(text).casefold().strip(_EDGES))


def polarity(text: str) -> str | None:
    """ "yes" or "no" if the text says exactly one, at its start, at its end or after "answer is"; else None.

    "Partly" and "not sure" say neither. A word under a negation says the opposite, one under two says neither.
    """
    text = clean(text).casefold().strip(_EDGES)
    if len(text) > 2 * _MAX_CHARS:  # what a long text says, it says at its start and its end
        text = f"{text[:_MAX_CHARS]}\n{text[-_MAX_CHARS:]}"
    if _QUESTION_WORDS.fullmatch(text):
        return None
    if "?" in text:
        text = _QUESTION.sub("", text)
    text = _QUESTION_WORDS.sub(" ", text).strip(" :,")
    retracted = last_match(_RETRACTED, text)
    if retracted and _TOKEN.search(text, retracted.end()):
        text = text[retracted.end() :]
    for pattern, plain in _IDIOMS:
        text = pattern.sub(plain, text).lstrip()
    words: list[tuple[int, int, str]] = []  # start, end, yes or no or neither
    for match in _TOKEN.finditer(text):
        words.append((match.start(), match.end(), match.lastgroup or ""))
        if len(words) > _MAX_WORDS:
            return None
    unsure = _UNSURE.search(text)
    if not words or words[0][2] == "neither":
        return None
    if conclusion := last_match(_CONCLUSION, text):  # "It is not divisible by 10. So the answer is **false**."
        only = len(words) > 1 and words[-1][0] == conclusion.end() and words[-1][1] == len(text)
        if only and words[-2][1] <= conclusion.start() and not _UNSURE.search(text, conclusion.start()):
            return words[-1][2]
    (start, end, first), last = words[0], words[-1]
    says_first = start == 0 and _REASON.match(text, end) is not None
    if unsure:
        return (
            first if says_first and unsure.start() - end > 20 and (len(words) == 1 or words[1][0] - end > 20) else None
        )
    if len({word for _, _, word in words}) == 1:
        is_answer = start == 0 or last[1] == len(text) or ANSWER_IS.search(text[:start]) is not None
        is_answer |= len(words) == 1 and _BECAUSE.match(text, end) is not None
        return first if is_answer else None
    if len(words) == 2 and last[1] == len(text) and _CONTRADICTS.fullmatch(text, end, last[0]):
        return None
    # "Yes, because it is not correct that …" says yes; "yes/no", "yes or no" and "yes, no" say nothing
    return first if says_first and words[1][0] - end > (8 if text.isascii() else 5) else None
