"""Where a run goes on, and what it may go on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import psutil
import pytest

from dlmlab.errors import UserError
from dlmlab.record.samples import read_samples
from dlmlab.run import resume
from tests.faults import ROOT, SETTING


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("DLMLAB_ROOT", str(tmp_path))
    folder = tmp_path / "outputs"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("flags", "key"), [([], "hydra.run.dir"), (["-m"], "hydra.sweep.dir"), (["--multirun"], "hydra.sweep.dir")]
)
def test_resume_is_the_folder_that_hydra_writes_into(outputs, flags, key):
    folder = outputs / "it's a run"
    folder.mkdir()
    assert resume.redirect([*flags, "seed=1", f"resume={folder}"]) == [
        *flags, "seed=1", f"{key}='{str(folder).replace(chr(39), chr(92) + chr(39))}'",
    ]  # fmt: skip
    resume.remember(key, folder)
    assert resume.redirect([*flags, "resume=last"]) == resume.redirect([*flags, f"resume={folder}"])


def test_what_hydra_kept_of_the_first_start_stays(outputs):
    (outputs / "run" / ".hydra").mkdir(parents=True)
    assert resume.redirect([f"resume={outputs}/run"])[-1] == "hydra.output_subdir=null"
    assert resume.redirect([f"hydra.run.dir={outputs}/run"])[-1] == "hydra.output_subdir=null"
    assert resume.redirect(["seed=1"]) == ["seed=1"]


@pytest.mark.parametrize("name", ["last", "/no/such/folder"])
def test_a_folder_that_is_not_there_is_refused(name):
    with pytest.raises(UserError, match=f"resume={name}"):
        resume.redirect([f"resume={name}"])


def test_a_folder_outside_the_outputs_is_not_the_last(tmp_path):
    resume.remember("hydra.run.dir", tmp_path / "elsewhere")
    with pytest.raises(UserError, match="resume=last"):
        resume.redirect(["resume=last"])


def test_a_run_counts_as_finished_when_it_ends_well(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ZeroDivisionError), resume.claim(tmp_path):
        raise ZeroDivisionError
    assert not resume.finished(tmp_path)
    with resume.claim(tmp_path), pytest.raises(UserError, match=r"written by process \d+"), resume.claim(tmp_path):
        pass
    assert resume.finished(tmp_path)


MADE = {
    "started": "2026-01-01T00:00:00", "ended": None, "command": "python run.py", "code": "a", "python": "3.11",
    "config": {"seed": 0, "memo": True}, "torch": {"threads": 1}, "packages": {"torch": "2.11"}, "data": {},
    "model": {"fingerprint": "a", "device": "cpu"}, "machine": {"cpu": "A", "cores": 2},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"config": {"seed": 1, "memo": True}}, "config.seed"),
        ({"code": "b"}, "code"),
        ({"packages": {"torch": "2.12"}}, "packages.torch"),
        ({"model": {"fingerprint": "b", "device": "cpu"}}, "model.fingerprint"),
        ({"machine": {"cpu": "B", "cores": 2}}, "hardware"),
    ],
)
def test_another_run_s_folder_is_refused_unless_forced(tmp_path, change, key):
    resume.begin(tmp_path, MADE, force=False)
    with pytest.raises(UserError, match=f"holds another run: {key} was .*resume_force=true"):
        resume.begin(tmp_path, MADE | change, force=False)
    again = resume.begin(tmp_path, MADE | change, force=True)
    assert list(again["resumes"][0]["changed"]) == [key]
    assert {name: again[name] for name in MADE} == MADE, "the manifest is that of the first start"
    assert json.loads((tmp_path / "manifest.json").read_text()) == again


@pytest.mark.parametrize("change", [{"config": {"seed": 0, "memo": False}}, {"packages": {"torch": "2.11", "x": "1"}}])
def test_what_changes_no_result_may_change(tmp_path, change):
    resume.begin(tmp_path, MADE, force=False)
    assert resume.begin(tmp_path, MADE | change, force=False)["resumes"][0]["changed"] == {}


def test_before_the_model_is_loaded_only_the_rest_is_compared(tmp_path):
    begun = resume.begin(tmp_path, MADE, force=False)
    assert resume.check(tmp_path, begun, MADE | {"model": None}, force=False) == {}


@pytest.mark.skipif(find_spec("submitit") is None, reason="needs pip install 'dlmlab[slurm]'")
def test_a_job_that_a_cluster_takes_back_is_started_again_and_goes_on(tmp_path):
    folder = tmp_path / "sweep" / "0"
    own = ["hydra/launcher=submitit_local", f"hydra.sweep.dir={folder.parent}", "memo=off", "device=cpu"]
    command = [sys.executable, str(ROOT / "run.py"), "-m", *SETTING, *own, "tracking=terminal"]
    run = subprocess.Popen(command, env={**os.environ, "DLMLAB_ROOT": str(ROOT)}, stderr=subprocess.DEVNULL)
    samples = folder / "samples.jsonl"
    while run.poll() is None and not (samples.exists() and samples.read_bytes().count(b"\n") > 8):
        time.sleep(0.01)
    for process in psutil.Process(run.pid).children(recursive=True):
        if "submitit.core._submit" in process.cmdline():
            process.send_signal(signal.SIGUSR2)  # what Slurm sends on submitit's behalf
    assert run.wait() == 0
    assert [sample.index for sample in read_samples(folder)] == [*range(60)]
    [again] = json.loads((folder / "manifest.json").read_text())["resumes"]
    assert again["changed"] == {}
    assert resume.finished(folder)
