"""`python -m dlmlab …` and the command `dlmlab …` are `python run.py …` from any current directory."""

from dlmlab.run.cli import command

if __name__ == "__main__":
    command()
