"""A whole run with everything that handles secrets leaves none in logs, answers, rows or durable history."""

from __future__ import annotations

import re

from tests.resilience.faults.invariants import histories, hold_invariants
from tests.support.product import Product

SCRIPT = {"linux": "echo hello", "windows": "Write-Output hello"}
SIGNED = re.compile(r"[?&](sig|t|c|s|h)=[A-Za-z0-9%_-]{16,}")
"""Parts of the operation URLs of Azure, and of shared access signatures."""


def test_a_run_with_everything_leaves_no_secret_anywhere(product: Product) -> None:
    ids = product.take(3, rebootRequired=True)
    # Answers that repeat what they should not: one that passes is logged, one that is final is shown to people.
    leak = f"see {product.stack.arm}/x?sig=c2VjcmV0LXNpZ25hdHVyZS1vZi10aGU&s=c2VjcmV0LXNpZ25hdHVyZQ"
    product.fault(ids[1], "install", status=409, body={"error": {"code": "Conflict", "message": leak}})
    product.fault(ids[2], "install", status=400, body={"error": {"code": "BadRequest", "message": leak}})
    run_id = product.start(
        ids,
        rebootMode="separate",
        hooks={"snapshot": {}, "before": SCRIPT, "after": SCRIPT},
        health={"alerts": {"severities": ["Sev0"]}},
        notifications={"channels": ["hub"]},
    )
    hold_invariants(product, run_id, ids)
    texts = {f"history of {name}": text for name, text in histories(product, run_id).items()}
    texts |= {path.name: path.read_text(errors="replace") for path in product.stack.logs.iterdir() if path.is_file()}
    logged = "".join(texts.values())
    paths = [f"/api/runs/{run_id}{rest}" for rest in ("", "/machines", "/audit", "/plan")]
    paths += [f"/api/runs/{run_id}/machines/{row['key']}" for row in product.machines(run_id).values()]
    shown = {path: product.api.get(path).text for path in paths}
    texts |= shown
    assert {name: found[0] for name, text in texts.items() if (found := SIGNED.search(text))} == {}
    assert any("?***" in text for text in shown.values())
    assert re.search(r"did not accept it: install .*HTTP 409 .*\?\*\*\*", logged)
