"""W&B gets the whole run, offline by default, and can neither ask, hang nor fail it.

What was logged is read back from the file that W&B itself writes offline.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from dlmlab import manifest
from dlmlab.errors import UserError
from dlmlab.record.files import write_json
from dlmlab.tracking import Table, following, track
from dlmlab.tracking.wandb import Wandb, logged_in
from tests.tracking.wandb_file import exit_code, read, started, values

ROOT = Path(__file__).parents[2]


def processes_with(name: str, value: str) -> list[psutil.Process]:
    """Every other process that has a variable in its environment: also those whose parent was killed."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(name) == value:
                found.append(process)
    return found


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """A user who isn't logged in and has set nothing."""
    for name in [name for name in os.environ if name.startswith("WANDB") or name == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)  # so that it is read again
    for name in ("home", "temporary"):
        (tmp_path / name).mkdir()


@pytest.fixture
def run(make_run):
    picture = make_run().folder / "order.png"
    Image.new("RGB", (4, 4)).save(picture)
    mixed = Table("Speed", ["metric", "value"], [["tokens/s", 32.9], ["gate", "passed"], ["none", None]])
    run = make_run(tables=[mixed], pictures=[picture], summary={"speedup": 1.77, "bad": float("nan")})
    write_json(run.folder / "results.json", {})
    manifest.save(run.folder, run.manifest)
    return run


def sample(index, decoder):
    return {"task": "t", "decoder": decoder, "index": index, "id": f"t/{index}", "prompt": "p", "text": f"<b>{index}",
            "tokens": [1, 2], "score": 1.0, "reason": "", "forwards": 3}  # fmt: skip


def point(name, forwards, task):
    against = {"difference": -0.1, "verdict": "fail"}
    return {"name": name, "task": task, "score": 0.5, "forwards": forwards, "against_baseline": against}


def table(folder: Path, name: str) -> dict[str, Any]:
    (path,) = folder.rglob(f"media/table/{name}_*.table.json")
    return dict(json.loads(path.read_text()))


def test_an_offline_run_holds_everything(run, tmp_path, capfd):
    Wandb("dlmlab").log(run)
    said = capfd.readouterr()
    assert said.err == ""
    assert "wandb sync" in said.out
    for outside in ("home", "temporary"):
        assert list((tmp_path / outside).iterdir()) == []
    written = read(run.folder)
    assert exit_code(written) == 0
    start = started(written)
    config = values(start.config.update)
    assert config.pop("_wandb") == {}
    assert config.pop("labels") == {"model": "llada15", "decoder": "localleap", "task": "open_prompts"}
    assert config == run.manifest["config"]
    assert (start.project, start.run_group, start.job_type) == ("dlmlab", "llada15", "throughput")
    assert list(start.tags) == ["llada15", "localleap", "open_prompts"]

    summary = {key: value for record in written for key, value in values(record.summary.update).items()}
    assert summary["speedup"] == 1.77
    assert summary["bad"] is None
    assert summary["Speed/nrows"] == 3
    assert summary["pictures/order/_type"] == "image-file"

    (table,) = run.folder.rglob("media/table/Speed*.table.json")
    assert json.loads(table.read_text())["data"] == [["tokens/s", 32.9], ["gate", "passed"], ["none", None]]
    artifacts = {record.artifact.type: record.artifact for record in written if record.HasField("artifact")}
    assert {entry.path for entry in artifacts["results"].manifest.contents} == {"manifest.json", "results.json"}

    assert len(list(run.folder.rglob("results.json"))) == 1


