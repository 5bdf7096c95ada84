import pytest
import torch


@pytest.mark.parametrize("width", [192, 2500])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_gathered_rows_are_those_of_the_ids(draw, width, dtype) -> None:
    from dlmlab.kernel.embedding import gather

    weight = draw(50, width)
    ids = torch.tensor([3, 49, 0, 3], dtype=dtype, device=weight.device)
    out = torch.full((5, width), 7.0, dtype=weight.dtype, device=weight.device)
    gather(weight, ids, out[:4])
    assert torch.equal(out[:4], weight[ids.long()])
    assert (out[4] == 7).all()
