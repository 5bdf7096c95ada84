"""The command line's manners: one clear line for an error, and an exit status that says what came out."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlmlab import manifest
from dlmlab.errors import UserError
from dlmlab.loop import interrupt
from dlmlab.paths import CHECKOUT, CONF, home
from dlmlab.record.files import free_space, visible, write_text
from dlmlab.record.folder import ERROR, MULTIRUN, read_results
from dlmlab.run import agent, conf, experiment, kinds, protocol, resume
from dlmlab.run.arguments import prepare
from dlmlab.run.experiment import Experiment
from dlmlab.run.help import FLAGS, text
from dlmlab.run.logs import borrowed
from dlmlab.run.streams import steady
from dlmlab.settings import check as check_kind
from dlmlab.settings import near

FAILED_GATE = 3
GATES = ("gates", "performance_gates")
"""Keys of results.json under which gates stand, each with its verdict."""
INTERRUPTED = 130
EXTRAS = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/ray": "ray",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/sweeper/optuna": "optuna",
}
"""Hydra's plugins, and what installs them."""
REMEDIES = {
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "; write elsewhere: hydra.run.dir=FOLDER"),
}
OPEN = ("gates", "grid")
"""Groups that a command may add to."""
USER_ERRORS = (UserError, HydraException, OmegaConfBaseException, OSError)

os.environ["DLMLAB_ROOT"] = str(home())  # in a launcher's workers too


@dataclass
class Command:
    """What came of a command, in the process that the user started.

    Attributes:
        folder: Where a single run writes; None for a multirun, and before it is known.
        multirun: The folder that the folders of a multirun's jobs lie in; None for a single run.
        config: The multirun's config, as it was asked for: what lies in a folder is not asked. None for a single run.
        new: Whether that folder wasn't there before.
        error: A single run's error; None without one.
    """

    folder: Path | None = None
    multirun: Path | None = None
    config: DictConfig | None = None
    new: bool = False
    error: BaseException | None = None


_command: ContextVar[Command] = ContextVar("command")


class Outcome(Callback):
    """Notes where a run or multirun writes, in the process that the user started."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note where a single run writes. Hydra calls this before it.

        Args:
            config: The run's config with Hydra's own part, which names the folder.
            **kwargs: Whatever else Hydra tells, which is not needed.
        """
        outcome = _command.get()
        outcome.folder = Path(config.hydra.run.dir)
        outcome.new = not outcome.folder.exists()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note where a multirun writes. Hydra calls this before the jobs. The config tells others what the folder is.

        Args:
            config: The multirun's config with Hydra's own part, which names the folder; it is saved there.
            **kwargs: Whatever else Hydra tells, which is not needed.
        """
        outcome, folder = _command.get(), Path(config.hydra.sweep.dir)
        outcome.new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / MULTIRUN)
        outcome.multirun, outcome.config = folder, config


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> Any:
    """Run the experiment that the config names. What it returns is what a search weighs."""
    return run_experiment(cfg)


def command() -> None:
    """Be the command line: run what it asks for and exit with the status that says what came out.

    `_target_` may name a module of the current directory. It is looked for last, so that a folder there which is
    called `experiments` hides nothing.
    """
    here = str(Path.cwd())
    if CHECKOUT is None or Path(here) != CHECKOUT:
        sys.path[:] = [*(path for path in sys.path if path not in ("", here)), here]
    ours = str(Path(__file__).resolve().parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join([ours, here, os.environ.get("PYTHONPATH", "")])  # a launcher's workers'
    with interrupt.listening(last=True):
        try:
            status = exit_status(main)
        except KeyboardInterrupt:  # while what is finished was told
            print(visible(f"interrupted: the summary isn't whole{how_to_go_on()}"), file=sys.stderr)
            status = INTERRUPTED
    sys.exit(status)


def run_experiment(cfg: DictConfig) -> Any:
    """Run the config's experiment in its folder. What it returns is what a search weighs.

    A single run's error is kept for `exit_status`, without Hydra's lines about it. A multirun's jobs raise theirs; it
    stands in the job's folder too, for the summary.
    """
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    try:
        with interrupt.listening():
            return start_or_resume(cfg, folder)
    except Exception as error:
        if job.mode is RunMode.MULTIRUN:
            with suppress(OSError):
                write_text(folder / ERROR, f"{one_line(error)}\n")
        elif isinstance(error, USER_ERRORS):
            _command.get().error = error
            return None
        raise


def start_or_resume(cfg: DictConfig, folder: Path) -> Any:
    """Run the experiment, from where its folder was left.

    Args:
        cfg: The run's config; a protocol's settings are written into it.
        folder: The run's folder, which holds a manifest where the run has begun before.

    Returns:
        What the experiment's `run` returns; what a search is given of a run that is finished already.

    Raises:
        UserError: The folder is another run's.
    """
    check_kind("resume_force", cfg.resume_force, bool)
    protocol.apply(cfg)
    if (folder / manifest.NAME).exists():
        saved = resume.read_begun(folder)
        changed = resume.check(folder, saved, manifest.manifest(cfg), bool(cfg.resume_force))
        if resume.finished(folder) and not changed:
            print(visible(f"{folder} is finished: nothing is left to do"))
            return resume.objectives(folder)
    kinds.check(cfg)
    chosen = find_experiment(cfg)
    from dlmlab.run import check  # imports torch, which --help and what is said so far do without

    built = check.check(cfg, chosen)
    with resume.claim(folder):
        return chosen.run(cfg, built)


def find_experiment(cfg: DictConfig) -> Experiment:
    """Return the config's experiment. Raises UserError where it names none."""
    if cfg.get("_target_") is None:
        raise UserError(f"experiment=null: choose one of {', '.join(conf.options('experiment'))}")
    return experiment.find(cfg._target_)


