"""Sweeps: every file composes, every launcher runs, shards join, and a failed job costs only itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from dlmlab.run.cli import INTERRUPTED
from dlmlab.run.multirun import common, summarise
from tests.documented import check_summary
from tests.experiments.fakes import ROOT, Bench
from tests.tracking.wandb_file import exit_code, read, started, values

LOGGED = "tracking.markdown.logged=[evaluate]"
SWEEPS = sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml"))
WANDB_SWEEPS = sorted((ROOT / "sweeps" / "wandb").glob("*.yaml"))
NEEDED = {
    "kappa_tau_w_search": ("hydra_plugins.hydra_optuna_sweeper", "optuna"),
    "shards": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
}
SETTING = ["experiment=evaluate", "decoder.tau=0.012", "decoder.radius=1"]


def installed(plugin: str) -> bool:
    """Whether a module is there; where none of Hydra's plugins is, their package isn't either."""
    return all(find_spec(plugin.rsplit(".", dots)[0]) for dots in reversed(range(plugin.count(".") + 1)))


def needs(plugin: str, extra: str):
    return pytest.mark.skipif(not installed(plugin), reason=f"needs pip install 'dlmlab[{extra}]'")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def sweep(bench, tmp_path):
    """A multirun in this process: its exit status and summary."""

    def call(*arguments, name="sweep"):
        folder = tmp_path / name
        status = bench("-m", *arguments, f"hydra.sweep.dir={folder}")
        file = folder / "results.json"
        return status, json.loads(file.read_text()) if file.exists() else None

    return call


def start(bench, *arguments, cwd, **streams):
    """`python run.py -m ARGUMENTS` from another directory, as it begins."""
    env = {key: value for key, value in os.environ.items() if key not in ("DLMLAB_ROOT", "PYTHONPATH")}
    command = [sys.executable, str(ROOT / "run.py"), "-m", *bench.arguments, *arguments]
    return subprocess.Popen(command, cwd=cwd, env={**env, "OMP_NUM_THREADS": "1"}, text=True, **streams)


def in_process(bench, *arguments, cwd):
    """`python run.py -m ARGUMENTS` from another directory."""
    with start(bench, *arguments, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_a_sweep_is_a_file_in_sweeps():
    assert (ROOT / "conf" / "sweep").is_symlink()
    assert os.readlink(ROOT / "conf" / "sweep") == "../sweeps"
    assert SWEEPS


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_composes_and_names_keys_that_exist(name, monkeypatch):
    plugin, extra = NEEDED.get(name, ("hydra", ""))
    if not installed(plugin):
        pytest.skip(f"needs pip install 'dlmlab[{extra}]'")
    monkeypatch.setenv("DLMLAB_ROOT", str(ROOT))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=[f"sweep={name}"], return_hydra_config=True)
    assert cfg.hydra.sweeper.params
    for key in cfg.hydra.sweeper.params:
        parent, _, name = key.rpartition(".")
        assert name in OmegaConf.select(cfg, parent).keys()  # noqa: SIM118 (`in` a config is false for ???)


def test_the_calibration_s_grid_and_the_sweep_are_the_same(monkeypatch):
    monkeypatch.setenv("DLMLAB_ROOT", str(ROOT))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        swept = compose("config", overrides=["sweep=kappa_tau_w"], return_hydra_config=True).hydra.sweeper.params
        grid = compose("config", overrides=["experiment=calibration"]).grid
    assert {f"decoder.{key}": list(values) for key, values in grid.items()} == {
        key: [json.loads(value) for value in str(values).split(",")] for key, values in swept.items()
    }


@pytest.mark.parametrize("path", WANDB_SWEEPS, ids=lambda path: path.stem)
def test_w_and_b_s_agent_runs_the_sweep(path, bench, tmp_path, monkeypatch):
    """W&B's own agent starts the run, from another directory; all but the server that hands out settings."""
    from wandb.wandb_agent import Agent

    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    for name, value in {"SWEEP_ID": "abcd1234", "DIR": str(tmp_path), "RUN_ID": "", "SWEEP_PARAM_PATH": ""}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)  # the agent sets them in this process
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("DLMLAB_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    sweep = yaml.safe_load(path.read_text())
    settings = {key: {"value": values["values"][0]} for key, values in sweep["parameters"].items()}
    small = [each for each in bench.arguments if not each.startswith("tracking")]
    log = f"tracking.markdown.log_file={tmp_path}/log.md"
    agent = Agent(None, None, sweep_id="abcd1234")
    agent._sweep_command = [*sweep["command"], *small, log, f"hydra.run.dir={tmp_path}/run"]
    agent._command_run({"run_id": "efgh5678", "program": sweep["program"], "args": settings})
    assert agent._run_processes["efgh5678"].wait() == 0

    assert (ROOT / sweep["program"]).exists()
    start = started(read(tmp_path / "run"))
    assert (start.sweep_id, start.run_id) == ("abcd1234", "efgh5678")
    config = values(start.config.update)
    for key, value in settings.items():
        assert config[key] == config["decoder"][key.removeprefix("decoder.")] == value["value"]
    check_summary(tmp_path / "run")
    assert sweep["metric"]["name"] in json.loads((tmp_path / "run" / "results.json").read_text())["summary"]


def test_a_grid_ends_with_one_summary(sweep, tmp_path):
    status, found = sweep(*SETTING, "decoder.kappa=0.02,0.09")
    assert status == 0
    for job, kappa in enumerate((0.02, 0.09)):
        own = json.loads((tmp_path / "sweep" / str(job) / "results.json").read_text())
        assert found["jobs"][job]["figures"] == own["summary"]
        assert found["points"][job]["kappa"] == kappa
    assert found["tables"][0]["columns"][:3] == ["job", "decoder.kappa", "score"]
    assert (tmp_path / "sweep" / "quality_against_forwards.png").exists()
    config = json.loads((tmp_path / "sweep" / "manifest.json").read_text())["config"]
    assert config["decoder"]["tau"] == 0.012
    assert "kappa" not in config["decoder"], "the summary is of no single kappa"


def test_a_sweep_file_is_all_that_a_sweep_needs(sweep):
    status, found = sweep("sweep=kappa_tau_w", "decoder.tau=0.6", "decoder.radius=2")
    assert status == 0
    assert [point["kappa"] for point in found["points"]] == [0.5, 0.7, 0.9]


def test_a_failed_job_is_named_and_the_others_are_summarised(sweep, capfd):
    status, found = sweep(*SETTING, "decoder.kappa=0.02,1.5,0.09")
    assert status == 1
    assert [job["job"] for job in found["jobs"]] == ["0", "2"]
    [problem] = found["problems"]
    assert problem["name"] == "1"
    assert problem["settings"] == "decoder.kappa=1.5"
    assert "kappa=1.5 is not a number between 0 and 1" in problem["reason"]
    assert "job 1 (decoder.kappa=1.5): decoder.kappa=1.5" in capfd.readouterr().err


def test_a_job_that_was_killed_is_named_too(sweep, tmp_path):
    sweep(*SETTING, "decoder.kappa=0.02,0.09")
    (tmp_path / "sweep" / "1" / "results.json").unlink()
    record, [problem] = summarise(tmp_path / "sweep")
    assert [job["job"] for job in record.report.results["jobs"]] == ["0"]
    assert (problem.name, problem.reason) == ("1", "it ended without a result")


def test_where_every_job_fails_there_is_no_summary(sweep):
    assert sweep(*SETTING, "decoder.kappa=1.5,2.5") == (1, None)


def test_joined_shards_are_the_unsharded_run(bench, sweep, tmp_path):
    setting = [*SETTING, "decoder.kappa=0.02", "memo=off"]
    assert bench(*setting, f"hydra.run.dir={tmp_path / 'whole'}") == 0
    whole = json.loads((tmp_path / "whole" / "results.json").read_text())
    status, found = sweep(*setting, "task.shard=range(0,5)", "task.num_shards=5")
    assert status == 0
    assert found["summary"] == whole["summary"]
    assert found["tables"][1:] == whole["tables"]


def test_each_setting_s_shards_are_joined(sweep):
    status, found = sweep(*SETTING, "decoder.kappa=0.02,0.09", "task.shard=0,1", "task.num_shards=2")
    assert status == 0
    assert [job["job"] for job in found["jobs"]] == ["0, 1", "2, 3"]
    assert [job["figures"]["n"] for job in found["jobs"]] == [12, 12]


def test_shards_that_are_not_the_whole_are_not_joined(sweep, capfd):
    status, found = sweep(*SETTING, "decoder.kappa=0.02", "task.shard=0,2", "task.num_shards=4")
    assert (status, found) == (1, None)
    assert "of task.num_shards=4 shard 1, 3 is missing" in capfd.readouterr().err


def test_shards_of_different_configs_are_not_joined(bench, sweep, tmp_path):
    setting = [*SETTING, "decoder.kappa=0.02", "task.num_shards=2"]
    sweep(*setting, "task.shard=0,1")
    manifest = tmp_path / "sweep" / "1" / "manifest.json"
    made = json.loads(manifest.read_text())
    made["config"]["generation"]["steps"] = 4
    manifest.write_text(json.dumps(made))
    record, [problem] = summarise(tmp_path / "sweep")
    assert record is None
    assert problem.reason == "the shards differ in config.generation.steps: None in job 0, 4 in job 1"


@pytest.mark.parametrize(("other", "joined"), [("cuda:1", True), ("cpu", False)])
def test_shards_may_run_on_other_gpus_but_not_on_other_kinds_of_device(sweep, tmp_path, other, joined):
    sweep(*SETTING, "decoder.kappa=0.02", "task.num_shards=2", "task.shard=0,1")
    for job, device in (("0", "cuda:0"), ("1", other)):
        manifest = tmp_path / "sweep" / job / "manifest.json"
        made = json.loads(manifest.read_text())
        made["config"]["device"] = made["model"]["device"] = device
        manifest.write_text(json.dumps(made))
    record, problems = summarise(tmp_path / "sweep")
    assert (record is not None) == joined
    assert [problem.reason for problem in problems] == (
        [] if joined else ["the shards differ in config.device: cuda:0 in job 0, cpu in job 1"]
    )


def test_each_shard_has_a_gpu_of_its_own(monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs pip install 'dlmlab[joblib]'")
    monkeypatch.setenv("DLMLAB_ROOT", str(ROOT))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = ["sweep=shards", "task=tiny_open", "task.num_shards=4", "task.shard=3"]
        cfg = compose("config", overrides=overrides, return_hydra_config=True)
    assert cfg.device == "cuda:3"
    assert cfg.hydra.launcher.n_jobs == 4
    assert cfg.hydra.sweeper.params == {"task.shard": "range(0,4)"}


def test_a_shard_that_is_there_twice_is_not_joined(sweep, tmp_path):
    sweep(*SETTING, "decoder.kappa=0.02", "task.num_shards=2", "task.shard=0,1")
    subprocess.run(["cp", "-r", tmp_path / "sweep" / "1", tmp_path / "sweep" / "7"], check=True)
    record, [problem] = summarise(tmp_path / "sweep")
    assert record is None
    assert "shard 1 of task.num_shards=2 is there twice" in problem.reason


def test_what_jobs_configs_have_in_common_is_in_all_of_them():
    first = {"seed": 0, "grid": {"kappa": 0.5, "tau": 0.9}, "workload": {"lengths": [1]}}
    assert common(first, {"seed": 1, "grid": {"kappa": 0.5, "tau": 0.6}, "workload": None}) == {"grid": {"kappa": 0.5}}
    assert common(first, first) == first


def test_the_summary_of_the_same_jobs_is_the_same(sweep, tmp_path):
    sweep(*SETTING, "decoder.kappa=0.02,0.09")
    assert summarise(tmp_path / "sweep") == summarise(tmp_path / "sweep")
    first, _ = summarise(tmp_path / "sweep")
    written = json.loads((tmp_path / "sweep" / "manifest.json").read_text())
    assert {key: value for key, value in written.items() if key != "ended"} == {
        key: value for key, value in first.manifest.items() if key != "ended"
    }


BAD = {
    "lacking": (["decoder=threshold", "decoder.kappa=0.5,0.7"], r"error: decoder.kappa is not a setting"),
    "baseline": (["sweep=kappa_tau_w", "decoder=baseline"], r"error: decoder.kappa is not a setting"),
    "no sweep": (["sweep=nothing"], r"error: .*sweep/nothing"),
    "no value": (["decoder.kappa=", "decoder.tau=0.5", "decoder.radius=1"], r"kappa='' is not a number"),
    "range": (
        ["decoder.radius=range(-1,1)", "decoder.kappa=0.5", "decoder.tau=0.5"],
        r"radius=-1 is not a whole number",
    ),
}


@pytest.mark.parametrize(("arguments", "expected"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(sweep, capfd, arguments, expected):
    status, _ = sweep("experiment=evaluate", *arguments)
    assert status == 1
    errors = capfd.readouterr().err
    assert re.search(expected, errors)
    assert len(re.findall(r"^error: ", errors, re.MULTILINE)) == 1
    assert "Traceback" not in errors


def test_a_sweep_file_with_an_unknown_key_is_one_line(bench, sweep, capfd):
    folder = bench.folder / "conf" / "sweep"
    folder.mkdir(exist_ok=True)
    text = "# @package _global_\nhydra: {sweeper: {params: {decoder.kapa: '0.5,0.7'}}}\n"
    (folder / "misspelt.yaml").write_text(text)
    status, _ = sweep("experiment=evaluate", "sweep=misspelt")
    assert status == 1
    assert "error: decoder.kapa is not a setting" in capfd.readouterr().err


SHARDS = ["task.shard=0,1", "task.num_shards=2"]
LAUNCHERS = {
    "joblib": ["sweep=shards", "device=cpu"],  # two processes in the place of two GPUs
    "submitit_local": ["hydra/launcher=submitit_local", *SHARDS],
}
EXTRAS = {"joblib": "joblib", "submitit_local": "slurm"}
PLUGINS = {"joblib": "hydra_plugins.hydra_joblib_launcher", "submitit_local": "hydra_plugins.hydra_submitit_launcher"}


def check_sharded(bench, arguments, tmp_path):
    """A sharded evaluation with a launcher, from another directory, is the unsharded one."""
    setting = [*SETTING, "decoder.kappa=0.02"]
    assert bench(*setting, f"hydra.run.dir={tmp_path / 'whole'}") == 0
    own = [f"memo_path={tmp_path}/memo.sqlite", "tracking=markdown"]
    own += [f"tracking.markdown.log_file={tmp_path}/log.md", f"hydra.sweep.dir={tmp_path / 'sweep'}", LOGGED]
    done = in_process(bench, *setting, *own, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    whole, found = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "sweep"))
    assert found["summary"] == whole["summary"]
    headings = re.findall(r"^## .*", (tmp_path / "log.md").read_text(), re.MULTILINE)
    assert len(headings) == 1, "the summary stands in the log, and no job"


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers(bench, name, tmp_path):
    if not installed(PLUGINS[name]):
        pytest.skip(f"needs pip install 'dlmlab[{EXTRAS[name]}]'")
    check_sharded(bench, LAUNCHERS[name], tmp_path)


@needs(PLUGINS["joblib"], "joblib")
def test_sigterm_ends_jobs_at_once_in_order(bench, tmp_path):
    """130, a line for what is to do, and no semaphore left behind."""
    sweep = [f"hydra.sweep.dir={tmp_path / 'sweep'}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    setting = [*SETTING, "decoder.kappa=0.02,0.09", "memo=off", "task.limit=40", "task.steps=16", "batch_size=1"]
    with (tmp_path / "said").open("w") as said:
        run = start(bench, *setting, *sweep, cwd=tmp_path, stdout=said, stderr=said)
    while run.poll() is None and not list(tmp_path.glob("sweep/*/samples.jsonl")):
        time.sleep(0.01)
    run.terminate()
    assert run.wait() == INTERRUPTED
    lines = (tmp_path / "said").read_text().splitlines()
    assert any(line.startswith("interrupted: ") and line.endswith(f"resume={tmp_path / 'sweep'}") for line in lines)
    assert not [line for line in lines if "semaphore" in line or "Traceback" in line]


@needs(PLUGINS["joblib"], "joblib")
def test_jobs_at_once_lose_nothing(bench, tmp_path, monkeypatch):
    """Two processes write the log, the memo and W&B at the same time."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    # One by one, on long canvases: so that both last a while.
    one_by_one = [f"generation.{name}=48" for name in ("gen_length", "block_length", "steps")]
    memo, setting = f"memo_path={tmp_path}/memo.sqlite", [*SETTING, "task.limit=40", "batch_size=1", *one_by_one]
    own = [
        "tracking=wandb",
        f"tracking.markdown.log_file={tmp_path}/log.md",
        f"hydra.sweep.dir={tmp_path}/sweep",
        LOGGED,
    ]
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = in_process(bench, *setting, "decoder.kappa=0.02,0.09", memo, *own, *launcher, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr

    folders = [tmp_path / "sweep" / job for job in ("0", "1")]
    made = [json.loads((folder / "manifest.json").read_text()) for folder in folders]
    assert max(each["started"] for each in made) <= min(each["ended"] for each in made), "they ran at once"
    log = (tmp_path / "log.md").read_text()
    assert len(re.findall(r"^## ", log, re.MULTILINE)) == 1
    assert (tmp_path / "sweep" / "table.md").read_text() in log
    for folder in folders:
        assert exit_code(read(folder)) == 0
    assert len({started(read(folder)).run_group for folder in folders}) == 1
    for folder, kappa in zip(folders, ("0.02", "0.09"), strict=True):
        again = tmp_path / f"again {kappa}"
        assert bench(*setting, f"decoder.kappa={kappa}", memo, f"hydra.run.dir='{again}'") == 0
        found, first = (json.loads((each / "results.json").read_text()) for each in (again, folder))
        assert found["forwards"]["computed"] == 0, "every forward pass of both was kept"
        assert found["summary"] == first["summary"]


@needs("ray", "ray")
def test_a_ray_cluster_of_two_workers_that_count_as_a_gpu_each(bench, tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.delenv("DLMLAB_ROOT", raising=False)
    small = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 78_643_200}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        cluster.add_node(**small)
        cluster.wait_for_nodes()
        connect = [
            f"hydra.launcher.ray.init.address={cluster.address}",
            "+hydra.launcher.ray.init.object_store_memory=null",
        ]
        check_sharded(bench, ["hydra/launcher=gpus", *SHARDS, *connect], tmp_path)
    finally:
        cluster.shutdown()


@needs("hydra_plugins.hydra_optuna_sweeper", "optuna")
def test_a_search_weighs_score_and_forwards(sweep, tmp_path):
    ranges = ["decoder.kappa=interval(0.01,0.1)", "decoder.tau=interval(0.01,0.02)", "decoder.radius=range(1,4)"]
    status, found = sweep("sweep=kappa_tau_w_search", "hydra.sweeper.n_trials=3", *ranges)
    assert status == 0
    assert len(found["jobs"]) == 3
    assert (tmp_path / "sweep" / "multirun.yaml").exists(), "by which its summary is found and rebuilt"
    searched = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    figures = [[job["figures"]["score"], job["figures"]["forwards per item"]] for job in found["jobs"]]
    assert all(solution["values"] in figures for solution in searched["solutions"])
