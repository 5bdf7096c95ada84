"""The memo: what comes back is what was kept, and nothing else is believed."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch

from dlmlab import memo as module
from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.localleap import LocalLeap
from dlmlab.errors import UserError
from dlmlab.generation import decode
from dlmlab.memo import NUMERICS, DiskMemo, main, namespace, use
from dlmlab.record.files import disk_of
from dlmlab.record.memo_file import connect
from dlmlab.rule import Decision, Rule
from dlmlab.settings import switch
from dlmlab.types import Generation, Request
from tests.model.helpers import small_model

ROOT = Path(__file__).resolve().parents[1]
GENERATION = Generation(gen_length=16, block_length=8, steps=8)
RULES = [Baseline()] + [LocalLeap(kappa, tau, 2) for kappa in (0.02, 0.1) for tau in (0.012, 0.015, 0.02)]


@pytest.fixture(scope="module")
def model():
    made = small_model()
    made.identify = lambda: "these weights"
    return made


def open_memo(path, model, generation=GENERATION, max_gb=1.0):
    return DiskMemo(path / "memo.sqlite", model, generation, max_gb)


def pooled(model, memo, rules=RULES, generation=GENERATION):
    """Each rule's answers to six prompts, and how many forward passes were asked for and computed."""
    prompts = [tuple(range(place, place + 3 + place)) for place in range(6)]
    requests = [
        Request(len(prompts) * number + place, prompt, rule)
        for number, rule in enumerate(rules)
        for place, prompt in enumerate(prompts)
    ]
    ticks = []
    outputs = decode(model, requests, generation, batch_size=4, memo=memo, on_step=ticks.append)
    answers = {output.index: (output.tokens, output.forwards, output.step_of) for output in outputs}
    return answers, sum(tick.rows for tick in ticks), sum(tick.computed for tick in ticks)


def test_pooled_settings_answer_as_each_does_alone(model, tmp_path):
    together, asked, computed = pooled(model, open_memo(tmp_path, model))
    assert computed < asked
    assert len({str(answer) for answer in together.values()}) > 6, "the settings differ"
    for number, rule in enumerate(RULES):
        alone, *_ = pooled(model, None, [rule])
        assert alone == {place: together[6 * number + place] for place in range(6)}


def test_a_repeated_run_computes_nothing(model, tmp_path):
    first, asked, _ = pooled(model, open_memo(tmp_path, model))
    assert pooled(model, open_memo(tmp_path, model)) == (first, asked, 0)


def test_a_new_setting_pays_only_for_new_canvases(model, tmp_path):
    pooled(model, open_memo(tmp_path, model), RULES[:-1])
    _, _, alone = pooled(model, {}, RULES[-1:])
    _, asked, added = pooled(model, open_memo(tmp_path, model), RULES[-1:])
    assert 0 < alone <= asked
    assert added < alone


def test_a_dict_and_the_file_give_the_same(model, tmp_path):
    assert pooled(model, {}) == pooled(model, open_memo(tmp_path, model))


@pytest.mark.parametrize("damage", [b"\x01", b"", b"x" * 700], ids=["flipped", "empty", "longer"])
def test_a_damaged_entry_is_recomputed(model, tmp_path, damage):
    first, _, computed = pooled(model, open_memo(tmp_path, model))
    with sqlite3.connect(tmp_path / "memo.sqlite") as file:
        entries = file.execute("SELECT rowid, value FROM memo").fetchall()
        for rowid, value in entries[::2]:
            wrong = bytes([value[0] ^ 1]) + value[1:-1] + damage if damage else b""
            file.execute("UPDATE memo SET value = ? WHERE rowid = ?", (wrong, rowid))
    file.close()
    again, _, recomputed = pooled(model, open_memo(tmp_path, model))
    assert again == first
    assert 0 < recomputed == len(entries[::2])
    assert len(entries) == computed


def test_one_entry_is_not_taken_for_another(model, tmp_path):
    first, *_ = pooled(model, open_memo(tmp_path, model))
    with sqlite3.connect(tmp_path / "memo.sqlite") as file:
        [[value]] = file.execute("SELECT value FROM memo LIMIT 1").fetchall()
        file.execute("UPDATE memo SET value = ?", (value,))
    file.close()
    assert pooled(model, open_memo(tmp_path, model))[0] == first


@pytest.mark.parametrize("cut", [0.0, 0.4, 0.9])
def test_a_damaged_file_costs_a_warning_and_no_result(model, tmp_path, caplog, cut):
    first, *_ = pooled(model, open_memo(tmp_path, model))
    path = tmp_path / "memo.sqlite"
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    begin = int(len(content) * cut)
    content[begin:] = b"\xff" * (len(content) - begin)
    path.write_bytes(content)
    assert pooled(model, open_memo(tmp_path, model))[0] == first
    assert len(caplog.messages) <= 2
    assert all("python -m dlmlab.memo clear" in line for line in caplog.messages)


