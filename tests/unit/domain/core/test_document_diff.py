"""What is different between two versions of a document."""

from __future__ import annotations

import json

from patchwave.domain.core.document_diff import changes_in_words


def test_keys_that_were_added_removed_and_changed() -> None:
    before = {"maxConcurrent": 20, "install": {"rebootSetting": "Always", "maximumDuration": "PT2H"}, "ramp": True}
    after = {
        "maxConcurrent": 5,
        "install": {"rebootSetting": "Never", "maximumDuration": "PT2H"},
        "mutuallyExclusiveTag": "sql",
    }
    assert changes_in_words(before, after) == {
        "changed": [
            {"path": "install.rebootSetting", "before": "Always", "after": "Never"},
            {"path": "maxConcurrent", "before": 20, "after": 5},
            {"path": "mutuallyExclusiveTag", "before": None, "after": "sql"},
            {"path": "ramp", "before": True, "after": None},
        ]
    }
    assert changes_in_words(after, after) == {}


def test_a_list_is_one_value_and_an_added_object_is_one_too() -> None:
    changed = changes_in_words({"rings": [{"name": "a"}], "bake": None}, {"rings": [{"name": "b"}], "bake": {"a": 1}})
    assert changed["changed"] == [
        {"path": "bake", "before": None, "after": '{"a": 1}'},
        {"path": "rings", "before": '[{"name": "a"}]', "after": '[{"name": "b"}]'},
    ]


def test_many_changes_are_counted_and_long_values_are_cut() -> None:
    changed = changes_in_words({}, {f"key{number:03}": "x" * 300 for number in range(60)})
    assert (len(changed["changed"]), changed["moreChanged"]) == (50, 10)
    assert changed["changed"][0]["after"] == "x" * 199 + "…"
    assert len(json.dumps(changed)) < 30_000
