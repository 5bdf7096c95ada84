"""The fast pass against the plain one, on a GPU; and what can't have it, anywhere."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dlmlab.cache.d2cache import D2Cache
from dlmlab.cache.dkv import DKV
from dlmlab.cache.dllm import DLLM
from dlmlab.cache.dpad import DPad
from dlmlab.cache.dual import Dual
from dlmlab.cache.exact import Exact
from dlmlab.cache.sparse import Sparse
from dlmlab.cache.suffix import Suffix
from dlmlab.decoder.baseline import Baseline
from dlmlab.denoiser import Query, Reuse
from dlmlab.errors import UserError
from dlmlab.generation import generate
from dlmlab.model.cached import cached_pass
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.model.loader import load
from dlmlab.model.quantize import check_float8
from dlmlab.policy import Policy
from tests.model.families import CONFIGS
from tests.model.helpers import save_small, small_model

WIDE = {"d_model": 256, "n_heads": 4, "mlp_hidden_size": 512, "max_sequence_length": 256}
FORMS = [("none", "auto"), ("nf4", "auto"), ("nf4", "fused"), ("nf4", "bnb"), ("fp8", "auto")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_small(tmp_path / "small", **WIDE)
    return tmp_path / "small"


@pytest.mark.gpu
@pytest.mark.parametrize(("quantization", "nf4_kernel"), FORMS)
@pytest.mark.parametrize("padded", [False, True])
def test_the_fast_pass_answers_what_the_plain_one_does(
    folder: Path, quantization: str, nf4_kernel: str, padded: bool
) -> None:
    how = {"dtype": "bfloat16", "device": "cuda", "quantization": quantization}
    plain = load(str(folder), compile=False, **how)
    fast = load(str(folder), compile=True, nf4_kernel=nf4_kernel, **how)
    for seed in range(4):  # the first pass is not recorded, the second is, the others are replayed
        torch.manual_seed(seed)
        ids = torch.randint(0, 94, (3, 50), device="cuda")
        mask = torch.ones_like(ids, dtype=torch.bool)
        mask[1, 30 + seed :] = False
        where = torch.randint(0, 30, (20 + seed,), device="cuda")
        with torch.inference_mode():
            exact, near = (model.hidden(Query(ids, mask if padded else None, where)).float() for model in (plain, fast))
        assert (exact - near).norm() / exact.norm() < (0.06 if quantization == "fp8" else 0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("cache", [None, Dual()])
def test_answers_are_the_same_with_the_embedding_on_the_host(folder: Path, compile: bool, cache: Policy | None) -> None:
    """Whose memory the GPU then has for other things."""
    prompts, answers, taken = [[1, 2, 3], [4, 5, 6, 7, 8]], [], []
    for embedding_device in ("auto", "cpu"):
        before = torch.cuda.memory_allocated()
        model = load(str(folder), "bfloat16", "cuda", compile=compile, embedding_device=embedding_device)
        taken.append(torch.cuda.memory_allocated() - before)
        decoded = generate(model, prompts * 2, Baseline(), gen_length=32, block_length=8, steps=32, cache=cache)
        answers.append([output.tokens for output in decoded])
        assert model.device.type == "cuda"
        del model
    assert answers[0] == answers[1]
    assert taken[0] - taken[1] >= 94 * WIDE["d_model"] * 2


@pytest.mark.gpu
def test_plain_modules_see_the_same_memory(folder: Path) -> None:
    how = {"dtype": "bfloat16", "device": "cuda"}
    plain, fast = (load(str(folder), compile=compile, **how) for compile in (False, True))
    ids = torch.randint(0, 94, (2, 30), device="cuda")
    assert torch.equal(plain(ids).logits, fast(ids).logits)
    block = fast.model.transformer.blocks[0]
    assert block.q_proj.weight.untyped_storage().data_ptr() == block.v_proj.weight.untyped_storage().data_ptr()


@pytest.mark.gpu
@pytest.mark.parametrize("quantization", ["none", "nf4", "fp8"])
def test_answers_are_the_same_twice_and_whatever_was_recorded_before(folder: Path, quantization: str) -> None:
    model = load(str(folder), dtype="bfloat16", device="cuda", quantization=quantization)
    assert (model.packs_rows, model.greedy_kernel, model.works_ahead) == (True, True, True)
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8], [9] * 20]
    runs = [generate(model, prompts, Baseline(), gen_length=32, steps=16, batch_size=2) for _ in range(3)]
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.gpu
def test_auto_leaves_what_it_cannot_do_to_the_plain_pass(folder: Path) -> None:
    assert not load(str(folder), dtype="float32", device="cuda").packs_rows
    assert not load(str(folder), dtype="bfloat16", device="cuda", quantization="int8").packs_rows
    with pytest.raises(UserError, match="dtype=float32"):
        load(str(folder), dtype="float32", device="cuda", compile=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there the kernels are compiled")
@pytest.mark.parametrize(
    ("padded", "more"),
    [
        (False, {}),
        (True, {}),
        (True, {"mlp_hidden_size": 511}),
        (True, {"include_qkv_bias": True, "n_kv_heads": 2}),
        (False, {"weight_tying": True, "n_kv_heads": 1}),
    ],
)
def test_its_kernels_interpreted_answer_what_the_plain_pass_does(tmp_path: Path, padded: bool, more: dict) -> None:
    pytest.importorskip("triton")
    from dlmlab.model.fast import Fast

    save_small(tmp_path / "small", **WIDE | more)
    model = load(str(tmp_path / "small"), device="cpu", dtype="float32")
    ids = torch.randint(0, 94, (3, 40), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, 25:] = mask[2, :7] = False
    where = torch.tensor([0, 3, 24, 41, 79, 95, 119])
    with torch.inference_mode():
        exact = model.hidden(Query(ids, mask if padded else None, where))
        fast = Fast(model, "auto")
        near = fast(Query(ids, mask if padded else None, where))
        torch.testing.assert_close(near, exact, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(fast.head(exact), model.head(exact), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("float8", [False, True])
def test_many_rows_go_through_an_mlp_in_parts(monkeypatch: pytest.MonkeyPatch, float8: bool) -> None:
    pytest.importorskip("triton")
    from dlmlab.kernel.pointwise import Float8, Product
    from dlmlab.model import projection

    monkeypatch.setattr(projection, "MOST_ROWS", 32)
    seen = []

    def work(x: Any) -> Product:
        seen.append(len(x[0]) if float8 else len(x))
        values = x.values * 1.0 if float8 else x
        return Product(torch.stack((values, 2 * values)), x.scale if float8 else None, torch.ones(1, 4))

    values = torch.arange(400.0).view(100, 4)
    x = Float8(values, torch.arange(100.0).view(100, 1)) if float8 else values
    made, whole = projection.in_parts(work, x), work(x)
    assert seen == [32, 32, 32, 4, 100]
    for part, expected in zip(made, whole, strict=True):
        assert part is expected or torch.equal(part, expected)


def reusing(rows: list[list[int]], seed: int) -> Query:
    """A pass over these positions of rows whose stores are still to be named; every third of them is asked for."""
    longest = max(map(len, rows))
    ids = torch.randint(0, 94, (len(rows), longest), generator=torch.Generator().manual_seed(seed))
    real = torch.arange(longest) < torch.tensor([[len(row)] for row in rows])
    position = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return Query(ids, real, real.flatten().nonzero()[::3, 0], Reuse(position, none := [None] * len(rows), [], none))


def record(fast: Any, recorded: Any) -> SimpleNamespace:
    """A stand-in for a graph, which does again what was recorded, in the same memory."""
    packed, *written = recorded.packed, recorded.x_TD, recorded.mixed_TD
    return SimpleNamespace(replay=lambda: fast._mix(packed, *written))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_pass_over_kept_rows_answers_what_the_plain_one_does(
    tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows come and go in the arena, which grows under them; a slot is used again by another row."""
    pytest.importorskip("triton")
    if device == "cpu" and torch.cuda.is_available():
        pytest.skip("with a GPU the kernels are compiled")
    from dlmlab.model import pack
    from dlmlab.model.fast import Fast

    monkeypatch.setattr(pack, "PROGRAMS", 8)  # some passes share keys out then, and others don't
    if device == "cpu":
        monkeypatch.setattr(Fast, "_record", record)
    save_small(tmp_path / "small", **WIDE | {"d_model": 64, "n_heads": 2, "mlp_hidden_size": 64})
    dtype, error = ("float32", 1e-5) if device == "cpu" else ("bfloat16", 0.02)
    model = load(str(tmp_path / "small"), device=device, dtype=dtype, compile=False)
    fast = Fast(model, "auto")
    plain, own = {}, {}
    passes = [
        ({"a": 90}, {"a": range(90)}),
        ({}, {"a": range(40, 72)}),
        ({"b": 70, "c": 120}, {"a": range(40, 72), "b": range(70), "c": range(120)}),
        ({}, {"c": range(3), "a": range(64, 90), "b": [1, 5, 69]}),
        ({"a": 100}, {"a": range(100), "b": range(30, 62)}),
    ]

    def check(query: Query, reuse: list[Reuse]) -> None:
        with torch.inference_mode():
            exact, near = model.hidden(query._replace(reuse=reuse[0])), fast(query._replace(reuse=reuse[1]))
        assert (exact.float() - near.float()).norm() / exact.float().norm() < error

    asked: list[Any] = []
    for seed, (new, computed) in enumerate(passes):
        for name, length in new.items():
            own.pop(name, None)  # its slot is free again
            plain[name], own[name] = model.new_store(length), fast.arena.take(length)
        query = reusing([list(positions) for positions in computed.values()], seed)
        stores = [[of[name] for name in computed] for of in (plain, own)]
        reuse = [query.reuse._replace(stores=each) for each in stores]
        for turn in range(3):  # over the same positions again; recorded the second time, then replayed
            query = query._replace(tokens_BL=(query.tokens_BL + turn) % 94, wanted_N=query.wanted_N[turn % 2 :])
            check(query, reuse)
        if seed == 1:
            check(*asked.pop())  # between two passes over these positions others come
            check(query, reuse)
            more = [fast.arena.take(90) for _ in range(3)]  # the rows lie elsewhere then
            check(query, reuse)
            del more
        for name in computed:
            wanted, kept = (of[name].kept.float() for of in (plain, own))
            assert (kept - wanted).norm() / wanted.norm() < error, name
        asked = [(query, reuse)] if seed == 0 else []
    assert (fast.arena.slots, len(fast.arena.free)) == (4, 1)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("cache", [None, Exact()], ids=["no_cache", "exact"])
