"""A run that is resumed may have any folder: what lies there is a value or a line, and nothing is written elsewhere."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from dlmlab.errors import UserError
from dlmlab.measure.timing import TimingFile
from dlmlab.record import traces
from dlmlab.record.journal import Journal, encode
from dlmlab.record.report import Report, RunRecord
from dlmlab.record.samples import SampleFile
from dlmlab.run import agent, cli, multirun, resume
from dlmlab.tracking import save
from dlmlab.tracking.markdown import Markdown
from tests.hostile.folders import edit, write_run


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DLMLAB_ROOT", str(tmp_path))
    (tmp_path / "outputs").mkdir()
    return tmp_path / "outputs"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"/a\0b", b"here", b"/no/such/folder"])
def test_the_last_run_s_name_may_be_damaged(outputs: Path, content: bytes) -> None:
    (outputs / ".last_run").write_bytes(content)
    with pytest.raises(UserError, match="resume="):
        resume.redirect(["resume=last"])


MADE: dict[str, Any] = {
    "started": "2026-01-01T00:00:00", "command": "x", "config": {}, "packages": {}, "data": {}, "model": None,
    "machine": {"cpu": "A", "cores": 2, "gpus": []}, "torch": {}, "code": "a", "python": "3",
}  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no config": {**MADE, "config": None},
    "packages that are a list": {**MADE, "packages": []},
    "a model without a machine": {**MADE, "model": {"device": "cuda:x"}},
    "a device that is a number": {**MADE, "model": {"device": 5}},
    "resumes that are text": {**MADE, "resumes": "x"},
    "no machine": {**MADE, "machine": None},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_manifest_of_any_kind_is_a_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(CHANGES[name]))
    now = {**MADE, "model": {"device": "cpu"}}
    with pytest.raises(UserError, match="manifest.json"):
        resume.begin(tmp_path, now, force=False)


def test_another_instruction_set_is_another_machine(tmp_path: Path) -> None:
    made = {**MADE, "torch": {"cpu_capability": "AVX512"}}
    resume.begin(tmp_path, made, force=False)
    with pytest.raises(UserError, match='torch.cpu_capability was "AVX512", is "DEFAULT"'):
        resume.begin(tmp_path, {**MADE, "torch": {"cpu_capability": "DEFAULT"}}, force=False)


def test_half_a_result_or_a_lost_sample_is_not_finished(run: Path) -> None:
    assert resume.finished(run)
    results = (run / "results.json").read_text()
    (run / "results.json").write_text(results[:100])
    assert not resume.finished(run)
    (run / "results.json").write_text(results)
    lines = (run / "samples.jsonl").read_text().splitlines(keepends=True)
    (run / "samples.jsonl").write_text("".join(lines[:-1]))
    assert not resume.finished(run)


def test_a_summary_that_lacks_its_figures_is_a_line(run: Path) -> None:
    edit(run / "results.json", lambda results: results.pop("summary"))
    with pytest.raises(UserError, match="results.json has no summary"):
        resume.objectives(run)


@pytest.mark.parametrize("name", ["samples.jsonl", "unfinished", ".hydra/config.yaml", "wandb", "0"])
def test_a_link_in_the_folder_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(tmp_path)
    with pytest.raises(UserError, match="holds a link"):
        resume.redirect([f"resume={run}"])


def test_samples_of_other_types_with_a_right_checksum_are_a_line(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_bytes(encode({"task": 5}))
    with pytest.raises(UserError, match="written by other code"):
        SampleFile(tmp_path)


@pytest.mark.parametrize("content", [b"5", b"[5]", b"{{", b"[" * 100_000])
def test_a_line_with_a_right_checksum_that_holds_no_object_is_damaged(tmp_path: Path, content: bytes) -> None:
    checksum = format(zlib.crc32(content + b"}"), "08x")
    line = content + b', "crc32": "' + checksum.encode() + b'"}\n'
    (tmp_path / "samples.jsonl").write_bytes(line)
    assert (Journal(tmp_path / "samples.jsonl").entries, Journal(tmp_path / "samples.jsonl").damaged) == ([], 1)


def test_traces_and_timings_of_other_types(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_bytes(encode({"task": 5}))
    assert traces.read(tmp_path / "traces.jsonl") == {}
    (tmp_path / "timings.jsonl").write_bytes(encode({"name": "x", "ledger": 5}))
    with pytest.raises(UserError, match="written by other code"):
        TimingFile(tmp_path)


def test_a_log_that_is_no_utf_8_is_appended_to(run: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.md"
    log.write_bytes(b"\xff\xfe\n")
    made = {**MADE, "git": None, "resumes": [{}]}
    record = RunRecord(run, "evaluate", {}, made, Report("Title"))
    Markdown(str(log), ["evaluate"]).log(record)
    Markdown(str(log), ["evaluate"]).log(record)
    assert log.read_bytes().count(b"## Title") == 1


def test_a_multirun_s_summary_is_reported_once(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run.rename(tmp_path / "0")
    tracked = list[object]()
    monkeypatch.setattr("dlmlab.tracking.track", lambda trackers, record: (tracked.append(record), save(record)))
    monkeypatch.setattr(multirun, "draw", lambda *given: [])
    for _ in range(3):
        cli.report_multirun(tmp_path, None)
    assert len(tracked) == 1
    edit(tmp_path / "0" / "results.json", lambda results: results["summary"].update(score=0.5))
    cli.report_multirun(tmp_path, None)
    assert len(tracked) == 2


def test_a_job_s_manifest_does_not_say_where_its_multirun_is_reported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.rename(tmp_path / "0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(multirun, "draw", lambda *given: [])
    evil = {"x": {"_target_": "os.mkdir", "path": "ran"}}
    edit(tmp_path / "0" / "manifest.json", lambda made: made["config"].update(tracking=evil))
    assert cli.report_multirun(tmp_path, None) == []
    assert not (tmp_path / "ran").exists()


def test_a_failed_gate_is_the_run_s_own(run: Path) -> None:
    below = write_run(run / "below" / "run")
    edit(below / "results.json", lambda results: results.update(gates=[{"verdict": "fail"}]))
    assert not cli.gate_failed(run)
    assert cli.gate_failed(below)
    for gates in (5, [5], [{"verdict": 1}], None):
        edit(below / "results.json", lambda results, gates=gates: results.update(gates=gates))  # type: ignore[misc]
        assert not cli.gate_failed(below)


@pytest.mark.parametrize(
    ("key", "value"),
    [("task._target_", "os.system"), ("+x._target_", "os.system"), ("hydra.run.dir", "/etc"), ("memo_path", "/x"),
     ("hydra/launcher", "basic"), ("tracking.markdown.log_file", "/x"), ("seed", "${oc.env:HOME}"),
     ("--config-dir", 1)],
)  # fmt: skip
def test_an_agent_may_set_nothing_that_runs_or_writes(
    key: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(agent.PARAMETERS, raising=False)
    agent.check()
    file = tmp_path / "config.yaml"
    monkeypatch.setenv(agent.PARAMETERS, str(file))
    fair = {"wandb_version": 1, "decoder.kappa": {"value": 0.5}, "model.path": {"value": "a/b"}}
    file.write_text(json.dumps(fair))
    agent.check()
    file.write_text(json.dumps({**fair, key: {"value": value}}))
    with pytest.raises(UserError, match="comes from a W&B sweep"):
        agent.check()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "samples.jsonl")
    with pytest.raises(OSError, match="no regular file"):
        SampleFile(tmp_path)
