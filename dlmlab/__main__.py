"""`python -m dlmlab …` is `python run.py …` from any current directory, for callers like W&B's agents."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).resolve().parents[1] / "run.py"), run_name="__main__")
