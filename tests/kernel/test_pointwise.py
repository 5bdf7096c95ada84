import pytest
import torch
import torch.nn.functional as F

FORMS = [(1, False), (2, False), (1, True), (3, True)]


@pytest.mark.parametrize("width", [192, 4096])
@pytest.mark.parametrize("form", [None, *FORMS])
def test_add_norm_adds_in_place_and_norms(draw, near, product, width, form) -> None:
    from dlmlab.kernel.pointwise import add_norm

    x, weight = draw(5, width), draw(width)
    before = x.clone()
    y, exact = (None, 0.0) if form is None else product(5, width, *form)
    out = add_norm(x, y, weight, 1e-5, False)
    near(x, before.double() + exact)
    near(out, F.rms_norm(x.double(), (width,), weight.double(), 1e-5))


def test_each_heads_query_and_key_are_normed_in_place_and_its_value_is_not(draw, near) -> None:
    from dlmlab.kernel.pointwise import norm_heads

    heads, kv_heads, width = 6, 2, 32
    qkv, of_queries, of_keys = draw(5, (heads + 2 * kv_heads) * width), draw(width), draw(width)
    exact = qkv.double().unflatten(-1, (-1, width))
    for part, weight in ((slice(heads), of_queries), (slice(heads, heads + kv_heads), of_keys)):
        exact[:, part] = F.rms_norm(exact[:, part], (width,), weight.double(), 1e-5)
    norm_heads(qkv, of_queries, of_keys, heads, 1e-5)
    near(qkv, exact.flatten(1))


@pytest.mark.parametrize("width", [192, 5000])
@pytest.mark.parametrize("form", FORMS)
def test_swiglu_is_the_gated_activation(near, product, width, form) -> None:
    from dlmlab.kernel.pointwise import swiglu

    h, exact = product(3, 2 * width, *form)
    near(swiglu(h, False), F.silu(exact[:, :width]) * exact[:, width:])


@pytest.mark.gpu
def test_rows_in_fp8_are_those_of_torch(draw) -> None:
    from dlmlab.kernel.pointwise import Product, add_norm, quantize, swiglu
    from dlmlab.model.quantize import rounded

    x = draw(7, 256)
    x[3] = 0
    values, scale = quantize(x)
    expected, expected_scale = rounded(x)
    assert torch.equal(scale, expected_scale)
    assert torch.equal(values.float(), expected.float())
    for made, plain in (
        (add_norm(x.clone(), None, x[0], 1e-5, True), add_norm(x.clone(), None, x[0], 1e-5, False)),
        (swiglu(Product(x[None]), True), swiglu(Product(x[None]), False)),
    ):
        error = (made.values.float() * made.scale - plain.float()).norm() / plain.float().norm()
        assert error < 0.04
    halves = swiglu(Product(x[None]), True, parts=2)
    assert halves.scale.shape == (7, 2)
    error = (halves.values.float().view(7, 2, -1) * halves.scale[..., None]).flatten(1) - plain.float()
    assert error.norm() / plain.float().norm() < 0.04