@pytest.mark.parametrize("family", ["sdar", "llada2"])
def test_block_causal_answers_are_the_plain_passes(
    family: str,
    device: str,
    cache: Policy | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Heads have norms of their own, no position sees a later block, and LLaDA2 has experts and half-turned heads.

    Interpreted in float32 the tokens are the same; in bfloat16 a pass is the same within rounding.
    """
    pytest.importorskip("triton")
    if device == "cpu" and torch.cuda.is_available():
        pytest.skip("with a GPU the kernels are compiled")
    from dlmlab.model.fast import Fast
    from dlmlab.model.pack import KeptShape

    if device == "cpu":
        monkeypatch.setattr(LLaDAModelLM, "greedy_kernel", False)
        monkeypatch.setattr(Fast, "_record", record)
    config, dtype = CONFIGS[family] | {"head_dim": 32}, "float32" if device == "cpu" else "bfloat16"
    model = load("none", device=device, dtype=dtype, load_format="dummy", config=config, compile=False)
    prompts = [[1, 2, 3], [*range(20)]]

    def answers() -> list[tuple[int, ...]]:
        return [out.tokens for out in generate(model, prompts, Baseline(), **settings, batch_size=2)]

    settings = {"gen_length": 8, "block_length": 4, "steps": 4, "cache": cache}
    plain, fast = answers(), Fast(model, "auto")
    ids = torch.arange(90).reshape(2, 45)
    query = Query(ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(0, 90, 7), block_length=8)
    with torch.inference_mode():
        exact = model.hidden(query).float()
        near = fast(query).float()
    assert (exact - near).norm() / exact.norm() < (1e-5 if device == "cpu" else 0.02)
    model.fast = fast
    again = answers()
    assert again == plain or device == "cuda"
    assert any(isinstance(shape, KeptShape) for shape in fast._seen) == (cache is not None)
    assert not caplog.records


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        (Dual(), None),
        (DKV(), None),
        (Suffix(4), "leaves positions out"),
        (DPad(4), "leaves positions out"),
        (D2Cache(4), "looks into the pass"),
        (Sparse(), "looks into the pass"),
        (DLLM(), "looks into the pass"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_cache_that_takes_the_plain_pass_says_so_once(
    cache: Policy, said: str | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the kernels, which asks the plain pass."""
    pytest.importorskip("triton")
    from dlmlab.model.fast import Fast

    def generated() -> list[tuple[int, ...]]:
        outs = generate(model, [[1, 2, 3], [4, 5]], Baseline(), gen_length=24, block_length=8, steps=24, cache=cache)
        return [(*out.tokens, out.positions) for out in outs]

    model = small_model()
    plain, fast = generated(), Fast(model, "auto")
    recorded = []

    def ready(query: Query) -> SimpleNamespace:
        recorded.append(query)
        asked = lambda wanted_N: cached_pass(model.model, query._replace(wanted_N=wanted_N), model.head)  # noqa: E731
        return SimpleNamespace(begin=lambda: None, hidden=asked)

    monkeypatch.setattr(fast, "ready", ready)
    monkeypatch.setattr(LLaDAModelLM, "greedy_kernel", False)
    model.fast = fast
    assert generated() == generated() == plain
    lines = [each.getMessage() for each in caplog.records]
    assert lines == ([] if said is None else [f"the cache {said}: such passes are the plain ones, and not recorded"])
    assert (said == "looks into the pass") == (not recorded)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there graphs are recorded")
def test_passes_of_all_shapes_share_their_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from dlmlab.model.fast import Fast

    monkeypatch.setattr(Fast, "_record", record)
    model = load(str(folder), device="cpu", dtype="float32")
    fast = Fast(model, "auto")
    for seed, (rows, length) in enumerate([(1, 20), (1, 20), (3, 30), (1, 20), (3, 30), (3, 30), (1, 18)]):
        ids = torch.randint(0, 94, (rows, length), generator=torch.Generator().manual_seed(seed))
        where = torch.arange(3, rows * length, 7)
        with torch.inference_mode():
            torch.testing.assert_close(
                fast(Query(ids, None, where)), model.hidden(Query(ids, None, where)), rtol=1e-4, atol=1e-4
            )
    assert [shape.positions for shape in fast._recorded] == [96, 32]


def test_a_cpu_has_no_fast_pass(folder: Path) -> None:
    assert not load(str(folder), device="cpu").packs_rows
    with pytest.raises(UserError, match="compile=true needs a CUDA device"):
        load(str(folder), device="cpu", compile=True)
    with pytest.raises(UserError, match="compile='maybe' is not one of auto, true, false"):
        load(str(folder), device="cpu", compile="maybe")


def test_fp8_is_refused_without_its_units(folder: Path) -> None:
    with pytest.raises(UserError, match="quantization=fp8 needs a GPU that multiplies FP8"):
        load(str(folder), device="cpu", quantization="fp8")


def test_an_older_card_keeps_keys_and_values_in_its_own_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "an RTX 3060")
    with pytest.raises(UserError, match=r"kv_cache_dtype=fp8 needs .* this is an RTX 3060: set kv_cache_dtype=auto"):
        check_float8(torch.device("cuda"), "kv_cache_dtype=fp8", "kv_cache_dtype=auto")


