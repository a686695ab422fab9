"""Whose rules a run follows, as people read it before they approve."""

from __future__ import annotations

from patchwave.cli.runs.views import rules_of


def test_an_approver_reads_author_digest_scope_and_scripts():
    run = {
        "policyOrigin": {"author": "cleo", "version": 3, "digest": "0123456789abcdef", "changedDigest": ""},
        "policySnapshot": {
            "scope": {"subscriptions": ["s-1"], "osTypes": []},
            "hooks": {"before": {"linux": "exit 0", "windows": None}, "after": None},
        },
    }
    assert rules_of(run) == {
        "rules": "version 3 by cleo, digest 0123456789ab",
        "scope": "subscriptions s-1",
        "scripts": "before on linux (6 characters)",
    }


def test_an_inline_policy_and_a_changed_one_are_marked():
    inline = {"policyOrigin": {"author": "cleo", "version": 0, "digest": "0123456789abcdef"}, "policySnapshot": None}
    assert rules_of(inline) == {"rules": "from a request by cleo, digest 0123456789ab"}
    changed = {"policyOrigin": {"author": "", "version": 3, "digest": "0" * 64, "changedDigest": "f" * 64}}
    assert rules_of(changed) == {"rules": f"version 3 by an unknown author, changed by the start, digest {'f' * 12}"}
    assert rules_of({"policySnapshot": {"scope": {}}})["scripts"] == "none"
    assert rules_of({}) == {}
