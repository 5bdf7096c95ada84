"""A run on trackio, in a process of its own: written from the one line on stdin (`dlmlab.tracking.trackio`)."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout


def main() -> int:
    """Write a run. One line on stderr says why it could not be written."""
    told = json.loads(sys.stdin.readline())
    try:
        import trackio
    except ImportError:
        print("trackio is not installed: pip install 'dlmlab[trackio]'", file=sys.stderr)
        return 1
    try:
        with redirect_stdout(sys.stderr):
            trackio.init(
                told["project"],
                told["name"],
                config=told["config"],
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            tables = {each["title"]: trackio.Table(each["columns"], each["rows"]) for each in told["tables"]}
            trackio.log({key: value for key, value in told["summary"].items() if value is not None} | tables)
            trackio.finish()  # type: ignore[no-untyped-call]
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
