"""The numbers that the reasoning rules read in a text."""

import pytest

from finr1.parts.judge.rules.figures import figures_in


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("120 - 100 = 20, or 20%", {"120", "100", "20"}),
        ("1,234,567年", {"1.23457e+06"}),
        ("1234565%", {"1.23456e+06"}),  # 0.01 and back must not move the sixth digit
        ("2 ^ 3 and 5", {"8", "5"}),
        ("1亿2000万", {"1.2"}),  # of 1e8
        ("三元", {"3"}),
        ("9" * 500, set()),  # longer than any number
        ("1234567 = 7, 7654321", {"1.23457e+06", "7", "7.65432e+06"}),
        ("1,234567 million", {"1", "234567"}),
        ("no figure", set()),
    ],
)
def test_figures_by_hand(text: str, figures: set[str]) -> None:
    assert figures_in(text) == figures
