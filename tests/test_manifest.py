"""The manifest tells the truth, inside and outside of a checkout, and two of them can be compared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from dlmlab import manifest
from dlmlab.errors import UserError
from dlmlab.manifest import differences, finish, hardware, read, save

ROOT = Path(__file__).resolve().parents[1]
ASK_GIT = "import json; from dlmlab.manifest import git; print(json.dumps(git()))"


class Model:
    fingerprint = "f00d"
    commit = "c0ffee"
    end_token_ids = (3, 4)
    tokenizer = None
    dtype = torch.bfloat16
    device = torch.device("cpu")


class Task:
    name, version, fingerprint = "mmlu", "1", "beef"


def made() -> dict:
    cfg = OmegaConf.create({"seed": 7, "decoder": {"kappa": 0.9, "copy": "${.kappa}"}})
    return manifest.manifest(cfg, Model(), [Task()])


def git(folder: Path, *command: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, *command], cwd=folder, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def ask_git(folder: Path, **env: str) -> dict | None:
    """What the copy of the package in a folder says of its commit."""
    command = [sys.executable, "-c", ASK_GIT]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture
def copy(tmp_path):
    """A copy of the few files that a manifest is made with, outside of any checkout."""
    package = tmp_path / "copy" / "dlmlab"
    shutil.copytree(ROOT / "dlmlab" / "record", package / "record")
    for name in ("__init__.py", "manifest.py", "errors.py", "paths.py"):
        shutil.copy(ROOT / "dlmlab" / name, package / name)
    return package.parent


def test_says_what_made_the_result(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "run.py", "seed=7"])
    one = made()
    assert one["seed"] == 7
    assert one["config"] == {"seed": 7, "decoder": {"kappa": 0.9, "copy": 0.9}}
    model = {"fingerprint": "f00d", "commit": "c0ffee", "tokenizer": None, "end_token_ids": [3, 4]}
    assert one["model"] == model | {"dtype": "bfloat16", "device": "cpu"}
    assert one["data"] == {"mmlu": {"version": "1", "fingerprint": "beef"}}
    assert one["packages"]["torch"] == torch.__version__
    assert one["python"] == ".".join(map(str, sys.version_info[:3]))
    assert one["machine"]["cores"] >= 1
    assert one["machine"]["cpu"]
    assert one["command"] == "python run.py seed=7"
    assert json.loads(json.dumps(one, allow_nan=False)) == one


def test_torch_settings_are_those_in_force():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        torch.use_deterministic_algorithms(True)
        settings = manifest.torch_settings()
    finally:
        torch.set_float32_matmul_precision(before)
        torch.use_deterministic_algorithms(False)
    assert settings["deterministic"] is True
    assert settings["float32_matmul_precision"] == "high"
    assert settings["cpu_capability"] == torch.backends.cpu.get_cpu_capability()


def test_finish_adds_the_end():
    one = made()
    done = finish(one)
    assert one["ended"] is None
    assert datetime.fromisoformat(done["ended"]) >= datetime.fromisoformat(done["started"])


def test_tokenizer_fingerprint_sees_vocabulary_and_template():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    def fingerprint(word: str, template: str) -> str | None:
        inner = Tokenizer(models.WordLevel({word: 0, "?": 1}, unk_token="?"))
        return manifest.tokenizer_fingerprint(PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=template))

    assert fingerprint("a", "t") == fingerprint("a", "t")
    assert len({fingerprint("a", "t"), fingerprint("b", "t"), fingerprint("a", "u")}) == 3


def test_git_tells_commit_and_changes_outside_outputs(copy):
    git(copy, "init")
    (copy / ".gitignore").write_text("__pycache__\n")
    git(copy, "add", ".")
    git(copy, "commit", "-m", "first")
    clean = {"commit": git(copy, "rev-parse", "HEAD"), "dirty": False}
    assert ask_git(copy) == clean
    (copy / "outputs").mkdir()
    (copy / "outputs" / "perf_log.md").write_text("a run\n")
    assert ask_git(copy) == clean
    assert ask_git(copy, GIT_DIR=str(copy.parent)) == clean, "a hook's variables name another repository"
    (copy / "new_decoder.py").write_text("")
    assert ask_git(copy) == clean | {"dirty": True}


def test_git_is_null_where_there_is_none(copy):
    assert ask_git(copy) is None, "outside of a checkout"
    git(copy.parent, "init")
    (copy.parent / "x").write_text("")
    git(copy.parent, "add", "x")
    git(copy.parent, "commit", "-m", "somebody else's project")
    assert ask_git(copy) is None, "installed inside another project's checkout"
    assert ask_git(copy, PATH="") is None, "no git on the machine"


def test_hardware_is_what_the_model_sat_on():
    one = made()
    assert hardware(one).startswith(one["machine"]["cpu"])
    one["machine"]["gpus"] = [{"name": "A", "memory_gb": 1.0}, {"name": "RTX 5070", "memory_gb": 12.4}]
    one["model"]["device"] = "cuda:1"
    assert hardware(one) == "RTX 5070, 12 GB"


def test_differences_ignore_times_and_name_dotted_keys():
    a, b = made(), finish(made())
    assert list(differences(a, b)) == []
    b["config"]["decoder"]["kappa"] = 0.7
    b["git"] = None
    a["git"] = {"commit": "c", "dirty": False}
    found = set(differences(a, b))
    assert ("config.decoder.kappa", 0.9, 0.7) in found
    assert ("git.commit", "c", None) in found


def test_diff_command(tmp_path):
    a, b = made(), made()
    b["seed"] = 8
    for name, each in (("a", a), ("b", b)):
        (tmp_path / name).mkdir()
        save(tmp_path / name, each)

    def diff(*names: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "dlmlab.manifest", "diff", *(str(tmp_path / name) for name in names)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    assert diff("a", "a") == (0, "", "")
    assert diff("a", "b") == (1, "seed: 7 → 8\n", "")
    status, out, error = diff("a", "nowhere")
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert "nowhere" in error


def test_reading_a_broken_manifest_is_the_users_error(tmp_path):
    (tmp_path / "manifest.json").write_text('{"seed": ')
    with pytest.raises(UserError, match="manifest.json"):
        read(tmp_path)