def test_a_path_that_cannot_be_written_costs_a_warning(model, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    memo = DiskMemo(tmp_path / "file" / "memo.sqlite", model, GENERATION, 1.0)
    assert pooled(model, memo)[0] == pooled(model, {})[0]
    assert len(caplog.messages) == 1


def test_the_file_is_bounded_and_the_oldest_go_first(model, tmp_path):
    memo = open_memo(tmp_path, model, max_gb=0.001)
    value = (np.arange(8), np.zeros(8, np.float32))
    for number in range(2000):
        memo.update({bytes([part]) + number.to_bytes(4, "big"): value for part in range(8)})
    path = tmp_path / "memo.sqlite"
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size < 1.3e6
    assert memo.get(b"\0" + (0).to_bytes(4, "big")) is None
    assert memo.get(b"\0" + (1999).to_bytes(4, "big")) is not None


CHANGES = {
    "confidence_dtype": {"confidence_dtype": "float64"},
    "logits_eos_inf": {"logits_eos_inf": True},
    "confidence_eos_eot_inf": {"confidence_eos_eot_inf": True},
    "confidence_eos_eot_zero": {"confidence_eos_eot_zero": True},
    "block_length": {"block_length": 4},
    "cfg_scale": {"cfg_scale": 1.0},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_settings_that_change_a_proposal_are_kept_apart(model, change):
    assert namespace(model, GENERATION) != namespace(model, replace(GENERATION, **change))


def test_settings_of_the_schedule_share_what_is_kept(model):
    assert namespace(model, GENERATION) == namespace(model, replace(GENERATION, gen_length=32, steps=16))


def test_what_the_model_is_keeps_apart(monkeypatch):
    def name(**changes):
        made = small_model(**changes)
        made.identify = lambda: "these weights"
        return made

    usual = namespace(name(), GENERATION)
    assert usual == namespace(name(), GENERATION)
    other = name()
    other.identify = lambda: "other weights"
    assert namespace(other, GENERATION) != usual
    assert namespace(name().to(torch.bfloat16), GENERATION) != usual
    assert namespace(name(mask_token_id=93), GENERATION) != usual
    monkeypatch.setattr("dlmlab.memo.version", lambda package: "0")
    assert namespace(name(), GENERATION) != usual


class Logits(Rule):
    """A rule that a memo cannot serve."""

    needs_logits = True

    def __eq__(self, other):
        return type(self) is type(other)

    kind = ("logits",)

    @classmethod
    def stack(cls, rules, device):
        return rules[0]

    def __call__(self, step):
        return Decision(step.eligible_BK & (step.logits_BKV.sum(-1).isfinite()))


def test_a_rule_that_needs_logits_goes_past_it(model):
    memo: dict = {}
    _, asked, computed = pooled(model, memo, [Logits()])
    assert memo == {}
    assert computed == asked
    assert use(True, Logits(), GENERATION) == "bypassed: Logits sees more than tokens and confidences"
    assert use(True, Baseline(), GENERATION) == "on"
    assert use(False, Baseline(), GENERATION) == "off"
    assert use(True, Baseline(), replace(GENERATION, temperature=1.0)).startswith("bypassed")


def test_two_processes_write_at_once_and_lose_nothing(model, tmp_path):
    script = f"""
import numpy as np, sys
from pathlib import Path
from dlmlab.memo import DiskMemo
from dlmlab.types import Generation
from tests.model.helpers import small_model
model = small_model()
model.identify = lambda: "these weights"
memo = DiskMemo(Path({str(tmp_path)!r}) / "memo.sqlite", model, Generation(16, 8, 8), 1.0)
for number in range(200):
    memo.update({{sys.argv[1].encode() + bytes([number]): (np.full(8, number), np.full(8, number, np.float32))}})
"""
    jobs = [
        subprocess.Popen([sys.executable, "-c", script, name], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
        for name in "ab"
    ]
    assert [job.wait() for job in jobs] == [0, 0]
    memo = open_memo(tmp_path, model)
    for name in (b"a", b"b"):
        for number in range(200):
            token_K, confidence_K = memo.get(name + bytes([number]))
            assert token_K.tolist() == confidence_K.tolist() == [number] * 8


def test_the_command_line_tells_and_clears(model, tmp_path, capsys, monkeypatch):
    path = tmp_path / "memo.sqlite"

    def says(*args):
        monkeypatch.setattr("sys.argv", ["memo", *args, "--path", str(path)])
        status = main()
        return status, capsys.readouterr()

    assert says() == (0, (f"{path}: none yet\n", ""))
    _, _, computed = pooled(model, open_memo(tmp_path, model))
    status, (out, _) = says()
    assert status == 0
    assert f"{computed} entries" in out
    assert says("clear")[0] == 0
    assert not path.exists()
    path.write_bytes(b"no database " * 1000)
    status, (out, err) = says()
    assert status == 1
    assert "python -m dlmlab.memo clear" in err


@pytest.mark.parametrize("value", [True, "on", "On", "true"])
def test_on(value):
    assert switch("memo", value) is True


@pytest.mark.parametrize("value", [False, "off", "OFF", "false"])
def test_off(value):
    assert switch("memo", value) is False


@pytest.mark.parametrize("value", ["maybe", None, 1, ""])
def test_neither(value):
    with pytest.raises(UserError, match=r"memo=.* is neither on nor off"):
        switch("memo", value)


@pytest.mark.parametrize("value", [0, -1, "big", True])
def test_a_bound_must_be_a_number(model, tmp_path, value):
    with pytest.raises(UserError, match="memo_gb="):
        open_memo(tmp_path, model, max_gb=value)


def test_a_fingerprint_covers_the_sources_that_a_proposal_is_made_by():
    imported = re.findall(r"from dlmlab\.([\w.]+) import", (ROOT / "dlmlab/loop/propose.py").read_text())
    for name in {*imported, "loop.propose"} - {"denoiser", "types", "rule"}:
        assert any(fnmatch(f"{name.replace('.', '/')}.py", pattern) for pattern in NUMERICS), name


def test_a_pattern_that_matches_no_source_is_an_error(monkeypatch, model):
    monkeypatch.setattr(module, "NUMERICS", (*NUMERICS, "loop/moved.py"))
    with pytest.raises(ValueError, match="'loop/moved.py', which matches no file"):
        namespace(model, GENERATION)


@pytest.mark.parametrize("value", [5, "text", 1.5, b""])
def test_a_row_of_another_type_is_recomputed(model, tmp_path, value):
    first, *_ = pooled(model, open_memo(tmp_path, model))
    with sqlite3.connect(tmp_path / "memo.sqlite") as file:
        file.execute("UPDATE memo SET value = ?", (value,))
    file.close()
    assert pooled(model, open_memo(tmp_path, model))[0] == first


def foreign(path):
    """A database of someone else's."""
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE thesis (chapter TEXT)")
    file.close()
    return path


@pytest.mark.parametrize("name", ["thesis.sqlite", "thesis.md", "memo"])
@pytest.mark.parametrize("action", ["show", "clear"])
def test_the_command_line_leaves_other_files_alone(tmp_path, capsys, monkeypatch, action, name):
    path = foreign(tmp_path / name) if name.endswith("sqlite") else tmp_path / name
    if not path.exists():
        path.write_text("# Mine")
    before = path.read_bytes()
    monkeypatch.setattr("sys.argv", ["memo", action, "--path", str(path)])
    assert main() == 1
    assert "is no memo of dlmlab" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path], "and nothing is left beside it"


def test_a_memo_path_that_is_something_else_costs_a_warning(model, tmp_path, caplog):
    path = foreign(tmp_path / "memo.sqlite")
    before = path.read_bytes()
    pooled(model, open_memo(tmp_path, model))
    assert "it is no memo of dlmlab; set memo_path" in caplog.text
    assert path.read_bytes() == before


def test_a_memo_of_an_older_version_is_known_by_its_table(tmp_path):
    with sqlite3.connect(tmp_path / "old.sqlite") as file:
        file.execute("CREATE TABLE memo (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
    file.close()
    assert module.is_memo(tmp_path / "old.sqlite")
    assert not module.is_memo(foreign(tmp_path / "thesis.sqlite"))


def failed(code):
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = code
    return error


def test_a_warning_names_what_helps(tmp_path):
    path = tmp_path / "my memo.sqlite"
    assert module.remedy(failed(sqlite3.SQLITE_CORRUPT), path) == f"python -m dlmlab.memo clear --path '{path}'"
    assert module.remedy(failed(sqlite3.SQLITE_NOTADB), module.default_path()) == "python -m dlmlab.memo clear"
    assert module.remedy(failed(sqlite3.SQLITE_FULL), path) == f"free some space on {disk_of(path)}"
    assert module.remedy(OSError(errno.ENOSPC, "full"), path) == f"free some space on {disk_of(path)}"
    for error in (failed(sqlite3.SQLITE_READONLY), failed(sqlite3.SQLITE_CANTOPEN), PermissionError("no")):
        assert module.remedy(error, path) == "set memo_path to a file that can be written, or memo=off"


def test_another_instruction_set_is_remembered_apart(model, monkeypatch):
    own = module.namespace(model, GENERATION)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "ANOTHER")
    assert module.namespace(model, GENERATION) != own


def test_a_process_that_ends_leaves_the_journal_to_another_one_that_opened_the_memo_twice(tmp_path: Path) -> None:
    """Where something else than SQLite opens and closes the file, its locks are gone, and what is kept then is lost."""
    path = tmp_path / "memo.sqlite"
    first = connect(path)
    connect(path).close()
    other = (
        f"from dlmlab.record.memo_file import connect; from pathlib import Path; connect(Path({str(path)!r})).close()"
    )
    subprocess.run([sys.executable, "-c", other], check=True)
    first.execute("INSERT INTO memo VALUES (x'01', x'02')")
    with closing(sqlite3.connect(path)) as later:
        assert later.execute("SELECT count(*) FROM memo").fetchone() == (1,)
    first.close()
