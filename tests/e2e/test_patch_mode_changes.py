"""A change of patch modes over the API: planned, started, and carried out on machines that then show it."""

from __future__ import annotations

from tests.support.product import Json, Product, wait_until

WHY = {"reason": "tested", "actor": "ann"}


def ask(product: Product, method: str, path: str, status: int, body: Json | None = None) -> Json:
    reply = product.api.request(method, f"/api/fleet/{path}", json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


def test_a_change_is_planned_started_and_shown_by_the_machines(product: Product) -> None:
    ids = product.take(4)
    request = {
        "scope": {"machineIds": ids},
        "patchMode": "AutomaticByPlatform",
        "bypass": True,
        "assessmentMode": "AutomaticByPlatform",
        "maxConcurrent": 3,
    }
    planned = ask(product, "POST", "mode-changes", 201, request)
    assert (planned["state"], planned["machines"], planned["toChange"]) == ("planned", 4, 4)
    path = f"mode-changes/{planned['id']}"
    ask(product, "POST", f"{path}/start", 202, WHY)

    def ended() -> Json | None:
        change = ask(product, "GET", path, 200)
        return change if change["endedAt"] else None

    change = wait_until(ended, what=lambda: str(ask(product, "GET", f"{path}/machines", 200)))
    assert (change["state"], change["countsByEnd"]) == ("completed", {"changed": 4})
    lines = ask(product, "GET", f"{path}/audit", 200)["audit"]
    assert [line["action"] for line in lines] == ["mode_change_planned", "mode_change_started", "mode_change_ended"]
    # Resource Graph shows it as well, and a second change has nothing to do.
    shown = product.api.get("/api/fleet/modes", params={"machine": ",".join(ids)}).json()["machines"]
    assert {(machine["settings"]["patchMode"], machine["settings"]["bypass"]) for machine in shown} == {
        ("AutomaticByPlatform", True)
    }
    again = ask(product, "POST", "mode-changes", 201, request)
    assert (again["toChange"], again["countsByEnd"]) == (0, {"unchanged": 4})
