"""The hooks of a policy: what may be written, what a script's end means, and what a machine's row says of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.machine.hooks import (
    HookResult,
    HookState,
    ScriptRequest,
    When,
    script_failure,
    script_overdue,
    script_unknown,
    scripts_are_off,
)
from patchwave.domain.machine.script import TIMED_OUT_CODE, ScriptEnd
from patchwave.domain.policy.policy import Policy, PolicyError, parse_policy
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs.error_budget import counts_as_failure

TEN_MINUTES = timedelta(minutes=10)


def policy(**hooks: Any) -> Policy:
    document: dict[str, Any] = {"name": "monthly", "scope": {"locations": ["westeurope"]}}
    return parse_policy(document | ({"hooks": hooks} if hooks else {}))


def test_a_policy_without_hooks_has_none() -> None:
    assert not policy().hooks.is_wanted
    assert policy(snapshot={}).hooks.is_wanted
    assert policy(after={"windows": "exit 0"}).hooks.is_wanted


def test_the_defaults_of_a_snapshot() -> None:
    snapshot = policy(snapshot={}).hooks.snapshot
    assert snapshot is not None
    assert (snapshot.keep, snapshot.resource_group, snapshot.incremental) == (timedelta(days=7), None, True)


def test_a_script_is_a_text_or_a_list_of_lines() -> None:
    before = policy(before={"linux": ["one", "two"], "windows": "three"}).hooks.before
    assert before is not None
    assert before.text_for(OsType.LINUX) == "one\ntwo"
    assert before.text_for(OsType.WINDOWS) == "three"
    assert before.text_for(None) is None
    assert before.on_failure == "skip"
    assert before.timeout == TEN_MINUTES


@pytest.mark.parametrize(
    ("hooks", "path"),
    [
        ({"snapshot": {"keep": "PT30M"}}, "hooks.snapshot.keep"),
        ({"snapshot": {"keep": "PT2161H"}}, "hooks.snapshot.keep"),
        ({"snapshot": {"incremental": "yes"}}, "hooks.snapshot.incremental"),
        ({"snapshot": {"resourceGroup": "a/b"}}, "hooks.snapshot.resourceGroup"),
        ({"before": {}}, "hooks.before"),
        ({"before": {"linux": ""}}, "hooks.before.linux"),
        ({"before": {"linux": ["echo", 7]}}, "hooks.before.linux"),
        ({"before": {"linux": "x", "timeout": "PT2H"}}, "hooks.before.timeout"),
        ({"before": {"linux": "x", "onFailure": "retry"}}, "hooks.before.onFailure"),
        ({"after": {"linux": "x", "onFailure": "skip"}}, "hooks.after.onFailure"),
        ({"during": {}}, "hooks.during"),
    ],
)
def test_mistakes_are_listed_with_their_path(hooks: dict[str, Any], path: str) -> None:
    with pytest.raises(PolicyError) as refused:
        policy(**hooks)
    assert path in [problem.path for problem in refused.value.errors]


def test_a_policy_survives_the_wire() -> None:
    one = policy(snapshot={"keep": "PT48H"}, before={"linux": ["a", "b"]}, after={"windows": "c"})
    assert Policy.model_validate(one.to_wire()) == one


def test_a_failed_hook_skips_the_machine_and_uses_the_budgets() -> None:
    result = HookResult.failed("No snapshot could be taken.")
    assert result.state is HookState.FAILED
    assert result.outcome is not None
    assert (result.outcome.outcome, result.outcome.reason) == (OutcomeKind.SKIPPED, Reason.HOOK_FAILED)
    assert counts_as_failure(result.outcome.outcome, result.outcome.reason)


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, ""), (3, "exit code 3"), (None, "no exit code"), (TIMED_OUT_CODE, "longer than PT10M")],
)
def test_how_a_script_ended(code: int | None, words: str) -> None:
    said = script_failure(When.BEFORE, ScriptEnd(code, ""), TEN_MINUTES)
    assert bool(said) == bool(words)
    assert words in said
    assert not said or "before the installation" in said


def test_sentences_say_which_script_and_what_to_do() -> None:
    assert "after the installation" in script_unknown(When.AFTER, "HTTP 503")
    assert "look at the machine" in script_unknown(When.AFTER)
    assert "may still run" in script_overdue(When.BEFORE, TEN_MINUTES)
    assert "PATCHWAVE_SCRIPTS" in scripts_are_off()
    assert "PATCHWAVE_AUTHORIZATION" in scripts_are_off(only_roles_miss=True)


def test_what_a_script_finds_in_its_environment() -> None:
    before = ScriptRequest(run_id="r", machine_key="k", when=When.BEFORE)
    assert before.variables("monthly", "web-01") == {
        "PATCHWAVE_RUN": "r",
        "PATCHWAVE_POLICY": "monthly",
        "PATCHWAVE_MACHINE": "web-01",
    }
    after = ScriptRequest(run_id="r", machine_key="k", when=When.AFTER, outcome=OutcomeKind.PATCHED)
    assert after.variables("monthly", "web-01")["PATCHWAVE_OUTCOME"] == "patched"
