"""The managed-identity endpoint of App Service, and the check of its tokens.

``GET /msi/token?resource=…&api-version=2019-08-01`` with the secret in ``X-IDENTITY-HEADER`` (401 without). Tokens are
real JWTs with signature, audience and expiry; lifetimes are in real seconds, as for clients.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import Any

from local.azure_simulator.server.errors import not_authenticated, wrong_audience
from local.azure_simulator.state import AzureState

_PUBLIC_AUDIENCES = ("https://management.azure.com", "https://management.core.windows.net")


class Identity:
    """One managed identity with access to everything in the fleet."""

    def __init__(self, azure: AzureState, *, lifetime: int = 86_400) -> None:
        self.azure = azure
        self.lifetime = lifetime
        self.header = secrets.token_urlsafe(24)
        self._key = secrets.token_bytes(32)

    def issue(self, resource: str) -> dict[str, Any]:
        """The endpoint's response: a token for an audience."""
        now = int(time.time())
        azure = self.azure
        claims = {
            "aud": resource,
            "iss": f"https://sts.windows.net/{azure.tenant_id}/",
            "iat": now,
            "nbf": now,
            "exp": now + self.lifetime,
            "appid": azure.client_id,
            "idtyp": "app",
            "oid": azure.client_id,
            "sub": azure.client_id,
            "tid": azure.tenant_id,
            "ver": "1.0",
            "xms_mirid": f"/subscriptions/{next(iter(azure.by_subscription), '')}/resourcegroups/patchwave"
            "/providers/Microsoft.Web/sites/patchwave",
        }
        head = _encode(json.dumps({"typ": "JWT", "alg": "HS256"}).encode())
        body = _encode(json.dumps(claims).encode())
        token = f"{head}.{body}.{self._signature(f'{head}.{body}')}"
        return {
            "access_token": token,
            "client_id": azure.client_id,
            "expires_on": str(now + self.lifetime),
            "resource": resource,
            "token_type": "Bearer",
        }

    def check(self, authorization: str | None) -> None:
        """Check a bearer header.

        Raises:
            ArmError: 401, without a token, or for a foreign, expired or misdirected one.
        """
        if not authorization or not authorization.startswith("Bearer "):
            raise not_authenticated("The 'Authorization' header is missing.")
        head, _, rest = authorization.removeprefix("Bearer ").partition(".")
        body, _, signature = rest.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(f"{head}.{body}").encode()):
            raise not_authenticated("The access token is invalid.")
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        if claims["exp"] <= time.time():
            raise not_authenticated("The access token has expired.")
        accepted = [self.azure.base_url, *_PUBLIC_AUDIENCES]
        if str(claims["aud"]).rstrip("/") not in accepted:
            raise wrong_audience(str(claims["aud"]), ",".join(accepted))

    def _signature(self, signed: str) -> str:
        return _encode(hmac.new(self._key, signed.encode(), hashlib.sha256).digest())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
