"""Identifies the caller, and checks the route's role if ``PATCHWAVE_AUTHORIZATION`` is ``roles``.

The platform verifies the token, and names the principal in headers, which it removes from external requests. Without
the platform, callers could set these headers themselves, so they only count where the platform is present. See
``docs/reference/security.md`` and docs/adr/0022-roles-from-app-service-authentication.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from patchwave.domain.core.principal import CLAIMED, ENTRA, InvalidPrincipal, Principal, Role, Signed, read_principal
from patchwave.settings import Authorization, load_settings, platform_signs_in

PRINCIPAL_HEADER = "x-ms-client-principal"
PROVIDER_HEADER = "x-ms-client-principal-idp"
NAME_HEADER = "x-ms-client-principal-name"
ID_HEADER = "x-ms-client-principal-id"
_MAX_NAME = 200


class Unauthenticated(Exception):
    """The request has no trusted principal. The text is only for the log."""


class Forbidden(Exception):
    """The principal lacks a required role. The text is only for the log."""


def check_role(function: str, role: Role | None, headers: Mapping[str, str]) -> None:
    """Check the caller's role; ``None``: the function has its own authentication.

    Raises:
        Unauthenticated: roles are enabled, and there is no principal.
        Forbidden: the principal lacks the role.
    """
    if role is None:
        return
    principal = principal_of(headers)
    if principal is not None and not principal.may(role):
        raise Forbidden(f"{function} needs {role}, the caller has {principal.has}")


def may_author(headers: Mapping[str, str]) -> bool:
    """Whether the caller may write policies, also inline; a function key alone has every role.

    Raises:
        Unauthenticated: roles are enabled, and there is no principal.
    """
    principal = principal_of(headers)
    return principal is None or principal.may(Role.AUTHOR)


def principal_of(headers: Mapping[str, str]) -> Principal | None:
    """The signed-in principal; ``None`` where only function keys count.

    Raises:
        Unauthenticated: roles are enabled, and there is no trusted principal.
    """
    settings = load_settings()
    if settings.authorization is not Authorization.ROLES:
        return None
    if not platform_signs_in():
        raise Unauthenticated("App Service authentication is off, so that no principal can be believed")
    encoded = headers.get(PRINCIPAL_HEADER)
    if not encoded:
        raise Unauthenticated("the request has no principal")
    try:
        principal = read_principal(encoded, settings.tenant_id)
    except InvalidPrincipal as error:
        raise Unauthenticated(f"the principal cannot be believed: {error}") from error
    if headers.get(PROVIDER_HEADER) != ENTRA:
        raise Unauthenticated("the principal cannot be believed: it is not of Entra")
    return principal


def signed_in(headers: Mapping[str, str]) -> Signed | None:
    """The signed-in caller as named by the platform: by name, else by object id; ``None`` without sign-in.

    With roles enabled, it is the principal whose roles count.
    """
    if not platform_signs_in():
        return None
    object_id = headers.get(ID_HEADER, "").casefold() if headers.get(PROVIDER_HEADER) == ENTRA else ""
    try:
        principal = principal_of(headers)
    except Unauthenticated:
        return None
    if principal is not None:
        object_id = principal.id
    name = headers.get(NAME_HEADER) or object_id
    return Signed(actor=_shown(name), actor_id=_shown(object_id), proven=True) if name else None


def caller_named(headers: Mapping[str, str], claimed: str = "") -> Signed:
    """The signed-in principal, else the ``claimed`` name, marked as such, else the API."""
    found = signed_in(headers)
    if found is not None:
        return found
    name = _shown(claimed)
    return Signed(actor=f"{name}{CLAIMED}" if name else "api")


def _shown(name: str) -> str:
    return "".join(character for character in name if character.isprintable())[:_MAX_NAME]
