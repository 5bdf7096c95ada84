"""A calibration from end to end, on a small random checkpoint."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict

import pytest
import yaml
from hydra import compose, initialize_config_dir

from dlmlab.decoder.localleap import LocalLeap
from dlmlab.decoder.threshold import Threshold
from dlmlab.record.samples import read_samples
from dlmlab.run.grid import BASELINE, Setting, canonical, grid
from experiments.calibration import calibration_table, forwards_table
from tests.documented import check_summary
from tests.experiments.fakes import ROOT, Bench

GRID = ["grid.kappa=[0.02,0.09]", "grid.tau=[0.012,0.02]", "grid.radius=[1,4]"]
EASY = ["calibration.margin=0.9", "task.limit=20"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def finished(bench):
    """The folder of a calibration that found a setting, with forwards from an empty memo."""
    folder = bench.folder / "first"
    assert bench("experiment=calibration", *GRID, *EASY, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setenv("DLMLAB_ROOT", str(ROOT))

    def made(*overrides):
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return compose("config", overrides=["experiment=calibration", *overrides])

    return made


def samples(folder):
    return [asdict(sample) for sample in read_samples(folder)]


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_every_setting_answers_as_it_does_alone(bench, finished):
    together = {}
    for sample in samples(finished):
        together.setdefault(sample.pop("decoder"), []).append(sample)
    assert len(together) == 9
    for name, each in list(together.items())[::3]:
        values = dict(re.findall(r"(.)=(\S+)", name))
        own = ["decoder=baseline"]
        if name != BASELINE:
            own = [f"decoder.{key}={values[symbol]}" for key, symbol in (("kappa", "κ"), ("tau", "τ"), ("radius", "W"))]
        folder = bench.folder / f"alone {name}"
        status = bench("experiment=evaluate", "memo=off", "task.limit=20", *own, f"hydra.run.dir='{folder}'")
        assert status == 0
        alone = [sample for sample in samples(folder) if sample.pop("decoder")]
        assert alone == each
        figures = results(folder)
        point = next(point for point in results(finished)["points"] if point["name"] == name)
        assert point["score"] == figures["score"]
        assert point["forwards"] == figures["forwards per item"]


def test_the_summary_s_keys_are_documented(finished):
    check_summary(finished)


def test_shared_forwards_are_counted(finished):
    forwards = results(finished)["forwards"]
    assert forwards["asked"] == sum(sample["forwards"] for sample in samples(finished))
    assert 0 < forwards["computed"] < forwards["asked"] / 2


def test_a_finished_calibration_repeated_costs_no_forward(bench, finished):
    folder = bench.folder / "again"
    assert bench("experiment=calibration", *GRID, *EASY, f"hydra.run.dir={folder}") == 0
    first, again = results(finished), results(folder)
    assert again["forwards"] == {"asked": first["forwards"]["asked"], "computed": 0}
    assert again["points"] == first["points"]
    assert again["tables"][0] == first["tables"][0]
    assert (folder / "samples.jsonl").read_text() == (finished / "samples.jsonl").read_text()


def test_without_the_memo_forwards_are_shared_within_the_run(bench, finished):
    folder = bench.folder / "unremembered"
    assert bench("experiment=calibration", "memo=off", *GRID, *EASY, f"hydra.run.dir={folder}") == 0
    assert results(folder)["forwards"] == results(finished)["forwards"]
    assert results(folder)["points"] == results(finished)["points"]


def test_the_chosen_setting_is_written_as_a_patch(finished):
    found = results(finished)
    patch = yaml.safe_load((finished / "localleap.yaml").read_text())["localleap"]
    point = next(point for point in found["points"] if point["role"] == "chosen")
    assert point["name"] == found["chosen"]
    assert {key: patch[key] for key in ("kappa", "tau", "radius")} == {key: point[key] for key in patch if key in point}
    assert patch["checkpoint"] == str(finished.parent / "model")
    assert "20 items of words" in (finished / "localleap.yaml").read_text()


def test_only_the_baseline_and_the_chosen_setting_are_timed(finished):
    found = results(finished)
    assert list(found["canvas_tokens_per_second"]) == [BASELINE, found["chosen"]]


def test_the_pictures_are_drawn(finished):
    for name in ("quality_against_forwards.png", "heat_map.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")


def test_nothing_is_recommended_where_the_items_are_too_few(bench, capfd):
    folder = bench.folder / "few"
    assert bench("experiment=calibration", *GRID, "task.limit=6", f"hydra.run.dir={folder}") == 0
    assert results(folder)["chosen"] is None
    assert not (folder / "localleap.yaml").exists()
    assert "None is recommended" in capfd.readouterr().out


def test_a_task_without_scores_is_held_against_the_baseline(bench):
    folder, prompts = bench.folder / "open", bench.folder / "prompts.txt"
    prompts.write_text("w1 w2\nw3\nw4 w5 w6\nw7\n")
    arguments = ["task=open_prompts", f"task.path={prompts}", "task.limit=null", "generation.gen_length=8"]
    schedule = ["generation.block_length=8", "generation.steps=4"]
    status = bench("experiment=calibration", *GRID, *arguments, *schedule, f"hydra.run.dir={folder}")
    assert status == 0
    assert results(folder)["points"][0]["score"] == 1


def test_answers_are_scored_once(bench, monkeypatch):
    seen = []
    score = "tests.experiments.fakes.Words.score"
    from tests.experiments.fakes import Words

    real = Words.score
    monkeypatch.setattr(score, lambda self, item, text: seen.append((item.id, text)) or real(self, item, text))
    assert bench("experiment=calibration", *GRID, *EASY, f"hydra.run.dir={bench.folder / 'once'}") == 0
    assert len(seen) == len(set(seen))


def against(difference, passed):
    return {
        "difference": difference, "point_pass": passed, "ci_low": difference, "ci_high": difference, "verdict": "fail"
    }  # fmt: skip


def test_the_log_s_own_grid_prints_as_the_log_prints_it(config):
    settings = grid(config("grid.kappa=[0.5,0.6,0.7,0.8,0.9]", "grid.tau=[0.6,0.75]", "grid.radius=[4]"))
    scores = [0.05, 0.1, 0.05, 0.1, 0.05, 0.1, 0.05, 0.1, 0.1, 0.05]
    common = {"forwards": 8.0, "full_passes": 8.0, "speedup": 2.0, "role": ""}
    points = [{"score": 0.1, "forwards": 16.0, "full_passes": 16.0}]
    points += [{"score": score, "against_baseline": against(score - 0.1, score == 0.1), **common} for score in scores]

    table = calibration_table("tiny_humaneval", settings, points, gen_length=256)
    assert table.columns[:6] == ["κ", "τ", "W", "pass@1", "diff", "gate"]
    rows = [row[:6] for row in table.rows]
    assert rows[0] == ["0.50", "0.60", "4", "0.050", "+0.050", False]
    assert rows[1] == ["0.50", "0.75", "4", "0.100", "+0.000", True]
    assert rows[9] == ["0.90", "0.75", "4", "0.050", "+0.050", False]
    assert table.note.startswith("Baseline pass@1 = 0.100")
    assert "+ is a loss" in table.note


def test_only_the_log_s_table_counts_losses(finished):
    settings, choice = results(finished)["tables"][:2]
    assert (settings["title"], choice["title"]) == ("Settings", "Choice")
    points = {point["name"]: point["against_baseline"]["difference"] for point in results(finished)["points"]}
    assert [row[1] for row in choice["rows"]] == [f"{100 * points[row[0]]:+.1f}" for row in choice["rows"]]
    assert "lose no more than 90 points of 100" in choice["note"]
    assert "points of 100 from a baseline of" in (finished / "localleap.yaml").read_text()


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")
def test_the_log_s_own_calibration_runs_on_the_tiny_suite(command, tmp_path):
    """The grid, the 20 functions and the columns of the performance log's last table."""
    values = ["grid.kappa=[0.5,0.6,0.7,0.8,0.9]", "grid.tau=[0.6,0.75]", "grid.radius=[4]", "task.limit=20"]
    quiet = ["memo=off", "device=cpu", "calibration.timed_items=0", "tracking=terminal"]
    status, shown, _ = command("experiment=calibration", *values, *quiet)
    assert status == 0
    baseline, *points = results(tmp_path / "run")["points"]
    lines = iter(shown[shown.index("| κ ") :].splitlines())
    printed = [[cell.strip() for cell in next(lines).split("|")[1:7]] for _ in range(12)]
    assert printed[0] == ["κ", "τ", "W", "pass@1", "diff", "gate"]
    assert [row[:3] for row in printed[2:]] == [
        [f"0.{kappa}0", tau, "4"] for kappa in (5, 6, 7, 8, 9) for tau in ("0.60", "0.75")
    ]
    for row, point in zip(printed[2:], points, strict=True):
        lost = baseline["score"] - point["score"]
        assert row[3:] == [f"{point['score']:.3f}", f"{lost:+.3f}", "✓" if lost < 0.05 - 1e-9 else "✗"]
    assert f"Baseline pass@1 = {baseline['score']:.3f}" in shown
    assert "LocalLeap calibration sweep" in (tmp_path / "run" / "results.json").read_text()