def exit_status(main: Callable[[], None]) -> int:
    """Run a Hydra main: 0 when all went well, 1 and one line on stderr for an error, 3 for a failed gate.

    A multirun ends with the summary of its jobs, whether or not all of them went well.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed by Hydra
    warnings.filterwarnings("ignore", module="hydra")
    steady()
    outcome = Command()
    _command.set(outcome)
    problems: Sequence[Any] = []
    try:
        with borrowed():
            status = attempt(main)
    finally:
        if outcome.multirun:
            problems = report_multirun(outcome.multirun, outcome.config)
        if outcome.new and (folder := outcome.folder or outcome.multirun):
            resume.clear_refused(folder)
        sys.stdout.flush()
    places = job_folders(outcome.multirun) if outcome.multirun else [outcome.folder] if outcome.folder else []
    return status or bool(problems) or (FAILED_GATE if any(map(gate_failed, places)) else 0)


def attempt(main: Callable[[], None]) -> int:
    """Run it, and turn what the user can mend into lines, one for each thing."""
    try:
        agent.check()
        sys.argv[1:] = prepare(sys.argv[1:])
        if FLAGS & set(sys.argv[1:]):
            print(text(sys.argv[1:]))
            return 0
        with interrupt.listening():
            main()
        if (folder := _command.get().multirun) and not any(folder.glob("**/.hydra")):
            raise UserError("the sweep has no job: give a setting some values, as in decoder.kappa=0.5,0.7")
        if error := _command.get().error:
            raise error
    except KeyboardInterrupt:
        print(visible(f"interrupted: what is finished is kept{how_to_go_on()}"), file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        remedy = free_space(error) or REMEDIES.get(error.errno or 0, "")
        print(visible(f"error: {one_line(error)}{remedy}{how_to_go_on()}"), file=sys.stderr)
        return 1
    except yaml.MarkedYAMLError as error:
        print(f"error: {visible(' '.join(str(error).split()))}: correct the file", file=sys.stderr)
        return 1
    except USER_ERRORS as error:
        for line in error.args if isinstance(error, UserError) else [one_line(error)]:
            print(f"error: {visible(' '.join(str(line).split()))}", file=sys.stderr)
        return 1
    except (ValueError, TypeError, AssertionError) as error:
        if isinstance(error.__cause__, OSError):  # from logging, which can't open the run's file
            print(f"error: {one_line(error.__cause__)}{REMEDIES.get(error.__cause__.errno or 0, '')}", file=sys.stderr)
        elif composing(error):
            choices = ", ".join(text for text in sys.argv[1:] if "=" in text and "." not in text.partition("=")[0])
            print(f"error: {choices}: a group has one of its choices; python run.py --help lists them", file=sys.stderr)
        else:
            raise
        return 1
    return 0


def composing(error: BaseException) -> bool:
    """Return whether an error came up in Hydra itself while it put a config together."""
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return (
        run_experiment.__code__ not in frames
        and re.search(r"\b(hydra|omegaconf)\b", frames[-1].co_filename) is not None
    )


def how_to_go_on() -> str:
    """How to resume what has begun, where there is something to resume."""
    outcome = _command.get()
    begun = outcome.folder if outcome.folder and (outcome.folder / manifest.NAME).exists() else outcome.multirun
    return f"; go on with the same command plus resume={begun}" if begun else ""


def report_multirun(folder: Path, config: DictConfig | None) -> Sequence[Any]:
    """Report the summary of a multirun's jobs, where the config says.

    Args:
        folder: The multirun's folder.
        config: The multirun's config, which names the trackers; without one the summary goes to its folder alone.

    Returns:
        What isn't in the summary; each has a line on stderr too.
    """
    from dlmlab.run import build, multirun
    from dlmlab.tracking import track

    record, problems = multirun.summarise(folder)
    if record and not multirun.stands(record):
        track(build.trackers(config) if config is not None else [], record)
    for problem in problems:
        line = f"not in the summary: job {problem.name} ({problem.settings}): {problem.reason}"
        print(visible(line), file=sys.stderr)
    return problems


def job_folders(folder: Path) -> Sequence[Path]:
    """Return the folders of a multirun's jobs."""
    from dlmlab.run.multirun import find_jobs

    return [job.folder for job in find_jobs(folder)]


