"""Calls of the webhook with a signature."""

from __future__ import annotations

import time

from patchwave.domain.core.webhook_signature import Call, policy_secret, signature_of

SECRET = "a-secret-for-tests-only-and-no-other"


def sign(body: bytes, *, at: float | None = None, secret: str = "", delivery: str = "", policy: str = "monthly") -> str:
    made_with = secret or policy_secret(SECRET, policy)
    return signature_of(Call(policy, delivery, body), made_with, time.time() if at is None else at)
