import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dlmlab.errors import UserError
from dlmlab.model import checkpoint, digest
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.model.loader import load
from tests.conftest import ROOT
from tests.model.helpers import SMALL, VECTORS, edit_config, save_small, shard

IDS = torch.tensor([[3, 17, 95, 2, 60, 95, 41, 8]])
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_small(tmp_path / "small")
    return tmp_path / "small"


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def kinds(model: LLaDAModelLM) -> set[str]:
    return {type(getattr(block, name)).__name__ for block in model.model.transformer.blocks for name in PROJECTIONS}


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    saved = save_small(tmp_path)
    model = load(str(tmp_path), device="cpu")
    assert torch.equal(model(IDS).logits, saved(IDS).logits)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_shards_and_tied_embeddings_load(tmp_path: Path) -> None:
    saved = save_small(tmp_path, weight_tying=True)
    shard(tmp_path)
    assert torch.equal(load(str(tmp_path), device="cpu")(IDS).logits, saved(IDS).logits)


def test_dtype_is_that_of_every_tensor(folder: Path) -> None:
    model = load(str(folder), dtype="bfloat16", device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_the_weights_file_may_change_afterwards(folder: Path) -> None:
    model = load(str(folder), device="cpu")
    before = model(IDS).logits
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(64)
    assert torch.equal(model(IDS).logits, before)


def test_code_beside_a_checkpoint_is_not_run(folder: Path, tmp_path: Path) -> None:
    auto_map = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", None]}
    edit_config(folder, auto_map=auto_map)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    write_tokenizer(folder, {"auto_map": auto_map, "tokenizer_class": "EvilTokenizer"})
    model = load(str(folder), device="cpu")
    assert model.tokenizer is not None
    assert not (tmp_path / "ran").exists()


def write_tokenizer(folder: Path, settings: dict[str, Any]) -> None:
    words = {"a": 0, "b": 1, "<|endoftext|>": 2}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "a"},
        "pre_tokenizer": {"type": "Whitespace"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"} | settings))


def test_tokenizer_is_the_checkpoints(folder: Path) -> None:
    assert load(str(folder), device="cpu").tokenizer is None
    write_tokenizer(folder, {"chat_template": "{{ messages[0]['content'] }} b"})
    tokenizer = load(str(folder), device="cpu").tokenizer
    assert tokenizer is not None
    text = tokenizer.apply_chat_template([{"role": "user", "content": "b a"}], tokenize=False)
    assert tokenizer(text)["input_ids"] == [1, 0, 1]


def test_broken_tokenizer_is_one_line(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer of .* cannot be read"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize(("quantization", "layer"), [("nf4", "Linear4bit"), ("int8", "Linear8bitLt")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_projection_of_a_block_is_quantised_and_nothing_else(
    folder: Path, quantization: str, layer: str, dtype: str
) -> None:
    full = load(str(folder), device="cpu")
    model = load(str(folder), device="cpu", dtype=dtype, quantization=quantization)
    transformer = model.model.transformer
    assert kinds(model) == {layer}
    assert type(transformer.ff_out) is torch.nn.Linear
    assert transformer.wte.weight.dtype == transformer.ff_out.weight.dtype == getattr(torch, dtype)
    with torch.inference_mode():
        exact, near = full(IDS).logits, model(IDS).logits.float()
    assert torch.nn.functional.cosine_similarity(exact.flatten(), near.flatten(), dim=0) > 0.95
    assert not torch.equal(exact, near)


def test_nf4_weights_take_half_a_byte_with_quantised_scales(folder: Path) -> None:
    weight = load(str(folder), device="cpu", quantization="nf4").model.transformer.blocks[1].ff_out.weight
    assert weight.numel() * weight.element_size() == 128 * 192 // 2
    assert weight.quant_state.quant_type == "nf4"
    assert weight.quant_state.nested
    assert weight.quant_state.dtype == torch.bfloat16


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_biases_survive_quantisation(tmp_path: Path, quantization: str) -> None:
    saved = save_small(tmp_path, include_bias=True)
    model = load(str(tmp_path), device="cpu", quantization=quantization)
    assert torch.equal(model.model.transformer.blocks[0].ff_out.bias, saved.model.transformer.blocks[0].ff_out.bias)
    with torch.inference_mode():
        assert model(IDS).logits.isfinite().all()


def test_quantisation_without_bitsandbytes_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match="quantization=nf4 needs bitsandbytes"):
        load(str(folder), device="cpu", quantization="nf4")


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_dummy_weights_need_a_shape_alone_and_are_the_same_each_time(quantization: str) -> None:
    models = [
        load("no-org/no-model", device="cpu", load_format="dummy", quantization=quantization, config=SMALL)
        for _ in range(2)
    ]
    with torch.inference_mode():
        first, second = (model(IDS).logits for model in models)
    assert torch.equal(first, second)
    assert first.isfinite().all()
    assert first.std() > 0
    assert models[0].fingerprint == models[1].fingerprint
    assert models[0].fingerprint.startswith("dummy weights")


