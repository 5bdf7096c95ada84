"""Items are selected the same way by every task."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.errors import UserError
from dlmlab.sandbox import SandboxError
from dlmlab.task.base import Item, Score, fingerprint_items, score_answer, select

ITEMS = [Item(id=str(n), prompt=f"question {n}", answer="A") for n in range(10)]


def test_select_takes_the_first() -> None:
    assert [item.id for item in select(ITEMS, limit=3)] == ["0", "1", "2"]
    assert select(ITEMS) == ITEMS


@given(limit=st.integers(1, 10), num_shards=st.integers(1, 10))
def test_shards_partition_what_one_run_takes(limit: int, num_shards: int) -> None:
    shards = [select(ITEMS, limit, shard, num_shards) for shard in range(min(num_shards, limit))]
    ids = [item.id for shard in shards for item in shard]
    assert sorted(ids) == [item.id for item in select(ITEMS, limit)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 11}, "limit=11 is more than the 10 items"),
        ({"limit": 0}, "limit=0 is not an integer of at least 1"),
        ({"limit": "all"}, "limit='all' is not an integer"),
        ({"limit": True}, "limit=True is not an integer"),
        ({"shard": 2, "num_shards": 2}, "shard=2 is out of range"),
        ({"shard": -1}, "shard=-1 is not an integer of at least 0"),
        ({"num_shards": 0}, "num_shards=0 is not an integer of at least 1"),
        ({"limit": 3, "shard": 3, "num_shards": 4}, "shard=3 of num_shards=4 is empty"),
    ],
)
def test_bad_selection_is_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        select(ITEMS, **settings)
    assert "\n" not in str(error.value)


def test_fingerprint_follows_content_and_order() -> None:
    assert fingerprint_items(ITEMS) == fingerprint_items(list(ITEMS))
    assert fingerprint_items(ITEMS) != fingerprint_items(ITEMS[::-1])
    changed = [*ITEMS[:-1], Item(id="9", prompt="question 9", answer="B")]
    assert fingerprint_items(ITEMS) != fingerprint_items(changed)


class Judging:
    """A task whose judge raises what it is given."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    def score(self, item: Item, text: str) -> Score:
        if self.error:
            raise self.error
        return Score(1.0)


@pytest.mark.parametrize("error", [ValueError("x"), RecursionError(), MemoryError(), KeyError("a\nb")])
def test_an_answer_that_breaks_its_judge_scores_nothing(error: Exception) -> None:
    task: Any = Judging(error)
    assert score_answer(task, ITEMS[0], "text") == Score(0.0, f"scoring raised {type(error).__name__}")


def test_scores_and_broken_machines_are_handed_on() -> None:
    working: Any = Judging(None)
    assert score_answer(working, ITEMS[0], "text") == Score(1.0)
    for error in (UserError("no sandbox"), SandboxError("fork", "it did not start")):
        broken: Any = Judging(error)
        with pytest.raises(type(error)):
            score_answer(broken, ITEMS[0], "text")