def test_samples_and_points_are_tables_and_charts(make_run):
    points = [point("a", 16, "one"), point("b", 4, "one"), point("c", 4, "two")]
    run = make_run(results={"points": points})
    samples = [sample(index, decoder) for decoder in ("a", "b") for index in range(9)]
    (run.folder / "samples.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in samples))
    track([Wandb("dlmlab", samples=4)], run)

    shown = table(run.folder, "samples")
    assert shown["columns"] == ["task", "decoder", "id", "prompt", "text", "score", "reason", "forwards"]
    assert [(row[1], row[2], row[4]) for row in shown["data"]] == [
        ("a", "t/0", "<b>0"), ("b", "t/0", "<b>0"), ("a", "t/1", "<b>1"), ("b", "t/1", "<b>1")
    ]  # fmt: skip
    shown = table(run.folder, "points")
    assert shown["columns"][-2:] == ["against_baseline.difference", "against_baseline.verdict"]
    assert [row[0] for row in shown["data"]] == ["a", "b", "c"]

    written = read(run.folder)
    told = {key: value for record in written for key, value in values(record.config.update).items()}
    for task in ("one", "two"):
        chart = told[f"_wandb/visualize/charts/quality_against_forwards/{task}"]
        assert chart["panel_config"]["fieldSettings"] == {"x": "forwards", "y": "score"}
        assert "points of 100" in chart["panel_config"]["stringSettings"]["title"]
    charted = table(run.folder, "charts/quality_against_forwards/one_table")
    assert [row[charted["columns"].index("score")] for row in charted["data"]] == [50.0, 50.0]


def test_the_jobs_of_a_multirun_are_a_group_and_tagged_by_their_sweep(make_run):
    run = make_run()
    (run.folder.parent / "multirun.yaml").touch()
    run = replace(run, labels={**run.labels, "sweep": "kappa_tau_w"})
    track([Wandb("dlmlab")], run)
    start = started(read(run.folder))
    assert start.run_group == f"kappa_tau_w {run.folder.parent.parent.name} {run.folder.parent.name}"
    assert "kappa_tau_w" in start.tags


def test_w_and_b_s_own_variables_go_before_what_the_run_says(make_run, monkeypatch):
    for name, value in {"NAME": "n", "RUN_GROUP": "g", "JOB_TYPE": "j", "TAGS": "mine,llada15"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    track([Wandb("dlmlab")], run := make_run())
    start = started(read(run.folder))
    assert (start.display_name, start.run_group, start.job_type) == ("n", "g", "j")
    assert list(start.tags) == ["llada15", "localleap", "mine", "open_prompts"]


def test_a_run_of_an_agent_carries_its_sweep(make_run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("wandb_version: 1\ndecoder.kappa: {value: 0.5}\n")
    own = {"SWEEP_ID": "abcd1234", "RUN_ID": "efgh5678", "SWEEP_PARAM_PATH": "config.yaml"}
    for name, value in (own | {"PROJECT": "theirs", "ENTITY": "lab", "DIR": str(tmp_path)}).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    track([Wandb("theirs", "lab")], run := make_run())
    start = started(read(run.folder))
    assert (start.sweep_id, start.run_id, start.project, start.entity) == ("abcd1234", "efgh5678", "theirs", "lab")
    config = values(start.config.update)
    assert config["decoder.kappa"] == 0.5
    assert config["decoder"] == run.manifest["config"]["decoder"]


@pytest.mark.parametrize(
    ("environment", "told", "expected"),
    [
        ({}, [], ("dlmlab", None, None)),
        ({"PROJECT": "p", "ENTITY": "e", "MODE": "disabled"}, [], ("p", "e", "disabled")),
        (
            {"PROJECT": "p", "ENTITY": "e", "MODE": "online"},
            ["tracking.wandb.project=q", "tracking.wandb.entity=f", "tracking.wandb.mode=offline"],
            ("q", "f", "offline"),
        ),
    ],
)
def test_the_config_goes_before_the_environment_before_the_defaults(monkeypatch, environment, told, expected):
    monkeypatch.setenv("DLMLAB_ROOT", str(ROOT))
    for name, value in environment.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=["tracking=wandb", *told])
    tracker = instantiate(cfg.tracking.wandb)
    assert (tracker.project, tracker.entity, tracker.mode) == expected


def test_ctrl_c_ends_the_run_as_interrupted(tmp_path):
    own = ["experiment=evaluate", "device=cpu", "memo=off", "sandbox=rlimit", f"hydra.run.dir={tmp_path}/run"]
    command = [sys.executable, str(ROOT / "run.py"), "tracking=wandb", "~tracking.markdown", *own]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert "wandb sync" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert processes_with("HOME", os.environ["HOME"]) == [], "it waits for W&B"
    written = read(tmp_path / "run")
    assert exit_code(written) == 255
    assert started(written).job_type == "evaluate"
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_killed_run_ends_as_failed(make_run):
    run, tracker = make_run(), Wandb("dlmlab")
    tracker.begin(run)
    tracker._process._process.stdin.close()  # as the system does for a process that is killed
    tracker._process._process.wait()
    assert exit_code(read(run.folder)) == 1


def test_an_error_ends_the_run_as_failed(make_run):
    run = make_run()

    def fail():
        with following([Wandb("dlmlab")], run):
            raise UserError("wrong")

    with pytest.raises(UserError, match="wrong"):
        fail()
    assert exit_code(read(run.folder)) == 1


def test_a_run_that_was_followed_is_one_run(make_run):
    run, tracker = make_run(), Wandb("dlmlab")
    with following([tracker], run):
        track([tracker], run)
    assert exit_code(read(run.folder)) == 0


def test_disabled_it_writes_nothing(run, capfd):
    Wandb("dlmlab", mode="disabled").log(run)
    assert not (run.folder / "wandb").exists()
    assert capfd.readouterr() == ("", "")


def test_a_server_that_hangs_costs_a_line(run, monkeypatch, tmp_path, capfd, caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:  # the system takes connections that nobody answers
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        Wandb("dlmlab", timeout=5).log(run)
    assert capfd.readouterr().out == ""
    [line] = caplog.messages
    assert line.startswith("the run is not on W&B: it took more than 5 s; ")
    _, alive = psutil.wait_procs(processes_with("WANDB_BASE_URL", os.environ["WANDB_BASE_URL"]), timeout=60)
    assert alive == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_online_without_credentials_neither_asks_nor_fails(run, caplog):
    Wandb("dlmlab", mode="online").log(run)
    [line] = caplog.messages
    assert line.startswith("the run is not on W&B: ")
    assert "\n" not in line


def test_without_wandb_the_run_goes_on(run, monkeypatch, tmp_path, caplog):
    (tmp_path / "wandb.py").write_text("raise ModuleNotFoundError(\"No module named 'wandb'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    Wandb("dlmlab").log(run)
    assert caplog.messages == ["the run is not on W&B: ModuleNotFoundError: No module named 'wandb'"]


def test_logged_in_by_key_or_netrc(monkeypatch, tmp_path):
    assert not logged_in()
    (tmp_path / "home" / ".netrc").write_text("machine api.wandb.ai login user password key\n")
    assert logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert logged_in()


@pytest.mark.parametrize(("setting", "value"), [("mode", "on"), ("timeout", 0), ("timeout", "1m"), ("samples", 0)])
def test_bad_settings_are_named(setting, value):
    with pytest.raises(UserError, match=f"tracking.wandb.{setting}={value!r}"):
        Wandb("dlmlab", **{setting: value})