def test_dummy_weights_of_a_folder_have_its_shape(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert load(str(folder), device="cpu", load_format="dummy", config=SMALL | {"n_layers": 1}).config.n_layers == 2


def test_fingerprint_says_which_weights(folder: Path, tmp_path: Path) -> None:
    original = load(str(folder), device="cpu").fingerprint
    shutil.copytree(folder, tmp_path / "copy")
    assert load(str(tmp_path / "copy"), device="cpu", dtype="bfloat16").fingerprint == original
    edit_weights(tmp_path / "copy", lambda tensors: tensors["model.transformer.ln_f.weight"].add_(1))
    assert load(str(tmp_path / "copy"), device="cpu").fingerprint != original


def test_a_link_s_name_says_nothing_of_the_weights(folder: Path, tmp_path: Path) -> None:
    original = checkpoint.fingerprint(folder)
    weights = folder / "model.safetensors"
    blob = tmp_path / digest.sha256(weights)  # as the hub's cache calls it
    weights.rename(blob)
    weights.symlink_to(blob)
    assert checkpoint.fingerprint(folder) == original
    blob.write_bytes(b"changed")
    assert checkpoint.fingerprint(folder) != original


def test_a_large_file_s_hash_is_kept_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLMLAB_ROOT", str(tmp_path))
    monkeypatch.setattr(digest, "LARGE", 4)
    (tmp_path / "outputs").mkdir()
    file = tmp_path / "weights"
    file.write_bytes(b"a" * 10)
    first = digest.sha256(file)
    assert digest.known() == {}, "a file that was just written may change within a tick of the clock"
    monkeypatch.setattr(digest, "SETTLED_SECONDS", -1.0)
    assert digest.sha256(file) == first
    assert [*digest.known().values()] == [first]
    times = file.stat()
    with file.open("r+b") as stream:
        stream.write(b"b")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest.sha256(file) != first, "what touch can set back is not all that is looked at"
    digest.cache().write_text("[")
    assert digest.sha256(file) != first


def test_weights_that_differ_in_a_value_a_name_or_a_shape_have_digests_of_their_own() -> None:
    weights = {"a": torch.zeros(2, 3), "b": torch.ones(1, dtype=torch.bfloat16)}
    others = [
        {**weights, "a": torch.zeros(2, 3).index_fill(0, torch.tensor([1]), 1e-6)},
        {**weights, "a": torch.zeros(3, 2)},
        {"c": weights["a"], "b": weights["b"]},
        {**weights, "b": torch.ones(1, dtype=torch.float16)},
    ]
    own = digest.of_tensors(weights)
    assert own == digest.of_tensors(dict(reversed(weights.items())))
    assert len({own, *map(digest.of_tensors, others)}) == 5


OPTIONS = [
    ({"dtype": "float16"}, "dtype='float16' is not one of float32, bfloat16"),
    ({"dtype": None}, "dtype=None"),
    ({"quantization": "fp4"}, "quantization='fp4' is not one of none, nf4, int8"),
    ({"load_format": "pickle"}, "load_format='pickle' is not one of safetensors, dummy"),
    ({"device": "tpu"}, "device='tpu' is not one of auto, cpu, cuda, cuda:N"),
    ({"device": "cuda:99"}, "device=cuda:99 asked for"),
    ({"path": "/nowhere/at/all"}, "'/nowhere/at/all' does not exist"),
    ({"path": "no-such-folder"}, "'no-such-folder' does not exist"),
    ({"path": str(VECTORS / "config.json")}, "is a file"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=[message for _, message in OPTIONS])
def test_bad_option_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        load(**({"path": str(VECTORS), "device": "cpu"} | options))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_cuda_where_there_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device=cuda asked for, but 0 CUDA devices"):
        load(str(VECTORS), device="cuda")
    assert load(str(VECTORS), device="auto").device.type == "cpu"


def test_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host\nat all")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(UserError, match="'org/name' is neither a local folder nor reachable on the hub") as error:
        load("org/name", device="cpu")
    assert "\n" not in str(error.value)


def test_a_hub_that_does_not_answer_is_told_at_once_and_once(tmp_path: Path) -> None:
    """Where nothing listens, huggingface_hub's download tries for half a minute, with two warnings each time."""
    code = "from dlmlab.errors import UserError; from dlmlab.model.place import find\n"
    code += "try: find('org/name', 'a' * 40)\nexcept UserError as error: print(error)"
    places = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    asked = [sys.executable, "-c", code]
    told = subprocess.run(asked, env=os.environ | places, capture_output=True, text=True, timeout=15, cwd=ROOT)
    assert re.fullmatch(r"model 'org/name' is neither .* hub \(ConnectError\): fetch .*\n", told.stdout), told
    assert told.stderr == ""


def test_hub_name_is_fetched_at_its_revision_without_pickles_or_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def fetch(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    load("org/name", device="cpu", revision="abc123")
    assert (asked["name"], asked["revision"]) == ("org/name", "abc123")
    assert not {"*.py", "*.bin", "*.pt", "*"} & set(asked["allow_patterns"])


def test_the_hubs_commit_is_told_whatever_was_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub" / "snapshots" / ("0123456789" * 4)
    shutil.copytree(folder, snapshot)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **options: str(snapshot))
    assert load("org/name", device="cpu", revision="main").commit == "0123456789" * 4
    assert load(str(folder), device="cpu").commit is None


def test_what_comes_from_the_hub_is_pinned_by_its_commit() -> None:
    revisions = [
        line.split()[1]
        for file in (Path(__file__).parents[2] / "conf").rglob("*.yaml")
        for line in file.read_text().splitlines()
        if line.startswith("revision:")
    ]
    found = [revision for revision in revisions if revision != "null"]
    assert len(found) >= 3
    assert all(checkpoint.COMMIT.fullmatch(revision) for revision in found)


def test_a_tokenizer_reads_nothing_outside_its_folder(folder: Path, tmp_path: Path) -> None:
    write_tokenizer(folder, {})
    outside = (folder / "tokenizer.json").rename(tmp_path / "outside.json")
    outside.write_text(outside.read_text().replace('"b"', '"stolen"'))
    names = ("tokenizer_file", "vocab_file", "added_tokens_file", "special_tokens_map_file", "chat_template_file")
    for value in (str(outside), "../outside.json"):
        write_tokenizer(folder, dict.fromkeys(names, value))
        tokenizer = load(str(folder), device="cpu").tokenizer
        assert tokenizer is not None
        assert "stolen" not in tokenizer.get_vocab()


def truncate(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 100)


def remove_tensor(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.pop("model.transformer.blocks.1.ff_out.weight"))


def remove_two_tensors(folder: Path) -> None:
    edit_weights(folder, lambda t: [t.pop(f"model.transformer.blocks.{i}.ff_out.weight") for i in range(2)])


def add_tensor(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update({"model.transformer.wpe.weight": torch.zeros(2)}))


def misshape(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update({"model.transformer.ln_f.weight": torch.zeros(2)}))


def make_integers(folder: Path) -> None:
    edit_weights(
        folder, lambda tensors: tensors.update({"model.transformer.ln_f.weight": torch.zeros(128, dtype=torch.uint8)})
    )


def name_file(folder: Path, name: str) -> None:
    """Let the index name a file, of weights that lie where such names could lead."""
    (folder / "sub").mkdir()
    for position in (folder.parent, folder / "sub"):
        shutil.copy(folder / "model.safetensors", position)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.transformer.ln_f.weight": name.format(parent=folder.parent)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def lose_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def empty_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("{}")


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), "cannot be read as JSON"),
    (lambda folder: (folder / "config.json").write_text("[]"), "holds no JSON object"),
    (lambda folder: edit_config(folder, model_type="llama"), "model_type='llama'"),
    (
        lambda folder: edit_config(folder, architectures=["GPT2LMHeadModel"]),
        "architectures=['GPT2LMHeadModel'], which is not one of LLaDAModelLM (llada), ILLaDAForCausalLM (illada),",
    ),
    (lambda folder: edit_config(folder, architectures=["DreamModel"]), "does not state hidden_size, num_hidden_layers"),
    (lambda folder: edit_config(folder, alibi=True), "alibi=True"),
    (lambda folder: edit_config(folder, _attn_implementation="org/kernel"), "_attn_implementation='org/kernel'"),
    (lambda folder: edit_config(folder, attn_implementation="org/kernel"), "attn_implementation='org/kernel'"),
    (lambda folder: edit_config(folder, d_model=64), "has shape"),
    (lambda folder: edit_config(folder, rope_theta=None), "does not state rope_theta"),
    (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors and no"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b""), "truncated or no safetensors file"),
    (truncate, "truncated or no safetensors file"),
    (remove_tensor, "lacks tensor model.transformer.blocks.1.ff_out.weight,"),
    (remove_two_tensors, "lacks tensor model.transformer.blocks.0.ff_out.weight and 1 more"),
    (add_tensor, "has an unexpected tensor model.transformer.wpe.weight"),
    (misshape, "tensor model.transformer.ln_f.weight of"),
    (make_integers, "holds torch.uint8"),
    *(
        (partial(name_file, name=name), f"{told}', which is no safetensors file of its own folder")
        for name, told in [
            ("../model.safetensors", "'../model.safetensors"),
            ("{parent}/model.safetensors", "/model.safetensors"),
            ("sub/model.safetensors", "'sub/model.safetensors"),
            ("..", "'.."),
            ("pytorch_model.bin", "'pytorch_model.bin"),
        ]
    ),
    (lose_shard, "has no model-00002-of-00002.safetensors"),
    (empty_index, "has no weight_map"),
]


@pytest.mark.parametrize(("break_it", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_broken_checkpoint_is_one_line(folder: Path, break_it: Callable[[Path], object], message: str) -> None:
    break_it(folder)
    with pytest.raises(UserError) as error:
        load(str(folder), device="cpu")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_loading_says_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_tokenizer(folder, {"tokenizer_class": "LlamaTokenizer"})
    for quantization in ("none", "nf4", "int8"):
        with torch.inference_mode():
            load(str(folder), device="cpu", quantization=quantization)(IDS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.gpu
@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_a_gpu_gives_what_a_cpu_gives(folder: Path, quantization: str) -> None:
    on_cpu = load(str(folder), device="cpu", quantization=quantization)
    on_gpu = load(str(folder), device="cuda", quantization=quantization)
    assert {parameter.device.type for parameter in on_gpu.parameters()} == {"cuda"}
    with torch.inference_mode():
        near = on_gpu(IDS.cuda()).logits.cpu()
        torch.testing.assert_close(near, on_cpu(IDS).logits, rtol=0.05, atol=0.2 if quantization != "none" else 1e-3)
