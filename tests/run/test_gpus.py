"""Items that several processes decode are one run: the same answers, one folder, one error. Here devices are CPUs."""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from queue import SimpleQueue

import pytest
import torch
from omegaconf import OmegaConf

from dlmlab.decoder.threshold import Threshold
from dlmlab.denoise import StepTiming
from dlmlab.errors import UserError
from dlmlab.generation import decode
from dlmlab.loop.batch import Batch
from dlmlab.run import build, gpus, helpers
from dlmlab.types import Generation, Request

SMALL = ["experiment=evaluate", "task=tiny_mmlu", "task.limit=6", "tracking=terminal", "decoder=threshold"]


def answers(folder) -> dict[int, tuple]:
    samples = map(json.loads, (folder / "samples.jsonl").read_text().splitlines())
    return {each["index"]: (each["text"], each["forwards"], each["score"]) for each in samples}


@pytest.mark.long
def test_two_processes_answer_as_one_does(command, monkeypatch, tmp_path):
    assert command(*SMALL, "trace=true", "memo=off")[0] == 0
    texts = answers((tmp_path / "run").rename(tmp_path / "alone"))
    monkeypatch.setattr(gpus, "devices", lambda cfg: ["cpu", "cpu"])
    status, _, errors = command(*SMALL, "trace=true", f"memo_path={tmp_path}/memo.sqlite")
    assert (status, errors) == (0, "")
    assert answers(tmp_path / "run") == texts
    asked, found = (json.loads((tmp_path / name / "results.json").read_text())["forwards"] for name in ("alone", "run"))
    assert found["asked"] == asked["asked"]


@pytest.mark.long
def test_processes_keep_their_model_until_the_run_ends(monkeypatch):
    monkeypatch.setattr(gpus, "devices", lambda cfg: ["cpu", "cpu"])
    model = {"_target_": "dlmlab.model.loader.load", "path": "tiny/v1"}
    cfg = OmegaConf.create({"model": model, "device": "cpu"})
    requests = [Request(index, [7] * (index + 1), Threshold(0.9)) for index in range(6)]
    told = {"memo": None, "on_step": lambda step: None, "seed": 0}
    others = set(multiprocessing.active_children())  # of other tests

    def own():
        return {process.pid for process in set(multiprocessing.active_children()) - others}

    def decoded(first=0):
        return everywhere(build.model(cfg), requests[first:], Generation(16, 16, 4), batch_size=Batch(2), **told)

    def tokens(first):
        return sorted((output.index, output.tokens) for output in decoded(first))

    with gpus.spread(cfg) as everywhere:
        expected = tokens(0)
        pids = own()
        assert tokens(2) == expected[2:]
        assert own() == pids
        assert (len(pids), len(expected)) == (1, 6)
        next(outputs := decoded())
        outputs.close()  # the other process's share is nobody's now
        assert not own()
        assert tokens(1) == expected[1:]
    assert not own()


def test_a_share_that_cannot_be_sent_is_refused():
    made = object.__new__(helpers.Processes)
    made._running = {"cuda:1": Process()}
    share = helpers.Share([lambda: None], Generation(16, 16, 4), 1, None, {})
    with pytest.raises(UserError, match=r"can't be sent to another process \(.*lambda.*leave gpus out"):
        made.begin([share])


KILLED = """
import os, signal, sys
from omegaconf import OmegaConf
from dlmlab.decoder.baseline import Baseline
from dlmlab.loop.batch import Batch
from dlmlab.run import build, gpus
from dlmlab.types import Generation, Request

gpus.devices = lambda cfg: ["cpu", "cpu"]
if __name__ == "__main__":
    cfg = OmegaConf.create({"model": {"_target_": "dlmlab.model.loader.load", "path": "tiny/v1"}, "device": "cpu"})
    with gpus.spread(cfg) as decode:
        [process] = decode.args[0]._running.values()
        print(process.pid, flush=True)
        if sys.argv[1] == "busy":
            requests = [Request(index, [7] * (index % 50 + 1), Baseline()) for index in range(2000)]
            told = {"batch_size": Batch(1), "memo": None, "on_step": lambda step: None, "seed": 0}
            next(decode(build.model(cfg), requests, Generation(64, 64, 64), **told))
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.long
@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_process_whose_run_was_killed_ends_too(tmp_path, state):
    """It would stay on its GPU for good."""
    (tmp_path / "killed.py").write_text(KILLED)
    command = [sys.executable, tmp_path / "killed.py", state]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    other, deadline = Path(f"/proc/{run.stdout.strip()}"), time.monotonic() + 60
    while other.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not other.exists()


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two machines that count as a GPU each; its address."""
    pytest.importorskip("ray", reason="needs pip install 'dlmlab[ray]'")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 78_643_200}
    made = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    made.add_node(**small)
    made.wait_for_nodes()
    yield made.address
    made.shutdown()


