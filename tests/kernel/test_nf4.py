import pytest
import torch
from torch import nn

from dlmlab.model.quantize import nf4
from tests.kernel.conftest import DEVICE, DTYPE


def packed_layers(draw, shapes):
    from dlmlab.model.projection import packed_weights

    layers = [nf4(nn.Linear(inner, outer, bias=False, device="meta"), draw(outer, inner)) for outer, inner in shapes]
    return layers, packed_weights(layers)


def dense(layer) -> torch.Tensor:
    import bitsandbytes as bnb

    return bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)


@pytest.mark.parametrize("shapes", [[(128, 128)], [(256, 192), (512, 192), (256, 192)]])
def test_unpacked_weights_are_bitsandbytes_to_the_bit(draw, shapes) -> None:
    from dlmlab.kernel.nf4 import unpack

    layers, packed = packed_layers(draw, [(rows * 2, inner * 2) for rows, inner in shapes])
    weights = torch.cat([dense(layer) for layer in layers])
    rows = packed.shape[0]
    assert torch.equal(unpack(packed, 0, rows, DTYPE).to(weights.dtype), weights)
    assert torch.equal(unpack(packed, rows // 4, rows // 2, DTYPE).to(weights.dtype), weights[rows // 4 : rows // 2])


def test_many_rows_are_multiplied_by_aligned_columns(draw, near, monkeypatch) -> None:
    from dlmlab.kernel import nf4 as kernel

    begins, unpack = [], kernel.unpack
    monkeypatch.setattr(kernel, "UNPACKED", 100 * 192 + 5)
    monkeypatch.setattr(
        kernel, "unpack", lambda packed, begin, *more: begins.append(begin) or unpack(packed, begin, *more)
    )
    [layer], packed = packed_layers(draw, [(256, 192)])
    x = draw(kernel.ROWS + 1, 192)
    near(kernel.matmul(x, packed), x.float() @ dense(layer).float().T, 8e-3)
    assert begins == [0, 64, 128, 192]


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [1, 17, 96, 128, 200, 768])
@pytest.mark.parametrize(("outer", "inner"), [(4096, 4096), (512, 256), (12288, 4096), (4096, 12288), (320, 1024)])
def test_both_products_are_those_of_the_unpacked_weights(draw, near, rows, outer, inner) -> None:
    from dlmlab.kernel.nf4 import matmul, matmul_few

    _, packed = (layers := packed_layers(draw, [(outer, inner)]))
    x = draw(rows, inner)
    exact = x.float() @ dense(layers[0][0]).float().T
    for multiply in (matmul, matmul_few):
        near(multiply(x, packed), exact)
        assert torch.equal(multiply(x, packed), multiply(x, packed))


def test_the_modules_still_answer(draw, near) -> None:
    layers, packed = packed_layers(draw, [(128, 256), (256, 256)])
    assert layers[1].weight.data.untyped_storage().data_ptr() == packed.codes.untyped_storage().data_ptr()
    x = draw(3, 256).to(torch.bfloat16)
    for layer in layers:
        near(layer(x).to(DEVICE), x.float() @ dense(layer).float().T, 8e-3)
