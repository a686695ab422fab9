"""The host in the place of App Service authentication: what a request says of a principal never counts."""

from __future__ import annotations

from local.functions_host.http.sign_in import DEVELOPER, NAME, TENANT, as_developer
from patchwave.domain.core.principal import Role, read_principal


def test_every_caller_is_the_developer_with_every_role() -> None:
    headers = as_developer({"content-type": "application/json"})
    principal = read_principal(headers["x-ms-client-principal"], TENANT)
    assert (principal.id, principal.roles) == (DEVELOPER, frozenset(Role))
    assert headers["x-ms-client-principal-name"] == NAME
    assert headers["content-type"] == "application/json"


def test_headers_of_a_principal_from_outside_are_taken_out() -> None:
    forged = {
        "X-MS-CLIENT-PRINCIPAL": "forged",
        "x-ms-client-principal-name": "the-boss",
        "X-Ms-Client-Principal-X": "1",
    }
    assert as_developer(forged) == as_developer({})
