"""Reading and grading answers: the completion's form, the numbers in it, and whether they equal the gold."""

from __future__ import annotations

from finr1.answer.compare import Grade, grade
from finr1.answer.extract import Parsed, final_answer, parse, render

__all__ = ["Grade", "Parsed", "final_answer", "grade", "parse", "render"]
