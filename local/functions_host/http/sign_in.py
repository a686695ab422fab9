"""App Service authentication on this machine: every caller is the one developer who has every role.

In Azure the platform replaces the headers of a principal in each request. The host does the same, with one principal
for all callers of its loopback port. Deployed code never imports this.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

TENANT = "00000000-0000-4000-8000-000000000001"
DEVELOPER = "00000000-0000-4000-8000-000000000002"
NAME = "developer@localhost"
ROLES = ("reader", "operator", "author", "approver")
SETTINGS = {"WEBSITE_AUTH_ENABLED": "True", "PATCHWAVE_AUTHORIZATION": "roles", "PATCHWAVE_TENANT_ID": TENANT}
"""App settings that declare the headers as the platform's."""

_PREFIX = "x-ms-client-principal"
_CLAIMS: list[dict[str, str]] = [
    {"typ": "http://schemas.microsoft.com/identity/claims/tenantid", "val": TENANT},
    {"typ": "http://schemas.microsoft.com/identity/claims/objectidentifier", "val": DEVELOPER},
    {"typ": "name", "val": NAME},
    *({"typ": "roles", "val": role} for role in ROLES),
]
_DOCUMENT: dict[str, Any] = {"auth_typ": "aad", "claims": _CLAIMS, "name_typ": "name", "role_typ": "roles"}
_HEADERS = {
    _PREFIX: base64.b64encode(json.dumps(_DOCUMENT).encode()).decode(),
    f"{_PREFIX}-id": DEVELOPER,
    f"{_PREFIX}-name": NAME,
    f"{_PREFIX}-idp": "aad",
}


def as_developer(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request with the developer as its principal."""
    return {name: value for name, value in headers.items() if not name.lower().startswith(_PREFIX)} | _HEADERS
