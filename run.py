"""Run one experiment, or a sweep of them.

python run.py                                        the tiny model: LocalLeap against the baseline
python run.py decoder=localleap model=llada15        LLaDA-1.5 in NF4 on a 12 GB card
python run.py -m decoder.kappa=0.5,0.7,0.9           a sweep
python run.py --help                                 what can be chosen and changed
"""

from dlmlab.run.cli import command, main

__all__ = ["main"]

if __name__ == "__main__":
    command()
