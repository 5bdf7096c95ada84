import pytest
import torch

from dlmlab.denoiser import Query, Reuse
from dlmlab.model.arena import Arena
from tests.model.helpers import small_model


@pytest.fixture
def arena() -> Arena:
    return Arena(small_model().config, torch.zeros(1), None)


def room(monkeypatch: pytest.MonkeyPatch, arena: Arena, elements: float) -> list[bool]:
    """Let the device have room for so many elements, and note whether the arena holds any when it asks for more."""
    held, make = list[bool](), torch.Tensor.new_empty

    def new_empty(like: torch.Tensor, *shape: int) -> torch.Tensor:
        made = make(like, *shape)
        held.append(arena.memory.numel() > 0)
        if made.numel() + arena.memory.numel() > elements:
            raise torch.OutOfMemoryError("full")
        return made

    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)
    return held


def test_it_gives_its_memory_back_before_it_grows_while_it_holds_nothing(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = room(monkeypatch, arena, torch.inf)
    rows = [arena.take(90) for _ in range(3)]
    assert (held, arena.slots) == ([False] * 3, 4)
    rows[2].kept[:] = 5
    rows += [arena.take(90) for _ in range(2)]
    assert (held[3:], arena.slots) == ([True], 8)
    assert rows[2].kept.eq(5).all()


def test_what_a_recorded_pass_has_written_moves_along(arena: Arena) -> None:
    pytest.importorskip("triton")
    from dlmlab.model.pack import kept_layout

    row = arena.take(64)
    arena.memory[:] = 5
    position_BL = torch.arange(4)[None]
    kept_layout(Query(position_BL, None, position_BL[0], Reuse(position_BL, [None], [row], [None])), heads=4)
    arena.take(64)
    assert row.kept.eq(5).all()


def test_it_goes_on_with_fewer_rows_after_it_has_found_no_room(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    one = arena.take(64).kept.numel()
    room(monkeypatch, arena, 2.5 * one)
    rows = [arena.take(64) for _ in range(2)]
    for kept in (False, True):
        with pytest.raises(torch.OutOfMemoryError):
            arena.take(64)
        if not kept:  # of a step that is undone, a row goes, and another comes
            del rows[1:]
            rows += [arena.take(64)]
            for number, row in enumerate(rows):
                row.kept[:] = number
        assert [row.kept.unique().tolist() for row in rows] == [[0], [1]]
