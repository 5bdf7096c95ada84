import pytest
import torch
import torch.nn.functional as F

from dlmlab.model.llada import LLaDAConfig, rotary_tables, rotate


@pytest.mark.parametrize(
    ("rows", "length", "heads", "kv_heads", "width"), [(2, 45, 6, 2, 32), (1, 96, 2, 2, 128), (3, 7, 2, 1, 64)]
)
@pytest.mark.parametrize("padded", [False, True])
def test_attention_is_torchs_after_rotation(draw, near, rows, length, heads, kv_heads, width, padded) -> None:
    from dlmlab.kernel.attention import attention

    qkv = draw(rows, length, (heads + 2 * kv_heads) * width)
    tables = rotary_tables(LLaDAConfig(d_model=heads * width, n_heads=heads, max_sequence_length=128), qkv.device)
    mask = torch.ones(rows, length, dtype=torch.bool, device=qkv.device)
    if padded:
        mask[-1, length // 2 :] = False
    q, k, v = (
        part.unflatten(-1, (-1, width)) for part in qkv.split([heads * width, kv_heads * width, kv_heads * width], -1)
    )
    cos, sin = (table[:length] for table in tables)
    q, k, v = (part.transpose(1, 2).double() for part in (rotate(q, cos, sin), rotate(k, cos, sin), v))
    k, v = (part.repeat_interleave(heads // kv_heads, 1) for part in (k, v))
    exact = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None]).transpose(1, 2).flatten(2)
    mixed = attention(qkv, tables, mask if padded else None, heads, kv_heads)
    near(mixed[mask], exact[mask])
