import pytest
import torch
import torch.nn.functional as F

from dlmlab.model.config import NetworkConfig
from dlmlab.model.rotary import rotary_tables, rotate

CAPACITY = 100
FLOAT8_TOLERANCE = 0.03 if torch.cuda.is_available() else 0.06  # Triton's interpreter cuts off instead of rounding


@pytest.mark.parametrize("kept_in", [None, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize(
    ("tiles", "block_length", "turned"), [(1, 0, 0), (4, 0, 0), (1, 8, 16), (4, 4, 16), (1, 64, 0)], ids=str
)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "width", "splits"), [(6, 2, 32, 1), (2, 2, 128, 2), (2, 1, 64, 4)], ids=str
)
def test_new_tokens_attend_to_all_that_their_row_has_kept(
    draw, near, heads, kv_heads, width, splits, tiles, block_length, turned, kept_in
) -> None:
    """Three rows: one computes a part of itself, one all or its end, one a single token; slots lie in another order."""
    from dlmlab.kernel.attention import Reach
    from dlmlab.kernel.cached_attention import KeptRows, cached_attention

    first = 40 if tiles == 1 else 0  # one tile holds 32 tokens
    new = [torch.arange(40, 75 - first // 4), torch.arange(first, 70), torch.tensor([3])]
    keys, slots = [90, 70, 5], [2, 0, 1]
    kept = draw(2, 4 * CAPACITY, kv_heads, width).to(kept_in)  # a fourth slot must not change
    drawn = kept.float().clone()
    for at, own in zip(slots, new, strict=True):
        if block_length:  # what is kept behind the last block that is seen may be anything
            end = (int(own[-1]) // block_length + 1) * block_length
            kept[:, at * CAPACITY + end : (at + 1) * CAPACITY] = torch.nan
    before = kept.to(torch.float32)
    tokens = sum(map(len, new))
    qkv = draw(tokens + 6, (heads + 2 * kv_heads) * width)  # six that are no tokens
    config = NetworkConfig(head_dim=width, max_sequence_length=128, rotary_width=turned)
    tables = rotary_tables(config, qkv.device)
    base = [slot * CAPACITY for slot in slots]
    into = torch.cat([own + at for own, at in zip(new, base, strict=True)] + [torch.full((6,), -1)])
    position = torch.cat([*new, torch.zeros(6)])
    begin = torch.tensor([0, *map(len, new), 0]).cumsum(0)  # and a row that isn't there
    told = (position, into, begin, torch.tensor([*base, 0]), torch.tensor([*keys, 0]))
    rows = KeptRows(*(each.to(qkv.device, torch.int32) for each in told))
    mixed = qkv.new_empty(len(qkv), heads * width)
    part = None if splits == 1 else torch.empty(splits, len(qkv), heads, width + 2, device=qkv.device)
    cached_attention(qkv, rows, Reach(tiles, block_length), tables, kept, mixed, part)

    sizes = [heads * width, kv_heads * width, kv_heads * width]
    q, k, v = (each.unflatten(-1, (-1, width))[:tokens] for each in qkv.split(sizes, -1))
    cos, sin = (table[position[:tokens].long()] for table in tables)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    wanted = before.clone()
    wanted[:, into[:tokens]] = torch.stack((k, v)).float()
    near(
        *(each.where(~before.isnan(), drawn) for each in (kept.float(), wanted)),
        *([] if kept_in is None else [FLOAT8_TOLERANCE]),
    )
    assert torch.equal(kept[:, 3 * CAPACITY :].float(), before[:, 3 * CAPACITY :])
    wanted = kept.float().nan_to_num()
    for at, low, own, length in zip(base, begin.tolist(), new, keys, strict=False):
        count = len(own)
        own_k, own_v = wanted[:, at : at + length].double().repeat_interleave(heads // kv_heads, 2).transpose(1, 2)
        seen = torch.arange(length) // (block_length or length) <= (own // (block_length or length))[:, None]
        exact = F.scaled_dot_product_attention(
            q[None, low : low + count].transpose(1, 2).double(), own_k[None], own_v[None], seen.to(qkv.device)
        )
        near(mixed[low : low + count], exact[0].transpose(0, 1).flatten(1))
