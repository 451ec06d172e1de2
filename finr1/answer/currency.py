"""The currency that a text names.

>>> [sorted(currencies(text)) for text in ("US$5 million", "5亿韩元", "¥5", "C$5", "5 million euros", "$28$ percent")]
[['USD'], ['KRW'], ['CNY', 'JPY'], ['CAD'], ['EUR'], []]
>>> [clash(answer, gold) for answer, gold in (("€5", "$5"), ("5 dollars", "$5"), ("HK$5", "$5"), ("5", "$5"))]
['other', '', 'unclear', '']
"""

from __future__ import annotations

import re
from functools import lru_cache

# a currency's code and names; a Latin name is a whole word, and may end in s
_NAMES = {
    "USD": "US$ U.S.$ US_dollar U.S._dollar American_dollar 美元 美金",
    "CAD": "C$ CA$ CAN$ Canadian_dollar 加元 加币 加拿大元",
    "AUD": "A$ AU$ Australian_dollar 澳元 澳币",
    "NZD": "NZ$ New_Zealand_dollar 纽元 新西兰元",
    "HKD": "HK$ Hong_Kong_dollar 港元 港币 港幣",
    "SGD": "S$ SG$ Singapore_dollar 新加坡元 新币",
    "TWD": "NT$ NTD Taiwan_dollar 新台币 新臺幣 台币",
    "EUR": "€ euro 欧元 歐元",
    "GBP": "£ pound sterling pounds_sterling British_pound 英镑 英鎊",
    "CHF": "Swiss_franc franc 瑞士法郎 瑞郎 法郎",
    "JPY": "JP¥ yen 日元 日圆 日圓 円",
    "CNY": "RMB CNH CN¥ yuan renminbi 人民币 人民幣",
    "KRW": "₩ Korean_won won 韩元 韓元 韩圆 韩币",
    "INR": "₹ Rs rupee 卢比",
    "RUB": "₽ rouble ruble 卢布",
    "BRL": "R$ real reais 雷亚尔",
    "MXN": "MX$ peso 比索",
    "ZAR": "rand 兰特",
    "TRY": "₺ lira 里拉",
    "THB": "฿ baht 泰铢",
    "VND": "₫ 越南盾",
    "IDR": "rupiah 印尼盾 印尼卢比",
    "MYR": "ringgit 林吉特 令吉 马币",
    "PHP": "₱ 菲律宾比索",
    "ILS": "₪ shekel 谢克尔",
    "PLN": "zloty 兹罗提",
    "SEK": "Swedish_krona 瑞典克朗",
    "NOK": "Norwegian_krone 挪威克朗",
    "DKK": "Danish_krone 丹麦克朗",
    "AED": "dirham 迪拉姆",
    "SAR": "riyal 里亚尔",
    "UAH": "₴ hryvnia 格里夫纳",
    "MOP": "MOP$ pataca 澳门元 澳門元",
    "CZK": "Czech_koruna 捷克克朗",
    "HUF": "forint 福林",
    "KWD": "Kuwaiti_dinar dinar 第纳尔",
    "EGP": "Egyptian_pound 埃及镑",
    "NGN": "₦ naira 奈拉",
    "BDT": "taka 塔卡",
    "PKR": "Pakistani_rupee 巴基斯坦卢比",
    "BTC": "₿ bitcoin 比特币",
    "ETH": "ether 以太币",
}
_DOLLARS = frozenset(("USD", "CAD", "AUD", "NZD", "HKD", "SGD", "TWD"))
# names that several currencies share: they count where no other names one
_SHARED = {
    "$": _DOLLARS, "dollar": _DOLLARS, "dollars": _DOLLARS, "¥": frozenset(("CNY", "JPY")), "元": frozenset(("CNY",)),
    "krona": frozenset(("SEK",)), "kronor": frozenset(("SEK",)), "krone": frozenset(("NOK", "DKK")),
    "kroner": frozenset(("NOK", "DKK")), "kr": frozenset(("SEK", "NOK", "DKK")),
    "克朗": frozenset(("SEK", "NOK", "DKK")),
}  # fmt: skip
_OF = {
    name.replace("_", " ").casefold(): frozenset((code,))
    for code, names in _NAMES.items()
    for name in (code, *names.split())
}
_OF |= {
    f"{name}s": code for name, code in _OF.items() if name[-1].isalpha() and name.isascii() and len(name) > 3
} | _SHARED
_AFTER_NUMBER = ("won", "kr", "rand", "real")  # words that mean a currency only after a number or its unit
_NAME = "|".join(
    (r"(?<=[\dnk] )" if name in _AFTER_NUMBER else r"(?<![A-Za-z])" if name[0].isalpha() and name.isascii() else "")
    + re.escape(name)
    + (r"(?![A-Za-z])" if name[-1].isalpha() and name.isascii() else "")
    for name in sorted(_OF, key=len, reverse=True)
    if name != "$"
)
_FIRST = "".join(sorted({name[0] for name in _OF} | {name[0].upper() for name in _OF}))
# a dollar sign before a number, unless it opens LaTeX's `$…$`
_CURRENCY = re.compile(rf"(?=[{re.escape(_FIRST)}])(?:{_NAME}|\$(?=\s?[-(]?[\d.])(?![^$\n]{{0,30}}\$))", re.IGNORECASE)
_MAX_CHARS = 400


@lru_cache(maxsize=8192)
def currencies(plain: str) -> frozenset[str]:
    """The codes of the one currency that a cleaned text may name; empty for none or several."""
    found = {_OF[match.casefold()] for match in _CURRENCY.findall(plain[:_MAX_CHARS])}
    if len(found) > 1:
        found -= set(_SHARED.values())
    return next(iter(found)) if len(found) == 1 else frozenset()


def clash(answer: str, gold: str) -> str:
    """Whether an answer names another currency than its gold: "other", "unclear" (`$` may be HK$), or empty."""
    wanted = currencies(gold)
    given = currencies(answer) if wanted else wanted
    if not given & wanted:
        return "other" if given else ""
    is_dollar = given | wanted <= _DOLLARS  # a bare dollar is the US dollar, if any
    return "unclear" if is_dollar and given != wanted and "USD" not in given & wanted else ""
