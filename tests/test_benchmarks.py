"""The benchmarks' own logic: spreads, ratios, verdicts, reports, and lines that can be run."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from benchmarks import __main__ as command
from benchmarks import backbones, checking, report, running, training
from benchmarks.figures import Spread, agreement, ratio, spread
from benchmarks.lines import Comparison, Contender, Line, Setting
from textclf.training.events import Phase, StepDone

MACHINE = {
    "kind": "avx2, 2 threads",
    "processor": "P",
    "cores": 2,
    "threads": 2,
    "gpu": None,
    "versions": {"torch": "1"},
}
FASTER = Comparison("ours", "peer", "rate", goal=1.5)
LINE = Line(
    name="walking",
    title="Walking",
    contenders=(Contender("ours", "cold:run_command"), Contender("peer", "cold:run_command")),
    comparisons=(FASTER,),
)


def _rounds(ours: list[float], peer: list[float]) -> dict[str, list[dict[str, Any]]]:
    return {"ours": [{"rate": rate} for rate in ours], "peer": [{"rate": rate} for rate in peer]}


def _line(ours: list[float], peer: list[float]) -> dict[str, Any]:
    return report.line_report(LINE, _rounds(ours, peer), date="2026-01-01", command="run", machine=MACHINE)


def _report(ours: list[float], peer: list[float]) -> dict[str, Any]:
    return {"machine": MACHINE, "lines": {"walking": _line(ours, peer)}}


def test_a_spread_is_the_median_with_its_range() -> None:
    assert spread([3.0, 1.0, 10.0]) == Spread(median=3.0, low=1.0, high=10.0, rounds=3)
    assert spread([]) is None


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine was half as fast in the second round: that is no spread of the ratio.
    assert ratio(_rounds([20, 10], [10, 5]), FASTER) == Spread(2, 2, 2, rounds=2)


def test_less_is_better_turns_a_ratio_round() -> None:
    fewer = Comparison("ours", "peer", "rate", better="less")
    assert ratio(_rounds([5], [20]), fewer) == Spread(4, 4, 4, rounds=1)


def test_a_round_that_failed_on_either_side_has_no_ratio() -> None:
    rounds = _rounds([20, 30, 40], [10, 10, 10])
    rounds["peer"][0] = {"error": "out of memory"}
    rounds["ours"][2] = {"error": "out of memory"}
    assert ratio(rounds, FASTER) == Spread(3, 3, 3, rounds=1)
    assert ratio({"ours": [{"error": "no"}], "peer": [{"rate": 1}]}, FASTER) is None


def test_agreement_is_the_share_of_equal_answers() -> None:
    assert agreement(["a", "b", "c", "d"], ["a", "b", "c", "x"]) == 0.75
    with pytest.raises(ValueError, match="longer"):
        agreement(["a"], ["a", "b"])


@pytest.mark.parametrize(
    ("ours", "outcome"),
    [
        ([20, 20], "kept"),
        ([14, 14], "kept"),  # 30 % less, not more than that
        ([13, 13], "lost"),
        ([13, 15], "kept"),  # one round in which the machine was at peace shows that nothing was lost
    ],
)
def test_a_loss_of_more_than_30_percent_in_every_round_is_a_loss(
    ours: list[float], outcome: str, tmp_path: Path
) -> None:
    stored = tmp_path / "ratios.json"
    checking.store(_report([20, 20], [10, 10]), stored)
    (verdict,) = checking.check(_report(ours, [10, 10]), stored)
    assert verdict.outcome == outcome
    assert "walking: ours to peer, rate" in verdict.message


def test_a_ratio_that_is_not_stored_is_reported_and_no_loss(tmp_path: Path) -> None:
    (verdict,) = checking.check(_report([20], [10]), tmp_path / "ratios.json")
    assert verdict == checking.Verdict("unknown", "walking: ours to peer, rate: 2.00; none is stored")


@pytest.mark.parametrize(("ours", "outcome"), [(11, "kept"), (9, "lost")])
def test_another_kind_of_machine_is_judged_by_the_least_ratio_of_all(ours: float, outcome: str, tmp_path: Path) -> None:
    stored = tmp_path / "ratios.json"
    for kind, rate in (("avx2, 4 threads", 20), ("amx_bf16, 2 threads", 60)):
        checking.store(_report([rate], [10]) | {"machine": MACHINE | {"kind": kind}}, stored)
    (verdict,) = checking.check(_report([ours], [10]) | {"machine": MACHINE | {"kind": "neon, 8 threads"}}, stored)
    assert verdict.outcome == outcome
    assert "2.00 is stored as the least of other kinds of machine" in verdict.message


def test_a_stored_ratio_that_could_not_be_measured_is_lost(tmp_path: Path) -> None:
    stored = tmp_path / "ratios.json"
    checking.store(_report([20], [10]), stored)
    found = _report([20], [10])
    found["lines"]["walking"]["comparisons"][0]["ratio"] = None
    assert [verdict.outcome for verdict in checking.check(found, stored)] == ["lost"]


def test_storing_keeps_the_ratios_of_other_machines_and_lines(tmp_path: Path) -> None:
    stored = tmp_path / "ratios.json"
    stored.write_text(json.dumps({"other": {"x": 1.0}, MACHINE["kind"]: {"running": 3.0}}))
    checking.store(_report([20], [10]), stored)
    assert json.loads(stored.read_text()) == {
        "other": {"x": 1.0},
        MACHINE["kind"]: {"running": 3.0, "walking: ours to peer, rate": 2.0},
    }


def test_the_stored_ratios_are_ones_that_the_small_run_measures() -> None:
    lines = [line for make in command.FAMILIES.values() for line in make(_setting(small=True))]
    measured = {checking.identity(line.name, vars(one)) for line in lines for one in line.comparisons}
    for kind, ratios in json.loads(checking.STORED.read_text()).items():
        assert set(ratios) <= measured, kind


def test_a_table_has_medians_ranges_ratios_and_whether_the_goal_is_reached() -> None:
    text = report.markdown(_line([10, 20, 40], [10, 10, 10]))
    assert "| ours | 20 (10-40) |" in text
    assert "| peer | 10 |" in text
    assert "| ours | peer | rate | 2.00 (1.00-4.00) | 1.5: reached |" in text
    assert "1.5: not reached" in report.markdown(_line([10], [10]))


def test_a_table_says_what_failed() -> None:
    line = _line([10], [10])
    line["rounds"]["ours"] = [{"error": "a | b"}]
    assert "| ours (failed 1 of 1 times: a \\| b) |  |" in report.markdown(line)


def test_a_page_gets_new_tables_and_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# By hand\n\n<!-- benchmark: walking -->\nold\n<!-- /benchmark -->\n\nBy hand too.\n")
    report.put_into(page, {"walking": _line([20], [10]), "running": _line([30], [10])})
    once = page.read_text()
    assert once.startswith("# By hand\n\n<!-- benchmark: walking -->\n### Walking\n")
    assert "old" not in once
    assert "<!-- /benchmark -->\n\nBy hand too.\n\n<!-- benchmark: running -->\n" in once
    report.put_into(page, {"walking": _line([20], [10]), "running": _line([30], [10])})
    assert page.read_text() == once


def test_contenders_take_turns_and_a_failure_stops_nothing(tmp_path: Path) -> None:
    def run(program: str) -> dict[str, Any]:
        return {"command": [sys.executable, "-c", program], "repeats": 1, "says": "", "exits": 0}

    contenders = (
        Contender("good", "cold:run_command", run("pass")),
        Contender("bad", "cold:run_command", run("raise SystemExit('the reason')")),
    )
    said: list[str] = []
    line = Line(name="l", title="L", contenders=contenders)
    found = running.run_line(line, 2, scratch=tmp_path, kept=tmp_path / "kept", say=said.append)
    assert all(result["seconds"] > 0 and result["peak_mib"] > 1 for result in found["good"])
    assert all("the reason" in result["error"] for result in found["bad"])
    assert [message.split(", ")[2].split(":")[0] for message in said] == ["good", "bad", "good", "bad"]


def test_cells_that_are_finished_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, int]] = []

    def call(contender: Contender, scratch: Path) -> dict[str, Any]:
        called.append((contender.name, contender.arguments["seed"]))
        return {"error": "killed"} if called[-1] == ("two", 1) and len(called) == 4 else {"accuracy": 0.9}

    monkeypatch.setattr(running, "call", call)
    line = Line(name="l", title="L", contenders=(Contender("one", "m:f"), Contender("two", "m:f")), seeded=True)
    kept = tmp_path / "cells.jsonl"
    every = [("one", 0), ("two", 0), ("one", 1), ("two", 1)]

    def run() -> list[tuple[str, int]]:
        called.clear()
        running.run_line(line, 2, scratch=tmp_path, kept=kept, say=lambda _: None)
        return list(called)

    assert run() == every
    assert run() == [("two", 1)]  # what failed is tried again
    with kept.open("a") as file:
        file.write('{"key": "cut sho')
    assert run() == []


def test_answers_are_compared_with_the_references_of_the_same_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter([["a", "b"], ["a", "c"], ["c", "c"], ["c", "c"]])
    monkeypatch.setattr(running, "call", lambda contender, scratch: {"rate": 1.0, "answers": next(given)})
    line = Line(name="l", title="L", contenders=LINE.contenders, reference="peer")
    found = running.run_line(line, 2, scratch=tmp_path, kept=tmp_path / "kept", say=lambda _: None)
    assert [result["agreement"] for result in found["ours"]] == [0.5, 1.0]
    assert all("answers" not in result for results in found.values() for result in results)


def test_only_steps_after_the_warm_up_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count()
    monkeypatch.setattr(training, "_now", lambda device: float(next(now)))
    clock = training.StepClock("cpu", after=0.5, until=2.5)
    ended = []
    for step in range(1, 13):
        ended.append(clock(StepDone(step, 16, step / 4, 1.0, 1e-3, 1.0, 1.0)))
        if ended[-1]:
            break
        if step % 4 == 0:
            assert not clock(Phase("score validation", 1, 1))
    assert (len(ended), ended[:-1]) == (10, [False] * 9)
    # Steps 3, 4, 6, 7, 8 and 10: those after an evaluation began before it.
    assert (clock.seconds, clock.epochs) == (6.0, 1.5)


def test_flops_are_those_that_torch_counts(tiny_base: Path) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModel

    from benchmarks.flops import forward_flops

    model = AutoModel.from_pretrained(tiny_base, attn_implementation="eager", add_pooling_layer=False)
    with FlopCounterMode(display=False) as counter:
        model(torch.ones(1, 20, dtype=torch.int64))
        model(torch.ones(1, 50, dtype=torch.int64))
    assert forward_flops(tiny_base, np.array([20, 50])) == pytest.approx(counter.get_total_flops(), rel=0.03)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("small", [True, False])
def test_every_line_can_be_run(small: bool, device: str) -> None:
    lines = [line for make in command.FAMILIES.values() for line in make(_setting(small=small, device=device))]
    assert len({line.name for line in lines}) == len(lines) > 0
    for line in lines:
        names = [contender.name for contender in line.contenders]
        assert len(set(names)) == len(names)
        assert {one.ours for one in line.comparisons} | {one.peer for one in line.comparisons} <= set(names)
        for contender in [*line.setup, *line.contenders]:
            module, _, name = contender.function.partition(":")
            function = getattr(importlib.import_module(f"benchmarks.{module}"), name)
            seed = {"seed": 0} if line.seeded and contender in line.contenders else {}
            inspect.signature(function).bind(**json.loads(json.dumps(contender.arguments)), **seed)


def test_the_small_run_needs_no_data_of_ours() -> None:
    lines = [line for make in command.FAMILIES.values() for line in make(_setting(small=True))]
    assert not [line.name for line in lines if line.needs_data]


def test_missing_data_and_unknown_lines_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["accuracy", "--data", str(tmp_path / "none")]) == 2
    assert "give --data DIR, or --small" in capsys.readouterr().err
    assert command.main(["acuracy", "--small"]) == 2
    assert "no line begins with acuracy" in capsys.readouterr().err


def _setting(*, small: bool, device: Any = "cpu") -> Setting:
    return Setting(small=small, device=device, data=None, scratch=Path("scratch"))


@pytest.mark.parametrize("fresh", [0, 2, 6])
def test_only_the_last_layers_of_a_backbone_begin_anew(fresh: int, minilm: Path) -> None:
    trained = transformers.AutoModel.from_pretrained(minilm).state_dict()
    changed = set()
    for name, tensor in backbones.network_with(fresh, seed=0).state_dict().items():
        if not torch.equal(tensor, trained[name]):
            changed.add(int(name.split(".")[2]))
            assert name.startswith("encoder.layer.")
    assert changed == set(range(6 - fresh, 6))
