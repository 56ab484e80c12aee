"""One save as a run makes it, in a small process without torch: `python -m reliability.saver FOLDER STEP`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from textclf import atomic
from textclf.errors import ResourceError

BEGIN, END = "/textclf-save-begins", "/textclf-save-ends"
"""Paths that are asked after, so that a trace of system calls shows where the save is."""


def save(folder: Path, step: int) -> None:
    """What training/checkpoint.py writes, by the same functions, of three small tensors."""
    with atomic.new_folder(folder / f"step-{step}", manifest=True) as draft:
        for name in ("weights", "optimizer"):
            save_file({"values": np.full(3000, step, np.float32)}, draft / f"{name}.safetensors")
        atomic.write_json(draft / "state.json", {"step": step})


def main() -> None:
    """Save, and say so once it is durable. Exit code 6 where it cannot be."""
    folder, step = Path(sys.argv[1]), int(sys.argv[2])
    os.path.exists(BEGIN)  # noqa: PTH110  # one system call, no more
    try:
        save(folder, step)
    except ResourceError as err:
        print(err.message)
        os._exit(6)
    os.path.exists(END)  # noqa: PTH110
    os.write(1, b"announced\n")
    os._exit(0)


if __name__ == "__main__":
    main()
