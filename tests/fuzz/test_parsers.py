"""What people and other systems write: policies, names, cursors, recurrences, signatures; and where such words go on
to: queries, addresses, pages of HTML. No text may become anything but a text there.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import islice, pairwise
from typing import Any, ClassVar
from urllib.parse import urlsplit

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import example, given

from local.azure_simulator.resource_graph import kql
from patchwave.api.problems import ApiProblem
from patchwave.cli.errors import RefusedError
from patchwave.cli.output import plain
from patchwave.cli.policy_files import merge_patch, parse_value, policy_text
from patchwave.domain.calendar.recurrence import parse_recurrence
from patchwave.domain.calendar.schedule import Schedule, upcoming
from patchwave.domain.core.documents import format_instant, parse_instant
from patchwave.domain.core.duration import parse_duration
from patchwave.domain.core.ids import MachineId, RunId
from patchwave.domain.core.principal import InvalidPrincipal, read_principal
from patchwave.domain.core.webhook_signature import Call
from patchwave.domain.fleet.discovery import build_queries, literal
from patchwave.domain.machine.http_probe import ProbeAnswer, evaluate_probe, fill_url
from patchwave.domain.notifications.messages import Message, Tone
from patchwave.domain.policy.http_probe import Probe, ProbeImpossible
from patchwave.domain.policy.policy import Policy, PolicyError, apply_overrides, parse_inline_policy, parse_policy
from patchwave.domain.policy.scope import Scope
from patchwave.domain.scheduling.freeze import FreezeError, parse_freeze
from patchwave.outbound.notifications.email import render_html, render_text
from patchwave.outbound.notifications.slack import escape
from patchwave.services.errors import InvalidRequest
from patchwave.settings import ChannelsError, parse_channels
from patchwave.storage import InvalidCursor
from patchwave.storage.engine.paging import read_cursor, write_cursor
from tests.fuzz.corpus import HOSTILE, anything, bodies, budget, changed, crosses, objects, spoiled, storable, texts
from tests.support.factories import machine
from triggers.webhook import _check_signature, _fields

NOW = datetime(2026, 11, 10, 19, 0, tzinfo=UTC)
SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
POLICY: dict[str, Any] = {
    "name": "monthly",
    "scope": {
        "subscriptions": [SUBSCRIPTION],
        "tags": {"values": {"env": ["test"]}},
        "exclude": {"locations": ["westeurope"]},
    },
    "install": {"maximumDuration": "PT2H", "linux": {"packageNameMasksToInclude": ["kernel*"]}},
    "maxConcurrent": "10%",
    "rings": [{"name": "canary", "percent": 10}, {"name": "rest"}],
    "schedule": {"timeZone": "Europe/Berlin", "recurrence": "second Tuesday", "time": "02:00", "window": "PT4H"},
    "health": {"probe": {"url": "https://{name}.example.org/{tag:path}"}},
}


def test_what_is_changed_is_right_to_begin_with() -> None:
    assert parse_policy(POLICY).name == "monthly"
    assert parse_freeze(FREEZE, name="year-end").name == "year-end"


# --- policies ------------------------------------------------------------------------------------------------


@budget(20)
@given(st.one_of(changed(POLICY), changed(POLICY), objects, anything))
def test_a_document_is_a_policy_or_every_error_is_listed(document: object) -> None:
    with suppress(PolicyError):
        policy = parse_policy(document)
        wire = policy.to_wire()
        crosses(wire)
        assert parse_policy(wire) == policy
        assert Policy.model_validate(json.loads(json.dumps(wire))) == policy
        for query in build_queries(policy.scope):
            kql.tokens(query.text)
        if policy.schedule:
            list(islice(upcoming(policy.schedule, NOW), 3))


@budget(20)
@given(st.one_of(changed(POLICY), objects, anything))
def test_errors_of_policies_can_be_sent(document: object) -> None:
    for read in (parse_policy, parse_inline_policy):
        try:
            read(document)
        except PolicyError as refused:
            problems = refused.errors
        else:
            continue
        assert problems
        for problem in problems:
            storable(json.dumps(problem.to_wire()))
            assert len(problem.message) < 2_000


@budget()
@given(st.one_of(objects, anything, st.just({"scope": {"tags": {"values": {"a": ["b"]}}}})))
def test_overrides(overrides: object) -> None:
    with suppress(PolicyError):
        changed_policy = apply_overrides(POLICY, overrides)
        assert changed_policy.name == "monthly"


FREEZE = {"from": "2026-12-20", "to": "2027-01-03", "timeZone": "Europe/Berlin", "reason": "Year-end"}


@budget(20)
@given(st.one_of(changed(FREEZE), objects, anything))
@example({**FREEZE, "to": "9999-12-31T23:59:59-12:00"})
def test_freezes(document: object) -> None:
    with suppress(FreezeError):
        freeze = parse_freeze(document, name="year-end")
        assert freeze.ends_at > freeze.starts_at
        assert parse_freeze(freeze.to_wire(), name="year-end") == freeze
        storable(freeze.sentence)


# --- YAML ----------------------------------------------------------------------------------------------------

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
YAMLS = [
    *("!!python/object/apply:os.system [id]", "!!int x", "!!float x", "!!timestamp x", "!!binary x", "? [a]\n: b"),
    *("&a [*a]", "<<: 1", "<<: [a]", "{<<: {a: 1}, a: 2}", "a: 1\na: 2", "[" * 20_000, "9" * 5_000, "- " * 5_000),
    *("!!set {a}", "!!omap [a: 1]", "%YAML 9.9\n---\na", "--- a\n--- b", "\t", "*a", "a: !!null x", "!!bool x", BOMB),
]


@budget(30)
@given(st.one_of(texts, st.sampled_from(YAMLS), spoiled(yaml.dump(POLICY)), anything.map(lambda each: yaml.dump(each))))
def test_yaml_is_read_or_refused(text: str) -> None:
    with suppress(yaml.YAMLError):
        json.dumps(parse_value(text))


@pytest.mark.parametrize("text", YAMLS, ids=range(len(YAMLS)))
def test_every_trap_of_yaml_is_read_or_refused(text: str) -> None:
    with suppress(yaml.YAMLError):
        json.dumps(parse_value(text))
    with suppress(RefusedError):
        merge_patch([f"a.b={text}"])


@budget(20)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=9), anything, max_size=4))
def test_what_is_written_as_yaml_is_read_back(policy: dict[str, Any]) -> None:
    try:
        crosses(policy)
    except ValueError:
        return  # no JSON, and so no policy that the API gave
    assert parse_value(policy_text(policy)) == policy


@budget(30)
@given(st.lists(st.one_of(texts, texts.map(lambda text: f"a.b={text}")), max_size=3))
def test_settings_on_the_command_line(given_settings: list[str]) -> None:
    with suppress(RefusedError):
        merge_patch(given_settings)


# --- names, cursors, moments ---------------------------------------------------------------------------------


@budget(40)
@given(st.one_of(texts, spoiled("20261110T190000Z-monthly-1a2b3c4d")))
@example("00010101T000000Z-a")
@example("99991231T235959Z-a")
@example("99999999T999999Z-a")
@example("20261110T190000Z-monthly\n")
def test_run_ids(text: str) -> None:
    with suppress(ValueError):
        run_id = RunId.parse(text)
        assert run_id.text == text
        assert run_id.row_key.endswith(f"~{text}")
        assert text.isascii()


@budget(40)
@given(st.one_of(texts, spoiled(machine(1).id)))
def test_machine_ids(text: str) -> None:
    with suppress(ValueError):
        found = MachineId.parse(text)
        assert MachineId.parse(found.folded) == found
        assert len(found.key) == 24


@budget(40)
@given(st.one_of(texts, st.binary(max_size=30).map(lambda data: data.hex()), spoiled(write_cursor("m~abc~1"))))
def test_cursors(text: str) -> None:
    with suppress(InvalidCursor):
        key = read_cursor(text, "m~")
        assert key.startswith("m~")
        assert read_cursor(write_cursor(key), "m~") == key


@budget(20)
@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)))  # noqa: DTZ001
def test_moments_round_trip(at: datetime) -> None:
    whole = at.replace(microsecond=at.microsecond // 1000 * 1000)
    assert parse_instant(format_instant(whole)) == whole


RULES = ["second Tuesday + 3 days", "RRULE:FREQ=MONTHLY;BYDAY=2TU;COUNT=3", "2026-12-10, 2027-01-14", "last Friday"]


@budget(40)
@given(st.one_of(texts, st.sampled_from(RULES).flatmap(spoiled)))
@example("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30")
@example("FREQ=YEARLY;BYWEEKNO=53;BYDAY=MO;INTERVAL=366")
@example("FREQ=DAILY;UNTIL=99991231T235959Z")
def test_recurrences(text: str) -> None:
    with suppress(ValueError):
        rule = parse_recurrence(text)
        dates = list(islice(rule.dates(NOW.date(), NOW.date()), 3))
        assert dates == sorted(dates)


@budget(20)
@given(changed({**POLICY["schedule"], "start": "2026-11-01"}))
def test_schedules_find_their_occurrences(document: object) -> None:
    with suppress(ValueError):
        schedule = Schedule.model_validate(document)
        assert all(each.window_end_utc > each.at_utc for each in islice(upcoming(schedule, NOW), 4))


@budget(20)
@given(st.one_of(texts, spoiled("PT1H30M")))
def test_durations(text: str) -> None:
    with suppress(ValueError):
        assert timedelta(0) <= parse_duration(text) < timedelta(days=400)


# --- calls ---------------------------------------------------------------------------------------------------


@budget(20)
@given(st.one_of(texts, spoiled("t=1760000000,v2=" + "a" * 64)), st.binary(max_size=50))
@example("t=999999999999,v2=" + "A" * 64, b"")
@example("t=٣,v2=" + "a" * 64, b"")
def test_signatures(header: str, body: bytes) -> None:
    settings: Any = _Secret
    with pytest.raises(ApiProblem, match="signature"):
        _check_signature(settings, header, Call("monthly", "", body), NOW)


class _Secret:
    listed_rotations: ClassVar[dict[str, tuple[int, ...]]] = {}

    class webhook_secret:  # noqa: N801 - as the setting is called
        @staticmethod
        def get_secret_value() -> str:
            return "a secret"


@budget(20)
@given(
    st.one_of(st.binary(), bodies({"mode": "assess", "deliveryId": "1"}).map(lambda t: t.encode("utf-8", "replace")))
)
def test_bodies_of_webhooks(body: bytes) -> None:
    with suppress(ApiProblem, InvalidRequest):
        assert isinstance(_fields(body), dict)


@budget(20)
@given(st.one_of(texts, st.binary().map(lambda data: data.hex()), bodies({"auth_typ": "aad", "claims": []})))
def test_principals(header: str) -> None:
    with pytest.raises(InvalidPrincipal):
        read_principal(header, SUBSCRIPTION)


@budget(20)
@given(
    bodies(
        [
            {
                "name": "hub",
                "kind": "webhook",
                "url": "https://hooks.example.org/1",
                "secret": "s" * 32,
            }
        ]
    )
)
def test_channels(text: str) -> None:
    with suppress(ChannelsError):
        parse_channels(text)


# --- where words go on to ------------------------------------------------------------------------------------


@budget(60)
@given(texts)
def test_a_text_stays_a_text_in_a_query(text: str) -> None:
    try:
        written = literal(text)
    except ValueError:
        return
    [token, end] = kql.tokens(written)
    assert (token.kind, end.kind) == ("text", "end")
    assert kql._text(token) == text


TAGS = st.dictionaries(st.text(min_size=1, max_size=20), st.lists(st.text(max_size=20), min_size=1, max_size=3))


@budget(20)
@given(tags=TAGS, groups=st.lists(texts, max_size=2), locations=st.lists(texts, max_size=2))
def test_queries_of_any_scope_have_the_same_stages(
    tags: dict[str, list[str]], groups: list[str], locations: list[str]
) -> None:
    document = {"tags": {"values": tags}, "resourceGroups": groups, "locations": locations}
    with suppress(ValueError):
        scope = Scope.model_validate(document)
        for query in build_queries(scope):
            stages = [after.text for mark, after in _pairs(kql.tokens(query.text)) if mark.text == "|"]
            assert set(stages) == {"where", "project", "order"}


def _pairs(tokens: list[kql.Token]) -> list[tuple[kql.Token, kql.Token]]:
    return list(pairwise(tokens))


@budget(40)
@given(
    template=st.sampled_from(["https://{name}.example.org/{tag:path}?q={tag:q}", "http://h/{location}"]), value=texts
)
def test_a_probe_goes_to_the_url_of_its_policy(template: str, value: str) -> None:
    one = machine(1, name=value, location=value, tags={"path": value, "q": value})
    with suppress(ProbeImpossible):
        url = fill_url(template, one)
        parts = urlsplit(storable(url))
        assert parts.scheme == urlsplit(template).scheme
        assert parts.username is None
        assert parts.hostname == "h" or str(parts.hostname).endswith(".example.org")
        assert parts.fragment == ""
        assert len(parts.path.split("/")) == 2


@budget(20)
@given(st.integers(), texts)
def test_answers_to_probes(status: int, body: str) -> None:
    probe = Probe(url="https://h/", contains="ok")
    assert (evaluate_probe(probe, ProbeAnswer(status, body)).state.value == "healthy") is (
        status == 200 and "ok" in body
    )


class _Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(f"{tag} {[name for name, _ in attrs]}")


@budget(20)
@given(texts)
def test_a_text_stays_a_text_in_a_page(text: str) -> None:
    def message(said: str) -> Message:
        return Message(title=said, tone=Tone.ATTENTION, facts=((said, said),), notes=(said,), command=said or "x")

    assert (
        _Tags(render_html("mail.html.j2", message(text))).tags == _Tags(render_html("mail.html.j2", message("x"))).tags
    )
    render_text("mail.txt.j2", message(text))
    assert not {"<", ">"} & set(escape(text))


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_commands_a_terminal(text: str) -> None:
    assert all(character.isprintable() or character in "\n\t" for character in plain(text + "\x1b[2J"))
