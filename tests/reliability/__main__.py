"""One command per campaign: python -m tests.reliability kills|faults|power|flips|signals [--count N] [--seed N]."""

from __future__ import annotations

import argparse
import json
import time


def main() -> None:
    """Run a campaign and print its figures as one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("campaign", choices=("kills", "faults", "power", "flips", "signals"))
    parser.add_argument(
        "--count", type=int, help="kills: runs, 200. flips: flipped bits, 1000 (and a fifth as many cuts)"
    )
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    started = time.monotonic()
    if asked.campaign == "kills":
        from . import kills

        found = kills.campaign(asked.count or 200, seed=asked.seed, say=True)
    elif asked.campaign == "flips":
        from . import flips

        count = asked.count or 1000
        found = flips.campaign(count, count // 5, seed=asked.seed)
    elif asked.campaign == "signals":
        from . import signals

        found = signals.campaign()
    elif asked.campaign == "faults":
        from . import faults

        found = faults.campaign()
    else:
        from . import power

        found = power.campaign()
    print(
        json.dumps(
            {"campaign": asked.campaign, **found, "minutes": round((time.monotonic() - started) / 60, 1)}, indent=2
        )
    )


if __name__ == "__main__":
    main()
