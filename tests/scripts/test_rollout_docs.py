"""``docs/explanation/rollout-planning.md``: its output is what the command prints, and its sentences are so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise

import pytest

from patchwave.domain.planning.plan import Plan, PlannedMachine
from scripts import rollout_docs

PAGE = rollout_docs.PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan.model_validate(json.loads(rollout_docs.run(f"{rollout_docs.EXAMPLE} -o json")))


@pytest.fixture(scope="module")
def machine(plan: Plan) -> Callable[[str], PlannedMachine]:
    by_name = {each.id.rpartition("/")[2]: each for each in plan.machines}
    return by_name.__getitem__


def test_page_and_drawing_are_what_the_command_prints():
    assert rollout_docs.main(["--check"]) == 0, "run `make docs`"


def test_the_output_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    assert rollout_docs.run(f"{rollout_docs.EXAMPLE} -o timeline") in PAGE


def test_every_block_of_output_is_found():
    blocks = rollout_docs._BLOCK.findall(PAGE)
    assert len(blocks) == PAGE.count("<!-- $ ") == 3


def test_a_stale_block_is_noticed_and_nothing_else_is_touched(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rollout_docs, "run", lambda _: '{"a": [1, 2]}')
    changed = rollout_docs.render(PAGE)
    assert changed != PAGE
    strip = re.compile(r"^```(?:text|json)\n.*?^```\n", re.DOTALL | re.MULTILINE)
    assert strip.sub("", changed) == strip.sub("", PAGE)


def test_the_fields_of_the_format_are_those_of_a_plan(plan: Plan):
    """Each field of the document is named in the table of the page."""
    named = set(re.findall(r"`[\w.\[\]]*?\.?(\w+)(?:\[\])?`", PAGE.partition("| field | meaning |")[2]))
    document = plan.to_wire()
    fields = {*document, *document["machines"][0], *document["excluded"][0], *document["rings"][0]}
    assert fields | {*document["makespan"], "diff"} <= named


def test_the_canaries_go_first_and_bake(plan: Plan):
    canaries = [each for each in plan.machines if each.ring == "canary"]
    assert sorted(each.id.rpartition("/")[2] for each in canaries) == ["canary-uks", "canary-weu"]
    rest = [each for each in plan.machines if each.ring == "broad"]
    assert min(each.predicted_start for each in rest) == max(each.predicted_end for each in canaries) + 3600


def test_the_pair_is_kept_apart_and_the_third_region_is_not(plan: Plan):
    assert plan.rings[1].phases == [["uksouth", "westeurope"], ["northeurope"]]


def test_zones_of_two_subscriptions_are_one_building(machine: Callable[[str], PlannedMachine]):
    assert machine("web-weu-2").wave == machine("web-weu-4").wave
    assert len({machine(f"web-weu-{number}").wave for number in (1, 2, 3)}) == 3


def test_the_set_is_patched_one_at_a_time_and_by_update_domain(machine: Callable[[str], PlannedMachine]):
    members = sorted((machine(f"sql-neu-{number}") for number in (1, 2, 3, 4)), key=lambda each: each.predicted_start)
    for earlier, later in pairwise(members):
        assert earlier.predicted_end <= later.predicted_start
    assert {each.id[-1] for each in members[:2]} in ({"1", "2"}, {"3", "4"})


def test_the_next_node_of_the_cluster_starts_when_the_one_before_has_ended(machine: Callable[[str], PlannedMachine]):
    first, second = sorted((machine("search-uks-1"), machine("search-uks-2")), key=lambda each: each.predicted_start)
    assert second.predicted_start >= first.predicted_end


def test_what_is_left_out(plan: Plan):
    assert sorted(each.reason for each in plan.excluded) == ["hold_tag", "no_pending_patches", "not_running"]
    assert len(plan.machines) + len(plan.excluded) == 17
