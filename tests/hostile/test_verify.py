"""`verify` builds nothing, looks nothing up and writes nowhere because a run's folder says so."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from dlmlab import verify
from dlmlab.errors import UserError
from dlmlab.record.samples import SampleFile, read_samples
from dlmlab.run import conf as run_conf
from dlmlab.run import trust
from tests.hostile.folders import conf, edit, write_run


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "run"))


def test_a_sound_run_follows(run: Path) -> None:
    found = verify.verify(run)
    assert (found.problems, found.unchecked) == ([], [])


def config(run: Path, part: str, **values: object) -> None:
    """Change a part of a run's config."""
    edit(run / "manifest.json", lambda made: made["config"][part].update(values))


FILTER = conf("task", "tiny_mmlu")["filter"]
TOUCH = {"_target_": "subprocess.run", "args": ["touch", "ran"]}
PARTS = {
    "a foreign class": ("task", {"_target_": "subprocess.Popen"}, "names subprocess.Popen"),
    "a looked up filter": ("task", {"filter": "${evil}"}, "looks up task.filter"),
    "an environment variable": ("model", {"path": "${oc.env:HOME}"}, "looks up model.path"),
    "a value that looks itself up": ("task", {"limit": "${task.limit}"}, "looks up task.limit"),
    "something to call as a filter": ("task", {"filter": TOUCH}, "names subprocess.run"),
    "a filter with arguments": ("task", {"filter": FILTER | {"x": 1}}, "no answer filter"),
    "something to call as a value": ("task", {"limit": TOUCH}, "names subprocess.run"),
    "something deep": ("task", {"limit": [{"a": {"_target_": "os.system"}}]}, "limit"),
    "positional arguments": ("task", {"_args_": [1]}, "gives _args_"),
    "an unknown parameter": ("task", {"cache": "/x"}, "gives cache"),
    "no end of items": ("task", {"per_kind": 10**8}, "per_kind"),
    "a sandbox without limits": ("sandbox", {"wall_seconds": 10**6}, "wall_seconds"),
    "a sandbox of someone else's": ("sandbox", {"_target_": "os.system"}, "names os.system"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_nothing_that_a_config_names_is_built(run: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part, values, message = PARTS[name]
    monkeypatch.chdir(run)
    config(run, part, **values)
    before = sorted(run.rglob("*"))
    try:
        said = verify.verify(run).unchecked
    except UserError as error:
        said = [str(error)]
    assert any(message in line for line in said), said
    assert sorted(run.rglob("*")) == before


def test_a_decoder_is_built_of_plain_values_alone(run: Path) -> None:
    config(run, "decoder", threshold={"_target_": "os.system", "command": "touch ran"})
    with pytest.raises(UserError, match="names os.system"):
        verify.verify(run)


def test_a_pipe_or_a_device_is_no_data(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    own = conf("task", "open_prompts")
    trust.check_part("task", own | {"path": str(tmp_path)})
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UserError, match="is no data file"):
            trust.check_part("task", own | {"path": str(path)})


def test_a_grid_is_no_larger_than_its_samples(run: Path) -> None:
    edit(run / "manifest.json", lambda made: made["config"].update(grid={"a": [*range(999)], "b": [*range(999)]}))
    with pytest.raises(UserError, match="998001 settings, of which 1 left"):
        verify.verify(run)


def test_a_hub_name_is_not_fetched(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[bool]()

    def fetch(*names: object, local_files_only: bool, **others: object) -> str:
        asked.append(local_files_only)
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    config(run, "model", path="someone/model")
    assert verify.verify(run).unchecked[0].startswith("texts: model 'someone/model'")
    assert asked == [True]


def ask(monkeypatch: pytest.MonkeyPatch, folder: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["verify", str(folder)])
    return verify.main()


def test_ok_is_said_only_where_everything_was_checked(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(monkeypatch, run) == 0
    assert capsys.readouterr().out == f"OK: {run}/results.json follows\n"
    config(run, "task", _target_="tests.Foreign\x1b[2J")
    assert ask(monkeypatch, run) == 2
    said = capsys.readouterr().out
    assert "not checked: scores of tiny_mmlu" in said
    assert "\\x1b[2J" in said
    assert "OK" not in said
    assert "\x1b" not in said


def rewritten(run: Path, **values: object) -> None:
    """Give every sample these values, in a file that is sound by itself."""
    samples = [vars(sample) | values for sample in read_samples(run)]
    (run / "samples.jsonl").unlink()
    file = SampleFile(run)
    file._journal.rewrite(samples)


SAMPLES = {
    "no steps": ({"step_of": []}, "its steps are not those"),
    "no token": ({"tokens": [], "step_of": []}, "its steps are not those"),
    "a token beyond all vocabularies": ({"tokens": [2**40] * 4}, "its text is not that of its tokens"),
    "a negative token": ({"tokens": [-1] * 4}, "its text is not that of its tokens"),
    "tokens that are text": ({"tokens": ["a"] * 4}, "tokens of another type"),
    "a score that is text": ({"score": "1"}, "score of another type"),
    "true as an index": ({"index": True}, "index of another type"),
    "variants that are a list": ({"variants": [1]}, "variants of another type"),
    "no text": ({"text": None}, "text of another type"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_of_any_kind_are_a_line(run: Path, name: str) -> None:
    values, message = SAMPLES[name]
    rewritten(run, **values)
    try:
        said = verify.verify(run).problems
    except UserError as error:
        said = [str(error)]
    assert any(message in line for line in said), said


IDLE = {
    "a rule that edits": ("decoder", conf("decoder", "editing")),
    "a grid of blocks": ("model", {"path": str(Path(__file__).parents[1] / "data" / "families" / "sdar")}),
}


@pytest.mark.parametrize("name", IDLE)
def test_last_passes_may_commit_nothing_where_blocks_are_looked_over_or_cut(run: Path, name: str) -> None:
    rewritten(run, forwards=4)
    steps = "its steps are not those of"
    assert any(steps in line for line in verify.verify(run).problems)
    part, values = IDLE[name]
    config(run, part, **values)
    assert not any(steps in line for line in verify.verify(run).problems)
    for steps_of in ([0, 1, 4, 1], [0, -1, 1, 1], [0, 1, 1]):
        rewritten(run, step_of=steps_of)
        assert any(f"{steps} 4" in line for line in verify.verify(run).problems)


def test_a_file_cut_at_the_end_of_a_line_shows(run: Path) -> None:
    file = run / "samples.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    assert "samples.jsonl has 2 of 3 samples" in verify.verify(run).problems


def test_a_multirun_within_itself_ends(run: Path) -> None:
    edit(run / "results.json", lambda results: results.update(experiment="multirun"))
    with pytest.raises(UserError, match="experiment=multirun is none of"):
        verify.verify(run)


JUNK = [None, True, -1, 1e308, 10**400, "text", "\ud800", "${x}", [], [[]], {}, {"_target_": "os.system"}]


@pytest.mark.parametrize("file", ["manifest.json", "results.json"])
def test_any_value_anywhere_is_at_most_a_line(run: Path, file: str) -> None:
    whole = json.loads((run / file).read_text())
    for key in whole:
        for place, junk in enumerate(JUNK):
            if (place + len(key)) % 3 == 0:  # a third of the pairs, and every kind with some key
                changed = copy.deepcopy(whole)
                changed[key] = junk
                (run / file).write_text(json.dumps(changed))
                with suppress(UserError):
                    verify.verify(run)


@pytest.mark.parametrize("group", ["decoder", "task", "sandbox"])
def test_every_part_of_conf_may_be_built(group: str) -> None:
    with run_conf.composing():
        for name in run_conf.options(group):
            part = OmegaConf.to_container(hydra.compose("config", [f"{group}={name}"]), resolve=False)[group]
            if "_target_" in part:
                plain = {key: each for key, each in part.items() if not str(each).startswith("${")}
                trust.check_part(group, plain)


TEMPLATES = [
    "{% for a in range(9) %}{% endfor %}",
    "{{ ''.__class__ }}",
    "{puzzle.__class__}",
    "{puzzle:>99999999}",
    "{",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_names_fields_and_does_no_more(template: str) -> None:
    own = conf("task", "jsonl") | {"path": None}
    del own["defaults"], own["path"]
    trust.check_part("task", own | {"prompt": "Q: {{ question }} {puzzle}\n"})
    with pytest.raises(UserError, match="does more than to name fields"):
        trust.check_part("task", own | {"prompt": template})


def test_a_task_of_lm_eval_s_is_one_that_conf_names() -> None:
    own = {"_target_": "dlmlab.task.lm_eval.LmEval", "name": "x", "gen_length": 8}
    trust.check_part("task", own | {"task": "gsm8k"})
    with pytest.raises(UserError, match="names lm-eval's scrolls_qasper"):
        trust.check_part("task", own | {"task": "scrolls_qasper"})
