"""Run in a process whose Hub is a stand-in: asks for every repository that is named, and tells how each command ended.

python hub_answers.py < LIST OF ARGUMENTS AS JSON > LIST OF [CODE, STDERR, SECONDS] AS JSON
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def main() -> None:
    """Give each command, one after the other."""
    from in_process import run

    commands, told = json.load(sys.stdin), []
    for arguments in commands:
        start = time.perf_counter()
        done = run(arguments, stdin=b"some words\n")
        told.append([done.code, done.err, time.perf_counter() - start])
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
