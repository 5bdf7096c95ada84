import pytest
import torch
import torch.nn.functional as F

SHAPES = [(1, 512, 512), (20, 128, 1024), (32, 192, 512), (64, 512, 256)]


def few():
    from dlmlab.kernel import few

    return few


@pytest.mark.parametrize(("rows", "columns", "inner"), SHAPES)
@pytest.mark.parametrize("whole", [False, True])
def test_parts_add_up_to_the_product(draw, near, rows, columns, inner, whole) -> None:
    x, weight = draw(rows, inner), draw(columns, inner)
    parts = few().parts_of(weight, whole)
    assert parts == (1 if whole or columns > inner else few().PARTS)
    out = few().matmul_few(x, weight, parts)
    assert out.shape == (parts, rows, columns)
    near(out.double().sum(0), x.double() @ weight.double().T)


@pytest.mark.parametrize("scales", [1, 4])
def test_each_part_has_a_scale_of_its_own_where_rows_have_as_many(draw, near, scales) -> None:
    x, weight = draw(20, 1024), draw(128, 1024)
    scale_M, scale_N = draw(20, scales).float().abs(), draw(128, 1).float().abs()
    out = few().matmul_few(x, weight, 4, (scale_M, scale_N))
    whole = x.double().view(20, scales, -1) * scale_M.double()[..., None]
    near(out.double().sum(0), (whole.flatten(1) @ weight.double().T) * scale_N.double().T)


@pytest.mark.parametrize(("rows", "columns", "inner"), SHAPES)
def test_a_gated_product_is_that_of_both_halves(draw, near, rows, columns, inner) -> None:
    x, weight = draw(rows, inner), draw(2 * columns, inner) / inner**0.5
    gate, up = (x.double() @ weight.double().T).chunk(2, -1)
    near(few().gated_few(x, weight), F.silu(gate) * up)


@pytest.mark.gpu
def test_fp8_is_multiplied_as_it_is(draw, near) -> None:
    x, weight = (draw(*shape).to(torch.float8_e4m3fn) for shape in ((20, 1024), (128, 1024)))
    scale_M, scale_N = draw(20, 4).float().abs(), draw(128, 1).float().abs()
    out = few().matmul_few(x, weight, 4, (scale_M, scale_N))
    whole = x.double().view(20, 4, -1) * scale_M.double()[..., None]
    near(out.double().sum(0), (whole.flatten(1) @ weight.double().T) * scale_N.double().T)


@pytest.mark.parametrize(("capability", "wanted"), [((8, 9), False), ((9, 0), True), ((12, 0), True)])
def test_cards_whose_tiles_are_not_asked_for_ahead_keep_to_cublas(monkeypatch, capability, wanted) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert few().asks_ahead.__wrapped__(torch.device("cuda", 0)) == wanted


@pytest.mark.parametrize("shape", [(100, 256), (128, 96)])
def test_a_matrix_that_tiles_do_not_cover_is_left_alone(draw, shape) -> None:
    assert few().parts_of(draw(*shape)) == 0
