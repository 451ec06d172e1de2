"""The steps of a reasoning trace, its content words in English and Chinese, and word lists (finance, calculating)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from functools import lru_cache
from itertools import chain

from finr1.answer.clean import clean

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\u3400-\u9fff(\"'])|(?<=[。！？])")
_MARKER = re.compile(
    r"^\s*(?:[-*•>#]+\s+)?(?:\(?\d{1,2}[.)、:]\s|step\s?\d+\s?[-:.)]?|第[一二三四五六七八九十\d]+步[：:、，,]?)?\s*",
    re.I,
)
_LATIN = re.compile(r"[a-z][a-z'&-]*[a-z]|[a-z]")
_HAN = re.compile(r"[\u3400-\u9fff]+")
_LETTERS = re.compile(r"[A-Za-z]+")


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STOP = _word_set("""
    a an and are as at be been but by can could did do does each for from had has have he her here his how i if in
    into is it its just may me more most much my no not of on one only or our out over own per she should so some
    such than that the their them then there these they this those to too two under up very was we were what when
    where which while who will with would you your
    """)

# Words of calculating and concluding: a step made of these alone is neither on nor off the topic.
_WORKING = _word_set("""
    add added adding again all also answer apply approximately back because before begin calculate calculated
    calculation call check compare compute conclude confirm consider correct data divide divided double equal equals
    equation expression final finally find first follow formula get give given gives hence identify information know
    label last least less let letter look many means minus multiply multiplied need needed next now number obtain
    okay once option place plug plus problem put question read reason recall result round rounded say second see set
    show simplify since solve start step substitute subtract sum take table text therefore think third thus times
    total true try use used using value values verify wait want work write yes
    """)
_WORKING_HAN = _word_set("""
    答案 所以 因此 因为 已知 公式 步骤 首先 其次 然后 接着 最后 最终 结果 得到
    得出 计算 代入 根据 题目 题意 问题 等于 算式 可知 可得 由此 综上 选项 正确
    错误 判断 分析 比较 需要 我们 验证 检查 直接 一步 合成 合并 合起来 数据 表格
    先求 再求 求出 算出
""")
_FINANCE = _word_set("""
    account accrual acquisition amortization amount annual annuity asset audit average balance bank basis bearish
    benchmark beta bond book borrow budget bullish buy capital cash change charge compound cost coupon credit
    currency debt decline decrease default deferred deposit depreciation derivative discount dividend dollar
    duration earn ebit ebitda economic equity euro exchange expense face fair fee finance financial firm fiscal flow
    forward fraud fund future gain goodwill gross growth hedge holding impairment income increase index inflation
    insurance interest inventory invest investment investor issue lease lender leverage liability liquidity loan
    loss margin market maturity merger million billion monetary month mortgage net obligation operate operating
    option owe par pay payback payment pension percent percentage perpetuity policy portfolio position premium present
    price principal profit project purchase quarter rate ratio receivable rent repay report reserve return revenue
    risk salary sale sector security sell sentiment share sharpe shareholder stock strike swap tax tariff trade
    trader treasury turnover usd valuation value variance volatility wage yield year yuan
    """)
_FINANCE_HAN = _word_set("""
    资产 负债 权益 收入 成本 费用 利润 毛利 净利 税率 税额 税前 税后 纳税 增值
    消费税 所得税 利率 利息 本金 本息 存款 贷款 债券 票面 票息 到期 收益 股票 股价
    股息 股东 每股 市盈 市净 市场 投资 组合 基金 风险 方差 波动 夏普 贝塔 现金
    折现 贴现 现值 终值 年金 汇率 美元 人民币 港元 外汇 通胀 货币 银行 保险 证券
    期货 期权 信用 会计 审计 财务 报表 流动 速动 比率 周转 增长 增加 减少 下降
    上升 同比 环比 平均 合计 总额 预算 工资 租金 价格 金额 亿元 万元 百万 公司
    企业 项目 回收 折旧 摊销 存货 应收 应付 监管 合规
""")


def steps(text: str) -> list[str]:
    """The steps of a trace: its lines, split into sentences, without list markers and steps without text."""
    return list(chain.from_iterable(map(_steps_of, text.splitlines())))


@lru_cache(1 << 13)  # a question's samples share many lines
def _steps_of(line: str) -> Sequence[str]:
    sentences = map(str.strip, _SENTENCE.split(_MARKER.sub("", line, count=1)))
    return tuple(sentence for sentence in sentences if any(map(str.isalnum, sentence)))


def words(text: str) -> set[str]:
    """Content words: English stems, and pairs of adjacent Chinese characters."""
    return set().union(*map(_words_of, clean(text).split("\n")))


@lru_cache(1 << 13)
def _words_of(line: str) -> Set[str]:
    line = line.casefold()
    stems = {_content(word) for word in _LATIN.findall(line)} - {""}
    return frozenset(stems | _pairs(_HAN.findall(line)))


def is_working(word: str) -> bool:
    """Whether a word only says that something is calculated or concluded."""
    return word in _WORKING_STEMS


def is_financial(word: str) -> bool:
    """Whether a word is in the financial lexicon."""
    return word in _FINANCE_STEMS


def han_share(text: str) -> float | None:
    """Share of Chinese characters among the letters; None for fewer than 8 letters."""
    han, latin = (sum(map(len, letters.findall(text))) for letters in (_HAN, _LETTERS))
    return han / (han + latin) if han + latin >= 8 else None


@lru_cache(1 << 15)
def _content(word: str) -> str:
    """The stem of a content word; "" for a stop word."""
    stem = _stem(word) if len(word) > 1 and word not in _STOP else ""
    return "" if stem in _STOP else stem


def _stem(word: str) -> str:
    for ending in ("ing", "ies", "ed", "es", "s", "'s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word.rstrip("e")


def _pairs(terms: Iterable[str]) -> set[str]:
    """The pairs of adjacent characters."""
    return {term[i : i + 2] for term in terms for i in range(len(term) - 1)}


_WORKING_STEMS = {_stem(word) for word in _WORKING} | _pairs(_WORKING_HAN)
_FINANCE_STEMS = {_stem(word) for word in _FINANCE} | _pairs(_FINANCE_HAN)
