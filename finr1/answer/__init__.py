"""Reading and grading answers: the completion's tags, the numbers in it, and whether they equal the gold."""
