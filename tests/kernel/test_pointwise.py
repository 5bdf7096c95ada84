import pytest
import torch
import torch.nn.functional as F


@pytest.mark.parametrize("width", [192, 4096])
@pytest.mark.parametrize("adds", [False, True])
def test_add_norm_adds_in_place_and_norms(draw, near, width, adds) -> None:
    from dlmlab.kernel.pointwise import add_norm

    x, weight = draw(5, width), draw(width)
    y = draw(5, width) if adds else None
    total = x.clone() if y is None else x + y
    out = add_norm(x, y, weight, 1e-5, False)
    assert torch.equal(x, total)
    near(out, F.rms_norm(total.double(), (width,), weight.double(), 1e-5))


@pytest.mark.parametrize("width", [192, 5000])
def test_swiglu_is_the_gated_activation(draw, near, width) -> None:
    from dlmlab.kernel.pointwise import swiglu

    h = draw(3, 2 * width)
    near(swiglu(h, False), F.silu(h[:, :width].double()) * h[:, width:].double())


@pytest.mark.gpu
def test_rows_in_fp8_are_those_of_torch(draw) -> None:
    from dlmlab.kernel.pointwise import add_norm, quantize, swiglu
    from dlmlab.model.quantize import rounded

    x = draw(7, 256)
    x[3] = 0
    values, scale = quantize(x)
    expected, expected_scale = rounded(x)
    assert torch.equal(scale, expected_scale)
    assert torch.equal(values.float(), expected.float())
    for made, plain in (
        (add_norm(x.clone(), None, x[0], 1e-5, True), add_norm(x.clone(), None, x[0], 1e-5, False)),
        (swiglu(x, True), swiglu(x, False)),
    ):
        error = (made.values.float() * made.scale[:, None] - plain.float()).norm() / plain.float().norm()
        assert error < 0.04
