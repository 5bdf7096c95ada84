import pytest
import torch
import torch.nn.functional as F

from dlmlab.model.config import NetworkConfig
from dlmlab.model.rotary import rotary_tables, rotate


@pytest.mark.parametrize(
    ("lengths", "heads", "kv_heads", "width"), [([45, 12], 6, 2, 32), ([96], 2, 2, 128), ([7, 70, 1], 2, 1, 64)]
)
@pytest.mark.parametrize(("offset", "block_length", "turned"), [(0, 0, 0), (5, 0, 0), (0, 4, 16), (5, 32, 8)])
def test_attention_is_torchs_after_rotation(
    draw, near, lengths, heads, kv_heads, width, offset, block_length, turned
) -> None:
    from dlmlab.kernel.attention import Reach, attention

    positions = sum(lengths)
    qkv = draw(positions + 3, (heads + 2 * kv_heads) * width)
    config = NetworkConfig(head_dim=width, max_sequence_length=128, rotary_width=turned)
    tables = rotary_tables(config, qkv.device)
    position = torch.cat([torch.arange(length) + offset for length in lengths] + [torch.zeros(3)])
    begin = torch.tensor([0, *lengths, 0]).cumsum(0)  # and a row that isn't there
    position, begin = (each.to(qkv.device, torch.int32) for each in (position, begin))
    mixed = qkv.new_empty(len(qkv), heads * width)
    attention(qkv, position, begin, Reach(2, block_length), tables, (heads, kv_heads), mixed)
    cos, sin = (table[position.long()] for table in tables)
    parts = qkv.split([heads * width, kv_heads * width, kv_heads * width], -1)
    q, k, v = (part.unflatten(-1, (-1, width))[None] for part in parts)
    q, k, v = (part.transpose(1, 2).double() for part in (rotate(q, cos, sin), rotate(k, cos, sin), v))
    k, v = (part.repeat_interleave(heads // kv_heads, 1) for part in (k, v))
    for low, length in zip(begin.tolist(), lengths, strict=False):
        row = slice(low, low + length)
        block = position[row] // block_length if block_length else position[row] * 0
        seen = block <= block[:, None]
        exact = F.scaled_dot_product_attention(q[:, :, row], k[:, :, row], v[:, :, row], attn_mask=seen)
        near(mixed[row], exact.transpose(1, 2).flatten(2)[0])
