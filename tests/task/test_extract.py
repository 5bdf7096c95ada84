"""The answer letter is found where a reader would find it, and nowhere else."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.task.extract import answer_letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        (" (c). ", "C"),
        ("**D**", "D"),
        ("_A_", "A"),
        ("$\\boxed{C}$", "C"),
        ("B. The mitochondrion", "B"),
        ("A) 12", "A"),
        ("C: because it is larger than B", "C"),
        ("D\nThe area grows with the square.", "D"),
        ("A", "A"),
        ("A is right", "A"),
        ("The answer is B.", "B"),
        ("The correct answer is: **C. 42**", "C"),
        ("Answer: (D)", "D"),
        ("the answer is $\\boxed{A}$", "A"),
        ("The answer would be option C", "C"),
        ("B is close, but the answer is C", "C"),
        ("A. 3\nB. 5\nThe answer is B", "B"),
        ("Option D is correct", "D"),
        ("I choose A because it holds", "A"),
        ("A train leaves at noon, so B", "B"),
        ("答案是B。", "B"),
        ("b) 42", "B"),
        ("(a) 12", "A"),
        ("d. iron", "D"),
        ("'B'", "B"),
        ("“C”", "C"),
        ("The answer is b.", "B"),
        ("the answer is: b) 42", "B"),
        ("The answer is 'B'", "B"),
        ("The answer is ‘B’.", "B"),
        ("Answer: **b**", "B"),
        ("$\\boxed{\\text{B}}$", "B"),
        ("The answer to this question is C", "C"),
        ("option b", "B"),
        ("b is correct", "B"),
        ("B is correct because A is false", "B"),
        ("B, because A is smaller than C", "B"),
        ("C is right, since A and B are false", "C"),
        ("A is false and B is false, so C", "C"),
        ("The answer is B and A is wrong", "B"),
        ("The correct answer is B, not A.", "B"),
        ("It cannot be A, so B", "B"),
        ("It is not A. It is not B. It is C.", "C"),
        ("The answer is not A, it is B", "B"),
        ("A is not the answer; C is.", "C"),
        ("Answer: A. No wait, the answer is B.", "B"),
        ("A. No wait, B.", "B"),
        ("A. Wait, B is right.", "B"),
        ("A? No, B.", "B"),
        ("<think>The answer is A?</think>The answer is C.", "C"),
        ("Answer: A\nAnswer: C", "C"),
        ("I first thought A, but the answer is D", "D"),
        ("A) 3\nB) 5\nC) 7\nD) 9\n\nC", "C"),
        ("A. 3 B. 5 C. 7 D. 9 Answer: C", "C"),
        ("Answer:\nA) 3\nB) 5\nC) 7\nD) 9", ""),
        ("A) vitamin C\nB) iron\nC) zinc\nD) salt", ""),
        ("Answer: A and B", ""),
        ("Answer: (A) and (C)", ""),
        ("The answer is A or possibly B", ""),
        ("A, C and D", ""),
        ("A/B", ""),
        ("A and B are correct", ""),
        ("Answer: AB", ""),
        ("The answer is not A.", ""),
        ("The answer isn't A.", ""),
        ("The answer cannot be A", ""),
        ("The answer is neither A nor B", ""),
        ("A is incorrect.", ""),
        ("Not A", ""),
        ("The answer is a prime", ""),
        ("D.C. is the capital", ""),
        ("A. 3\nB. 5\nC. 7\nD. 9", ""),
        ("A and B", ""),
        ("Either C or D", ""),
        ("A train leaves at noon", ""),
        ("The answer is a prime number", ""),
        ("Because DNA is copied", ""),
        ("E", ""),
        ("42", ""),
        ("", ""),
    ],
)
def test_answer_letter(text: str, letter: str) -> None:
    assert answer_letter(text) == letter


@given(st.text())
def test_any_text_gives_a_letter_or_nothing(text: str) -> None:
    assert answer_letter(text) in ("", "A", "B", "C", "D")


@pytest.mark.parametrize(
    "piece", ["A and ", "answer ", "not ", "((", "A is ", "' ", "A) x\n", "wait ", "answer a a a "]
)
def test_a_long_text_takes_time_in_proportion(piece: str) -> None:
    started = time.process_time()
    answer_letter(piece * 20_000)
    assert time.process_time() - started < 15
