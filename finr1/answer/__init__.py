"""Reading and grading answers by rules, in the order in which an answer passes through the files:

`reply` finds what a whole reply states as its answer (`tags`: its thinking and answer block; `boxes`: `\\boxed{}` with
what stands beside it) and has it graded by `grade`, which calls one grader per kind of question: `grade_number`,
`choices` (with `choosing`), `labels`, `yes_no`, `date`.

A number: `candidates` (which numbers may be meant), `number`, `number_words` and `units` (their values), `asked` (unit
and digits that the question asks for), `precision` (how close to the gold), `currency`, `doubt` (words beside it that
change its meaning: bounds, denials, directions). `clean` and `words` serve all; `golds` compares golds with each
other; `program` runs FinQA's programs.
"""