@pytest.mark.parametrize(("positions", "more"), [(1, 16), (96, 96), (100, 112), (257, 288), (768, 768), (770, 832)])
def test_few_shapes_are_recorded(positions: int, more: int) -> None:
    pytest.importorskip("triton")
    from dlmlab.model.pack import rounded_up

    assert rounded_up(positions) == more
    assert all(0 <= rounded_up(each) - each < max(16, each / 8) for each in range(1, 5000))


def test_a_pass_that_never_began_is_not_recorded(tmp_path: Path) -> None:
    """Kernels that have never run can't be recorded."""
    pytest.importorskip("triton")
    from dlmlab.model.fast import Fast

    save_small(tmp_path / "small", **WIDE)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = Fast(load(str(tmp_path / "small"), device=device, dtype="float32"), "auto")
    for _ in range(2):
        fast.ready(Query(torch.ones(1, 8, dtype=torch.int64)))
    assert (fast._recorded, fast._seen) == ({}, set())


def test_rows_are_packed_without_their_padding() -> None:
    pytest.importorskip("triton")
    from dlmlab.model.pack import Shape, rows_layout

    ids = torch.tensor([[7, 8, 9, 0], [0, 0, 5, 6], [3, 0, 0, 4]])
    query = Query(ids, ids != 0)
    layout = rows_layout(query)
    packed = layout.packed
    layout.write(ids, packed, False)
    assert packed.shape == Shape(16, 4, 1, 0)
    ids_T, position_T, begin_B = (part.tolist() for part in (packed.ids(), *packed.rows()))
    assert ids_T == [7, 8, 9, 5, 6, 3, 4] + [0] * 9
    assert position_T == [0, 1, 2, 2, 3, 0, 3] + [0] * 9
    assert begin_B == [0, 3, 5, 7, 7]
    assert layout.where(torch.tensor([2, 7, 11, 8])).tolist() == [2, 4, 6, 5]
    assert layout.fits(query._replace(wanted_N=torch.tensor([2])))
    assert not layout.fits(query._replace(real_BL=None))
    assert not layout.fits(query._replace(tokens_BL=ids.clone()))
    whole = rows_layout(Query(torch.arange(12).reshape(3, 4)))
    whole.write(torch.arange(12).reshape(3, 4), whole.packed, False)
    assert [part.tolist() for part in (whole.packed.ids(), *whole.packed.rows())] == [
        [*range(12), 0, 0, 0, 0],
        [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 0, 0, 0],
        [0, 4, 8, 12, 12],
    ]
    assert whole.where(torch.tensor([1, 11])).tolist() == [1, 11]