def test_settings_that_are_one_rule_are_said_to_be_so(config):
    paper = grid(config("decoder=localleap_paper", "grid.kappa=[0.5,0.8]", "grid.tau=[0.6]", "grid.radius=[2,4]"))
    assert [setting.same_as for setting in paper] == ["threshold 0.6", "threshold 0.6", None, None]
    assert [setting.repeated for setting in paper] == [False, True, False, False], "one of a kind can be chosen"
    log = grid(config("grid.kappa=[0.5,0.8]", "grid.tau=[0.6]", "grid.radius=[0,4]"))
    assert [setting.same_as for setting in log] == [BASELINE, None, BASELINE, None]


def test_what_is_called_a_threshold_is_one():
    import torch

    from dlmlab.rule import Step

    confidence_BK = torch.rand(50, 12, generator=torch.Generator().manual_seed(0))
    step = Step(torch.zeros(50, 12, dtype=torch.int64), confidence_BK, torch.ones(50, 12).bool(), torch.ones(50).long())
    for rule in (LocalLeap(0.4, 0.6, 3, "all"), LocalLeap(0.6, 0.6, 2, "all"), LocalLeap(0.7, 0.2, 0, "all")):
        threshold, _ = canonical(rule)
        assert rule(step).commit_BK.equal(Threshold(threshold)(step).commit_BK)


