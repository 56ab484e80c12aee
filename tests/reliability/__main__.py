"""One command per campaign: python -m tests.reliability CAMPAIGN. Exits with 1 where something is not as promised."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign and print its figures as one JSON document: 0 when all is as promised, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    campaigns = parser.add_subparsers(dest="campaign", required=True, metavar="CAMPAIGN")
    kills = campaigns.add_parser("kills", help="runs killed at random moments end as an undisturbed one")
    trainer = campaigns.add_parser("trainer", help="the same with transformers' Trainer, for comparison")
    for killing in (kills, trainer):
        killing.add_argument("--count", type=int, default=200, help="runs (200)")
        killing.add_argument("--seed", type=int, default=0)
    campaigns.add_parser("signals", help="signals in every phase of a run")
    campaigns.add_parser("transfers", help="signals in a download and an upload")
    faults = campaigns.add_parser("faults", help="every system call of a save fails, or kills")
    faults.add_argument("--every", type=int, default=1, metavar="N", help="only each Nth point")
    campaigns.add_parser("power", help="power is cut after every fsync of a save")
    flips = campaigns.add_parser("flips", help="flipped bits and cut files are noticed")
    flips.add_argument("--count", type=int, default=1000, help="flipped bits, and a fifth as many cuts (1000)")
    flips.add_argument("--seed", type=int, default=0)
    mutants = campaigns.add_parser("mutants", help="mistakes made on purpose are noticed by the tests")
    mutants.add_argument("--only", default="", metavar="WORDS", help="those whose name or file holds these words")
    mutants.add_argument("--part", default="1/1", metavar="N/OF", help="one part of them, for several sittings")
    asked = vars(parser.parse_args(arguments))
    name = asked.pop("campaign")
    sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest has it, for what campaigns share with tests
    started = time.monotonic()
    # Only the room that is asked for is imported: faults and mutants need no torch in this process.
    found = import_module(f".{name}", __package__).campaign(**asked)
    minutes = round((time.monotonic() - started) / 60, 1)
    print(json.dumps({"campaign": name, **found, "minutes": minutes}, indent=2))
    return int(bool(found.get("wrong")))


if __name__ == "__main__":
    raise SystemExit(main())
