"""Small versions of the campaigns in tests/reliability; docs/reliability.md has the figures of the whole ones."""

from __future__ import annotations

import shutil

import pytest

from reliability import faults, flips, kills, power, signals


def test_killed_runs_end_as_if_nothing_had_been() -> None:
    found = kills.campaign(3)
    assert found["equal"] == found["killed"] == 3, found


def test_signals_stop_a_run_in_any_phase() -> None:
    found = signals.campaign(phases=["writing a checkpoint"], numbers=(signals.STOPPING[0],))
    assert found == {"tried": 3, "wrong": []}


def test_damage_never_loads() -> None:
    assert flips.campaign(200, 40, with_graph=False)["loaded_all_the_same"] == []


def test_lost_power_leaves_what_was_announced() -> None:
    found = power.campaign()
    assert found["points"] >= 20 and found["lost"] == []


def test_a_failing_save_leaves_the_last_checkpoint() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: no system call can be made to fail")
    found = faults.campaign(every=80)
    if found.get("skipped"):
        pytest.skip(str(found["skipped"]))
    assert found["points"] >= 5 and found["corrupt"] == [], found
