"""Small versions of the campaigns in tests/reliability; docs/reliability.md has the figures of the whole ones."""

from __future__ import annotations

import shutil
import signal

import pytest

from reliability import faults, flips, kills, mutants, power, signals, transfers


def test_killed_runs_end_as_if_nothing_had_been() -> None:
    found = kills.campaign(count=3)
    assert found["equal"] == found["killed"] == 3, found


def test_signals_stop_a_run_in_any_phase() -> None:
    found = signals.campaign(phases=["writing a checkpoint"], numbers=(signals.STOPPING[0],))
    assert found == {"tried": 3, "wrong": []}


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("fetching the weights", signal.SIGTERM),
        ("sending the weights", signal.SIGINT),
        ("committing", signal.SIGKILL),
    ],
)
def test_a_signal_in_a_transfer_ends_it_at_once_and_loses_nothing(moment: str, number: signal.Signals) -> None:
    assert transfers.campaign(moments=[moment], numbers=[number]) == {"tried": 1, "wrong": []}


def test_damage_never_loads() -> None:
    assert flips.campaign(count=200, with_graph=False)["wrong"] == []


def test_lost_power_leaves_what_was_announced() -> None:
    found = power.campaign()
    assert found["points"] >= 20 and found["wrong"] == []


def test_a_failing_save_leaves_the_last_checkpoint() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: no system call can be made to fail")
    found = faults.campaign(every=39)
    if found.get("skipped"):
        pytest.skip(str(found["skipped"]))
    assert found["points"] >= 30 and found["missed"] == found["wrong"] == [], found


def test_every_mutant_still_fits_the_source() -> None:
    sources = {one.file: (mutants.ROOT / "src/textclf" / one.file).read_text("utf-8") for one in mutants.MUTANTS}
    assert [one.name for one in mutants.MUTANTS if one.old not in sources[one.file] or one.old == one.new] == []
