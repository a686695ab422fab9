"""Who calls, as App Service's own authentication says it, and which roles they have.

The platform puts the signed-in principal into a header, base64 of JSON: the provider, and the claims of its token.
Source: learn.microsoft.com, "Work with user identities in Azure App Service authentication".
"""

import base64
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NotRequired, TypedDict

from patchwave.domain.core.documents import Document, Json, list_or_empty, object_or_none, parse_object

ENTRA = "aad"
"""How the platform calls its identity provider."""
MAX_HEADER = 32 * 1024
"""Bytes of the encoded principal. A token with 200 groups, the most that Entra writes into one, makes about 25 KB."""

# The platform hands on some claims under the names of SAML, and others as the token has them.
_ROLE = ("roles", "http://schemas.microsoft.com/ws/2008/06/identity/claims/role")
_OBJECT_ID = ("oid", "http://schemas.microsoft.com/identity/claims/objectidentifier")
_DIRECTORY = ("tid", "http://schemas.microsoft.com/identity/claims/tenantid")
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Role(StrEnum):
    """What a principal may do. App roles of the Entra application have these values."""

    READER = "reader"
    """Look at everything."""
    OPERATOR = "operator"
    """Start stored policies, as they are or narrowed; control runs; change the calendar and freezes."""
    AUTHOR = "author"
    """Write policies and the schedules of Update Manager, and start what no stored policy allows."""
    APPROVER = "approver"
    """Approve and reject rings."""


_ALSO = {Role.AUTHOR: (Role.OPERATOR,)}
"""Roles that a role includes. Who writes a policy with a schedule starts its runs with it."""


CLAIMED = " (claimed)"
"""Stands behind a name that the caller typed, wherever it is shown."""


class Signature(TypedDict):
    """The fields of `Signed`, as arguments."""

    actor: str
    actor_id: NotRequired[str]
    proven: NotRequired[bool]


class Signed(Document):
    """Who did something. ``actor_id`` is the object id of the principal, empty where none was signed in.

    ``proven``: the platform names them. Not proven are a name that the caller typed, which ends with `CLAIMED`, and the
    names of the app's own parts, such as ``timer``, which no caller can take since theirs end otherwise.
    """

    actor: str
    actor_id: str = ""
    proven: bool = False

    @property
    def who(self) -> Signature:
        """The same, as arguments."""
        return Signature(actor=self.actor, actor_id=self.actor_id, proven=self.proven)


class InvalidPrincipal(ValueError):
    """The header is not one that the platform writes. The text says why, and repeats nothing of it."""


class Principal(Document):
    """A signed-in person or application. ``id`` is its object id, which never changes and is never given twice."""

    id: str
    roles: frozenset[Role]

    @property
    def has(self) -> str:
        """The names of its roles, for the log."""
        return ", ".join(sorted(self.roles)) or "none"

    def may(self, role: Role) -> bool:
        """Whether the principal has the role, itself or through another one. Every role implies ``reader``."""
        if role is Role.READER:
            return bool(self.roles)
        return any(role is each or role in _ALSO.get(each, ()) for each in self.roles)


def read_principal(encoded: str, directory: str) -> Principal:
    """Read the header ``X-MS-CLIENT-PRINCIPAL``.

    Args:
        encoded: the value of the header.
        directory: the tenant whose principals count. The administrator of another tenant can assign roles of a
            multi-tenant application there.

    Raises:
        InvalidPrincipal: it is too long, garbled, not of Entra or not of the tenant, or names no principal.
    """
    if len(encoded) > MAX_HEADER:
        raise InvalidPrincipal(f"it is longer than {MAX_HEADER} characters")
    try:
        document = parse_object(base64.b64decode(encoded, validate=True).decode())
    except ValueError:
        document = None
    if document is None:
        raise InvalidPrincipal("it cannot be read")
    if document.get("auth_typ") != ENTRA:
        raise InvalidPrincipal("it is not of Entra")
    claims = list(_claims(document))
    if _only_guid(claims, _DIRECTORY) != directory.casefold():
        raise InvalidPrincipal("it is of another tenant")
    given = {value for kind, value in claims if kind in _ROLE}
    return Principal(id=_only_guid(claims, _OBJECT_ID), roles=frozenset(role for role in Role if role.value in given))


def _claims(document: Json) -> Iterator[tuple[str, str]]:
    """Kind and value of each claim.

    Raises:
        InvalidPrincipal: one is of another form; what is left might lack the claim that matters.
    """
    for claim in list_or_empty(document.get("claims")):
        fields = object_or_none(claim) or {}
        kind, value = fields.get("typ"), fields.get("val")
        if not isinstance(kind, str) or not isinstance(value, str):
            raise InvalidPrincipal("its claims cannot be read")
        yield kind, value


def _only_guid(claims: Sequence[tuple[str, str]], kinds: tuple[str, ...]) -> str:
    """The value of a claim that there is once, if under two names.

    Raises:
        InvalidPrincipal: there is none, or more than one, or it is no GUID.
    """
    values = {value.casefold() for kind, value in claims if kind in kinds}
    if len(values) != 1 or not _GUID.fullmatch(value := values.pop()):
        raise InvalidPrincipal(f"it has no {kinds[0]}, or more than one")
    return value
