"""Run one experiment, or a sweep of them.

python run.py                                        the tiny model: LocalLeap against the baseline
python run.py decoder=localleap model=llada15        LLaDA-1.5 in NF4 on a 12 GB card
python run.py -m decoder.kappa=0.5,0.7,0.9           a sweep
python run.py --help                                 what can be chosen and changed
"""

import os
import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from dlmlab.run.cli import exit_status, run_experiment

ROOT = Path(__file__).resolve().parent
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])  # for a launcher's workers


@hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")
def main(cfg: DictConfig) -> Any:
    """Run the experiment that the config names. What it returns is what a search weighs."""
    return run_experiment(cfg)


if __name__ == "__main__":
    sys.exit(exit_status(main))
