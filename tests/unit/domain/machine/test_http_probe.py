"""The address of a probe: what a policy may name, what a machine may fill in, and what an answer means."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from patchwave.domain.machine.http_probe import ProbeAnswer, ProbeFailure, evaluate_probe, fill_url
from patchwave.domain.policy.http_probe import Probe, ProbeImpossible, host_of, is_listed, may_be_listed
from patchwave.domain.runs.machine_record import MachineRecord, SignalState
from tests.support.processor_time import least_seconds


def machine(**changes: Any) -> MachineRecord:
    fields: dict[str, Any] = {
        "id": "/subscriptions/x",
        "key": "0" * 24,
        "name": "Web-1",
        "subscription_id": "x",
        "resource_group": "rg (shop)",
        "location": "westeurope",
        "tags": {"Zone Name": "blue/green", "host": "web.example.org", "port": "99"},
    }
    return MachineRecord(**(fields | changes))


@pytest.mark.parametrize(
    "url",
    [
        "https://{name}.example.org/health",
        "http://10.0.0.4:8080/?group={resourceGroup}",
        "https://{tag:host}",
        "https://shop.example.org/{tag:Zone Name}/ready?x={location}",
    ],
)
def test_addresses_that_a_policy_may_name(url: str) -> None:
    assert Probe(url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org",
        "example.org/health",
        "https://",
        "https:///health",
        "https://user:secret@example.org/",
        "https://{tag:user}@example.org/",
        "https://example.org:0/",
        "https://example.org:70000/",
        "https://example.org:{tag:port}/",
        "https://[::1]/",
        "https://example.org/a b",
        "https://example.org/\r\nX: y",
        "https://example.org\\@other.org/",
        "https://example.org/#part",
        "https://example.org/a/../b",
        "https://{vmName}.example.org",
        "https://{tag:}.example.org",
        "https://{name.example.org",
        "{name}",
        "https://example.org/" + "x" * 2_000,
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        Probe(url=url)


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("https://{name}.example.org/health", "https://web-1.example.org/health"),
        ("https://{tag:HOST}:8443/x", "https://web.example.org:8443/x"),
        ("http://lb.example.org/{tag:zone name}", "http://lb.example.org/blue%2Fgreen"),
        (
            "https://lb.example.org/?g={resourceGroup}&l={location}",
            "https://lb.example.org/?g=rg%20%28shop%29&l=westeurope",
        ),
    ],
)
def test_placeholders_take_the_values_of_the_machine(template: str, filled: str) -> None:
    assert fill_url(Probe(url=template).url, machine()) == filled


@pytest.mark.parametrize(
    ("template", "tags"),
    [
        ("https://{tag:host}.example.org/", {}),
        ("https://{tag:host}.example.org/", {"host": "other.org/"}),
        ("https://{tag:host}.example.org/", {"host": "a@b"}),
        ("https://{tag:host}.example.org/", {"host": "other.org:80"}),
        ("https://{tag:host}.example.org/", {"host": "a..b"}),
        ("https://example.org/{tag:path}/x", {"path": ".."}),
        ("https://example.org/{tag:a}{tag:b}", {"a": ".", "b": "."}),
    ],
)
def test_values_that_would_lead_elsewhere(template: str, tags: dict[str, str]) -> None:
    with pytest.raises(ProbeImpossible):
        fill_url(template, machine(tags=tags))


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_tag_never_changes_scheme_port_or_path(host: str, path: str) -> None:
    try:
        url = fill_url("https://{tag:h}.example.org:8443/a/{tag:p}/b?q={tag:p}", machine(tags={"h": host, "p": path}))
    except ProbeImpossible:
        return
    assert url.startswith("https://")
    assert url.isascii()
    assert host_of(url).endswith(".example.org")
    rest = url.removeprefix(f"https://{host_of(url)}")
    assert rest.startswith(":8443/a/")
    assert rest.count("/") == 3
    assert rest.count("?") == 1


@pytest.mark.parametrize(
    ("host", "listed"),
    [
        ("web.example.org", True),
        ("WEB.Example.Org", True),
        ("a.b.inner.test", True),
        ("inner.test", False),
        (".inner.test", False),
        ("evil-inner.test", False),
        ("example.org", False),
        ("web.example.org.evil.test", False),
    ],
)
def test_the_list_of_hosts(host: str, listed: bool) -> None:
    assert is_listed(host, ["web.example.org", "*.inner.test"]) is listed


@pytest.mark.parametrize(
    ("template", "possible"),
    [
        ("https://web.example.org/x", True),
        ("https://db.example.org/x", False),
        ("https://{name}.inner.test/{tag:path}", True),
        ("https://{name}.eu.inner.test", True),
        ("https://a.{tag:Zone Name}.test:8443", True),
        ("https://{name}.example.org", True),
        ("https://{name}.example.com", False),
        ("https://{tag:host}/", True),
    ],
)
def test_an_address_that_no_machine_can_have_on_the_list_is_known_before(template: str, possible: bool) -> None:
    assert may_be_listed(template, ["web.example.org", "*.Inner.test"]) is possible
    assert not may_be_listed(template, [])


@pytest.mark.parametrize(
    ("template", "possible"),
    [
        ("https://a{name}b{location}c/", True),
        ("https://{name}abb{location}/", True),
        ("https://{name}aabb{location}/", False),
        ("https://ab{name}c/", False),
        ("https://a{name}bbbc/", True),
        ("https://a{name}abbbc/", False),
        ("https://{name}c{location}/", False),
        ("https://aabb{name}bbc/", False),
    ],
)
def test_a_placeholder_matches_at_least_one_character(template: str, possible: bool) -> None:
    assert may_be_listed(template, ["aabbbbc"]) is possible


def test_an_address_with_many_placeholders_is_refused_at_once() -> None:
    """157 bytes with 11 placeholders took four seconds."""
    template = "https://" + "{name}a" * 11 + "/"
    listed = ["a" * 250]
    with pytest.raises(ValidationError, match="11 placeholders; at most 3"):
        Probe(url=template)
    assert least_seconds(lambda: may_be_listed(template, listed)) < 0.05
    assert may_be_listed("https://{name}a{name}a{name}/", listed)


@given(st.lists(st.text("ab.", max_size=3), min_size=2, max_size=4), st.lists(st.text("ab.", max_size=3), max_size=3))
def test_placeholders_match_as_gaps_of_at_least_one_character(words: list[str], values: list[str]) -> None:
    template = f"https://{'{name}'.join(words)}/"
    filled = "".join(word + value for word, value in zip(words, [*values, *[""] * 4], strict=False))
    expected = re.fullmatch(".+".join(map(re.escape, words)), filled)
    assert may_be_listed(template, [filled]) is bool(expected)


def test_an_empty_list_lets_nothing_through() -> None:
    assert not is_listed("example.org", [])


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (ProbeAnswer(200, "all is well"), SignalState.HEALTHY),
        (ProbeAnswer(200, "starting"), SignalState.UNHEALTHY),
        (ProbeAnswer(204, "all is well"), SignalState.HEALTHY),
        (ProbeAnswer(503), SignalState.UNHEALTHY),
        (ProbeAnswer(301), SignalState.UNHEALTHY),
        (ProbeFailure("got no answer", was_tried=True), SignalState.UNHEALTHY),
        (ProbeFailure("was not sent: why", was_tried=False), SignalState.UNKNOWN),
    ],
)
def test_what_an_answer_means(answer: ProbeAnswer | ProbeFailure, state: SignalState) -> None:
    probe = Probe(url="https://example.org/", status=[200, 204], contains="well")
    signal = evaluate_probe(probe, answer)
    assert signal.state is state
    assert signal.detail.endswith(".") is (state is not SignalState.HEALTHY)
