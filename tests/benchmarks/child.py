"""One contender in a process of its own: reads its arguments as JSON from stdin, writes its figures to a file.

Standard library only, so that what a contender's process takes is the contender's.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
from pathlib import Path
from typing import Any


def peak_mib() -> float:
    """The most memory that this process has held so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss starts at what the parent held before exec; VmHWM starts at nothing.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024)  # macOS counts bytes


def main() -> None:
    reference, result_file = sys.argv[1:]
    arguments = json.load(sys.stdin)
    module, _, name = reference.partition(":")
    result: dict[str, Any] = getattr(importlib.import_module(f".{module}", __package__), name)(**arguments) or {}
    result.setdefault("peak_mib", peak_mib())
    Path(result_file).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
