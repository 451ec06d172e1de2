"""Dates and periods in all notations: the same, different, or less precise."""

import pytest

from finr1.answer.clean import clean
from finr1.answer.date import Date, date_spans, read_date, same_date


@pytest.mark.parametrize(
    ("texts", "date"),
    [
        (
            ["2019-12-31", "2019/12/31", "2019.12.31", "20191231", "12/31/2019", "31/12/2019", "December 31, 2019",
             "Dec. 31 2019", "31 December 2019", "31st of December, 2019", "on December 31st, 2019.",
             "2019年12月31日", "２０１９年１２月３１日", "二〇一九年十二月三十一日", "截至2019年12月31日"],
            Date(2019, 12, 31),
        ),
        (["December 2019", "Dec, 2019", "2019年12月", "2019年12月份"], Date(2019, 12)),
        (["March 4", "4 March", "3月4日", "三月四日"], Date(0, 3, 4)),
        (["Q3 2019", "3Q19", "3Q 2019", "2019Q3", "2019-Q3", "third quarter of 2019", "2019年第三季度", "2019年三季度"],
         Date(2019, quarter=3)),
        (["H1 2019", "first half of 2019", "2019年上半年"], Date(2019, half=1)),
        (["2019", "FY2019", "fiscal year 2019", "2019年", "2019年度"], Date(2019)),
    ],
)  # fmt: skip
def test_writings_of_one_date(texts: list[str], date: Date) -> None:
    for text in texts:
        assert read_date(clean(text)) == {date}, text


@pytest.mark.parametrize(
    "text", ["", "42", "1,234", "2019-13-01", "13/13/2019", "2019-12-32", "May", "Q5 2019", "2019 shares", "x" * 99]
)
def test_what_is_no_date(text: str) -> None:
    assert read_date(text) == frozenset()


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("2019-12-31", "Dec 31, 2019", True), ("2019-12-30", "Dec 31, 2019", False),
        ("2018-12-31", "Dec 31, 2019", False), ("2019", "Dec 31, 2019", None),
        ("Dec 31, 2019", "2019", None), ("Q3 2019", "Q4 2019", False),
        ("03/04/2019", "March 4, 2019", None), ("03/04/2019", "May 4, 2019", False),
        ("04/04/2019", "April 4, 2019", True),
    ],
)  # fmt: skip
def test_same_date(answer: str, gold: str, same: bool | None) -> None:
    assert same_date(read_date(answer), read_date(gold)) is same


def test_where_dates_stand() -> None:
    text = "As of December 31, 2019 it was 15.2; 2018年为3"
    assert [text[start:end] for start, end in date_spans(text)] == ["December 31, 2019", "2018年"]