def gate_failed(folder: Path) -> bool:
    """Return whether a gate failed in the run of a folder."""
    try:
        results = read_results(folder)
    except UserError:
        return False  # it has none, or a line has told of it
    gates = [gate for key in GATES for gate in results.get(key, [])]
    return any(isinstance(gate, dict) and gate.get("verdict") == "fail" for gate in gates)


def one_line(error: BaseException) -> str:
    """Return the message in a line; for a misspelt key, with the nearest key that exists."""
    message = visible(" ".join(str(error).split())).partition(" Config search path:")[0]
    if found := re.match(r"Could not override '([\w.@/]+)'", message):
        key, added = found[1], f"; +{found[1]}=… adds it" if found[1].partition(".")[0] in OPEN else ""
        return f"{key} is not a setting{added or nearest(key)}; --help lists what is"
    if isinstance(error, MissingConfigException):
        if extra := EXTRAS.get(error.missing_cfg_file or ""):
            return f"{error.missing_cfg_file} is not installed: pip install -e '.[{extra}]'"
        message += near((error.missing_cfg_file or "").rpartition("/")[2], error.options or [])
        message += "" if own_configs() else "; one of your own is found with --config-dir"
    return message or type(error).__name__


def nearest(key: str) -> str:
    """A suggestion: the choice that brings the key, or the nearest key of the config as it is without that override."""
    group, choice, *rest = (*key.split("."), "", "")
    if rest[:1] != [""] and choice and (CONF / group / f"{choice}.yaml").exists():
        return f" unless {group}={choice} is chosen: add that"
    from hydra import compose, initialize_config_dir

    wrong = [text for text in sys.argv[1:] if "=" in text and text.split("=")[0].lstrip("+~") == key]
    others = [text for text in sys.argv[1:] if "=" in text and text not in wrong and not text.startswith("-")]
    try:
        OverridesParser.create().parse_overrides(others)
        path = [f"hydra.searchpath=[{own}]" for own in own_configs()]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", overrides=[*path, *(text for text in others if "," not in text)])
    except HydraException:
        return ""
    return near(key, [leaf for leaf in leaves(OmegaConf.to_container(config)) if not key.startswith(f"{leaf}.")])


def own_configs() -> list[str]:
    """Return the folder of configs that the user adds with `--config-dir`, where there is one."""
    found = re.search(r"(?:^|\0)(?:--config-dir|-cd)[=\0]([^\0]+)", "\0".join(sys.argv[1:]))
    return [str(Path(found[1]).resolve())] if found else []


def leaves(value: Any, prefix: str = "") -> list[str]:
    """Return the dotted names of everything in a config, of its groups as well.

    Args:
        value: The config as nested dicts, or a value in it.
        prefix: The dotted name of that value; empty for the whole config.
    """
    if not isinstance(value, dict):
        return [prefix]
    inner = [leaf for key, child in value.items() for leaf in leaves(child, f"{prefix}.{key}" if prefix else str(key))]
    return [*([prefix] if prefix else []), *inner]