def test_another_decoder_can_be_calibrated(config):
    settings = grid(
        config("decoder=threshold", "~grid.kappa", "~grid.tau", "~grid.radius", "+grid.threshold=[0.5,0.9]")
    )
    assert [setting.rule for setting in settings] == [Threshold(0.5), Threshold(0.9)]
    assert isinstance(settings[0], Setting)


def test_the_forwards_table_has_their_ratio():
    assert forwards_table({"asked": 200, "computed": 30}).rows == [[200, 30, "0.150"]]


BAD = {
    "empty": (["grid.kappa=[]"], r"grid.kappa=\[\] has no values"),
    "no list": (["grid.tau=0.5"], r"grid.tau=0.5 has no values"),
    "no grid": (["~grid"], r"grid is empty"),
    "out of range": (["grid.kappa=[0.5,1.5]"], r"grid.kappa has 1.5, which is not a number between 0 and 1"),
    "wrong kind": (["grid.radius=[2,high]"], r"grid.radius has 'high'"),
    "twice": (["grid.tau=[0.5,0.5]"], r"has a value twice"),
    "lacking": (
        ["decoder=threshold", "~grid.tau", "~grid.radius"],
        r"grid.kappa is no parameter of the decoder, which has threshold",
    ),
    "margin": (["calibration.margin=2"], r"calibration.margin=2"),
    "split": (["calibration.split=1"], r"calibration.split=1"),
    "shortlist": (["calibration.shortlist=0"], r"calibration.shortlist=0"),
    "memo": (["memo=maybe"], r"memo=maybe is neither on nor off"),
    "warm": (["generation.temperature=0.5"], r"generation.temperature=0.5: forward passes can be shared at 0 only"),
    "one item": (["task.limit=1"], r"two items"),
}


@pytest.mark.parametrize(("arguments", "expected"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(bench, capfd, tmp_path, arguments, expected):
    capfd.readouterr()
    assert bench("experiment=calibration", *arguments, f"hydra.run.dir={tmp_path}") == 1
    errors = capfd.readouterr().err
    assert re.fullmatch(r"error: .+\n", errors)
    assert re.search(expected, errors)
