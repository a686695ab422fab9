"""Who wrote the rules of a run, and what of them an approver sees."""

from __future__ import annotations

from patchwave.domain.policy.policy import apply_overrides, parse_policy
from patchwave.domain.runs.provenance import (
    MAX_SHOWN_SCRIPT,
    policy_digest,
    rules_in_short,
    spoken_scripts,
    written,
)
from patchwave.domain.runs.run import PolicyOrigin

SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"
SMALLEST = {"name": "monthly", "scope": {"subscriptions": [SUBSCRIPTION]}}
ANA = "aaaaaaaa-2222-4333-8444-555555555555"


def test_the_digest_is_of_the_policy_however_it_was_written() -> None:
    plain = parse_policy(SMALLEST)
    assert policy_digest(plain) == policy_digest(parse_policy(SMALLEST | {"maxConcurrent": 20}))
    assert policy_digest(plain) != policy_digest(parse_policy(SMALLEST | {"maxConcurrent": 21}))


def test_overrides_change_the_digest_that_a_run_follows_and_not_the_author() -> None:
    chosen = written(parse_policy(SMALLEST), author="ana", author_id=ANA, version=3)
    assert chosen.origin == PolicyOrigin(author="ana", author_id=ANA, version=3, digest=policy_digest(chosen.policy))
    assert chosen.origin.followed_digest == chosen.origin.digest
    assert chosen.changed(chosen.policy).origin == chosen.origin
    changed = chosen.changed(apply_overrides(SMALLEST, {"maxConcurrent": 1}))
    assert changed.origin.followed_digest == policy_digest(changed.policy) != changed.origin.digest
    assert (changed.origin.author_id, changed.origin.version) == (ANA, 3)


def test_a_retry_that_changes_nothing_more_keeps_the_digest_of_the_overrides() -> None:
    """Of a run for one machine alone: its retry has the same rules, which are still not those that were stored."""
    chosen = written(parse_policy(SMALLEST), author="ana", author_id=ANA, version=3)
    changed = chosen.changed(apply_overrides(SMALLEST, {"maxConcurrent": 1}))
    again = changed.changed(changed.policy)
    assert again.origin == changed.origin
    assert again.origin.followed_digest == policy_digest(changed.policy)


def test_provenance_has_digest_scope_author_and_the_scripts() -> None:
    long = "echo " + "x" * MAX_SHOWN_SCRIPT
    hooks = {"before": {"linux": long, "windows": "exit 0"}, "after": {"linux": "true"}}
    chosen = written(parse_policy(SMALLEST | {"hooks": hooks}), author="ana", author_id=ANA)
    told = rules_in_short(*chosen)
    assert (told["digest"], told["author"], told["authorId"]) == (chosen.origin.digest, "ana", ANA)
    assert (told["source"], told["scope"]) == ("a request", f"subscriptions {SUBSCRIPTION}")
    assert told["scripts"].keys() == {"before.linux", "before.windows", "after.linux"}
    assert (told["scripts"]["after.linux"], told["scripts"]["before.windows"]) == ("true", "exit 0")
    assert told["scripts"]["before.linux"].startswith(long[:MAX_SHOWN_SCRIPT])
    assert "sha256" in told["scripts"]["before.linux"]


def test_scripts_in_a_few_words() -> None:
    assert spoken_scripts(parse_policy(SMALLEST)) == "none"
    one = parse_policy(SMALLEST | {"hooks": {"after": {"linux": "true"}}})
    other = parse_policy(SMALLEST | {"hooks": {"after": {"linux": "false"}}})
    assert spoken_scripts(one).startswith("after.linux ")
    assert spoken_scripts(one) != spoken_scripts(other)