@pytest.mark.long
def test_a_ray_cluster_answers_as_one_process_does(cluster, command, monkeypatch, tmp_path):
    assert command(*SMALL, "memo=off")[0] == 0
    texts = answers((tmp_path / "run").rename(tmp_path / "alone"))
    own = []

    def noted(model, requests, *more, **told):
        own.extend(requests)
        return decode(model, requests, *more, **told)

    monkeypatch.setattr(gpus, "decode", noted)
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    status, _, errors = command(*SMALL, "gpus=ray", f"memo_path={tmp_path}/memo.sqlite")
    assert (status, errors, len(own)) == (0, "", 3)
    assert answers(tmp_path / "run") == texts


@pytest.mark.long
def test_a_task_of_a_cluster_that_ends_is_named(cluster, monkeypatch):
    import ray

    from dlmlab.run.cluster import joined

    def wait_for_gpus():
        ray.init(log_to_driver=False)
        while ray.available_resources().get("GPU") != 2:  # what ran before gives them back in its own time
            time.sleep(0.1)
        ray.shutdown()

    monkeypatch.setenv("RAY_ADDRESS", cluster)
    missing = {"model": {"_target_": "dlmlab.model.loader.load", "path": "tiny/v9"}, "device": "cpu"}
    share = helpers.Share([], Generation(16, 16, 4), 1, None, {})
    wait_for_gpus()
    with joined(missing) as others:
        others.begin([share])
        with pytest.raises(UserError, match="tiny/v9"):
            list(others.rest())
    wait_for_gpus()
    with joined(missing | {"model": missing["model"] | {"path": "tiny/v1"}}) as others:
        ray.kill(others._holders[0])
        others.begin([share])
        with pytest.raises(UserError, match="the process on the cluster's GPU 1 ended with .*: resume= goes on"):
            list(others.rest())


@pytest.mark.parametrize(
    "address",
    [
        "ray://127.0.0.1:1",
        "127.0.0.1:1",
        "[::1]:1",
        "localhost",
        "local",
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(address):
    pytest.importorskip("ray", reason="needs pip install 'dlmlab[ray]'")
    from dlmlab.run.cluster import check_address

    line = re.escape(f"RAY_ADDRESS={address}: no Ray cluster answers there: ") + ".*ray start --head"
    with pytest.raises(UserError, match=line):
        check_address(address)


def test_requests_of_a_prompt_stay_together_and_shares_are_alike():
    requests = [Request(index, [7] * (index % 10 + 1), Threshold(0.9)) for index in range(40)]
    parts = gpus.shares(requests, 3)
    assert sorted(request.index for part in parts for request in part) == list(range(40))
    homes = [{tuple(request.prompt) for request in part} for part in parts]
    assert not homes[0] & homes[1] | homes[1] & homes[2] | homes[0] & homes[2]
    assert sorted(map(len, parts)) == [12, 12, 16]


@pytest.mark.parametrize(
    ("asked", "have", "device", "found"),
    [
        (None, 2, "cpu", []),
        (2, 4, "auto", ["cuda:0", "cuda:1"]),
        ("all", 3, "cuda", ["cuda:0", "cuda:1", "cuda:2"]),
    ],
)
def test_devices_are_those_that_are_asked_for(monkeypatch, asked, have, device, found):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: have)
    assert gpus.devices(OmegaConf.create({"gpus": asked, "device": device})) == found


@pytest.mark.parametrize(
    ("asked", "have", "device", "line"),
    [
        (2, 1, "auto", "gpus=2, but this machine has 1"),
        ("all", 0, "auto", "gpus=all, but this machine has 0"),
        (2, 2, "cuda:1", "device=cuda:1 and gpus=2 both name devices"),
    ],
)
def test_devices_that_are_not_there_are_refused(monkeypatch, asked, have, device, line):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: have)
    with pytest.raises(UserError, match=line):
        gpus.devices(OmegaConf.create({"gpus": asked, "device": device}))


class Process:
    exitcode = -9

    def kill(self) -> None: ...

    def join(self) -> None: ...


def processes(*said):
    """Processes that have said something to this one."""
    made = object.__new__(helpers.Processes)
    made._found, made._running, made._busy = SimpleQueue(), {"cuda:1": Process()}, {"cuda:1"}
    made._told, made._looked = deque(), 0.0
    for each in said:
        made._found.put(("cuda:1", [each]))
    return made


def test_a_process_that_is_killed_is_named():
    with pytest.raises(UserError, match="the process on cuda:1 ended with -9"):
        list(processes().rest())


def test_a_fault_of_another_process_is_this_ones():
    with pytest.raises(UserError, match="too long"):
        list(processes(helpers.Ended([], lines=("too long",))).rest())
    with pytest.raises(RuntimeError, match="(?s)cuda:1 failed.*ZeroDivisionError"):
        list(processes(helpers.Ended([], "ZeroDivisionError")).rest())


def test_others_are_not_looked_for_at_every_output(monkeypatch):
    now = 100.0
    monkeypatch.setattr(helpers.time, "monotonic", lambda: now)
    monkeypatch.setattr(Process, "exitcode", None)
    one, two = (StepTiming(1.0, rows=number, computed=number) for number in (1, 2))
    made = processes(one)
    assert list(made.ready()) == [one]
    made._found.put(("cuda:1", [two]))
    assert list(made.ready()) == []
    now += helpers.TELL_SECONDS
    assert list(made.ready()) == [two]
