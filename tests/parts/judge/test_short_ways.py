"""The fast paths of grading agree with the slow ones, on any text."""

from hypothesis import given
from hypothesis import strategies as st

from finr1.answer import choices
from finr1.answer.boxes import read_boxes

PROSE = st.text("aB7 .!?(\"'\n\t&-_%+,{}\\\u00e9中。，！", max_size=40)


@given(PROSE)
def test_ascii_punctuation_goes_as_by_the_pattern(text: str) -> None:
    assert text.translate(choices._ASCII_PUNCTUATION) == choices._PUNCTUATION.sub("", text) or not text.isascii()


@given(PROSE)
def test_a_lone_box_reads_as_one_with_text_after_it(inside: str) -> None:
    assert read_boxes(f"\\boxed{{{inside}}}") == read_boxes(f"\\boxed{{{inside}}} ")
