"""Who may call which HTTP function, once ``PATCHWAVE_AUTHORIZATION`` is ``roles``: the table, and the check.

The platform has verified the token, and names the principal in headers that it takes out of every request from
outside. Without it they are what the caller wrote; so they count only where it says that it is there. See
``docs/reference/security.md`` and ADR 22.
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

ROLES: Mapping[str, Role | None] = {
    # What an operator may start is judged by its body: see `may_author`.
    "start_run": Role.OPERATOR,
    "list_runs": Role.READER,
    "get_run": Role.READER,
    "list_run_machines": Role.READER,
    "get_run_machine": Role.READER,
    "get_run_plan": Role.READER,
    "list_run_audit": Role.READER,
    "get_run_evidence": Role.OPERATOR,
    # The run may be removed afterwards.
    "acknowledge_export": Role.OPERATOR,
    "pause_run": Role.OPERATOR,
    "resume_run": Role.OPERATOR,
    "cancel_run": Role.OPERATOR,
    "approve_ring": Role.APPROVER,
    "reject_ring": Role.APPROVER,
    "skip_machine": Role.OPERATOR,
    "retry_machine": Role.OPERATOR,
    "list_policies": Role.READER,
    "get_policy": Role.READER,
    "get_policy_schema": Role.READER,
    "put_policy": Role.AUTHOR,
    "delete_policy": Role.AUTHOR,
    # They read, and store nothing.
    "import_policy": Role.READER,
    "export_policy": Role.READER,
    "list_occurrences": Role.READER,
    "pause_policy": Role.OPERATOR,
    "resume_policy": Role.OPERATOR,
    "skip_next_occurrence": Role.OPERATOR,
    "unskip_next_occurrence": Role.OPERATOR,
    "run_policy_now": Role.OPERATOR,
    "list_policy_audit": Role.READER,
    "list_refused_calls": Role.READER,
    "list_freezes": Role.READER,
    "get_freeze": Role.READER,
    "put_freeze": Role.OPERATOR,
    "delete_freeze": Role.OPERATOR,
    "list_freeze_audit": Role.READER,
    "list_configurations": Role.READER,
    "get_configuration": Role.READER,
    "put_configuration": Role.AUTHOR,
    "change_configuration": Role.AUTHOR,
    "delete_configuration": Role.AUTHOR,
    "list_coming_runs": Role.READER,
    "cancel_scheduled_run": Role.OPERATOR,
    "list_configuration_audit": Role.READER,
    "list_assignments": Role.READER,
    "list_maintenance_occurrences": Role.READER,
    "get_maintenance_occurrence": Role.READER,
    "list_maintenance_occurrence_machines": Role.READER,
    "put_assignment": Role.AUTHOR,
    "remove_assignments": Role.AUTHOR,
    "list_fleet_modes": Role.READER,
    "list_fleet_eligibility": Role.READER,
    "plan_mode_change": Role.OPERATOR,
    "list_mode_changes": Role.READER,
    "get_mode_change": Role.READER,
    "list_mode_change_machines": Role.READER,
    "list_mode_change_audit": Role.READER,
    "start_mode_change": Role.OPERATOR,
    "stop_mode_change": Role.OPERATOR,
    "examine_fleet": Role.READER,
    "plan_dry_run": Role.READER,
    "get_openapi": Role.READER,
    # They have an authentication of their own: a signature, and the health key.
    "run_webhook": None,
    "health": None,
}
"""The role that each HTTP function needs, by its name. A function that is not in here is refused to everybody."""


class NotSignedIn(Exception):
    """No principal that the app may believe is behind the request. The text says why, for the log alone."""


class RoleMissing(Exception):
    """The principal lacks a role that the request needs. The text says which, for the log alone."""


def check_role(function: str, headers: Mapping[str, str]) -> None:
    """Let the request through, or not.

    Raises:
        NotSignedIn: roles count, and there is no principal.
        RoleMissing: the principal may not call this function.
    """
    if function in ROLES and ROLES[function] is None:
        return
    principal = principal_of(headers)
    needed = ROLES.get(function)
    if principal is not None and (needed is None or not principal.may(needed)):
        raise RoleMissing(f"{function} needs {needed or 'a role that does not exist'}, the caller has {principal.has}")


def may_author(headers: Mapping[str, str]) -> bool:
    """Whether the caller may write policies, also in a request; a key alone stands for every role.

    Raises:
        NotSignedIn: roles count, and there is no principal.
    """
    principal = principal_of(headers)
    return principal is None or principal.may(Role.AUTHOR)


def principal_of(headers: Mapping[str, str]) -> Principal | None:
    """The signed-in principal; ``None`` where function keys alone decide.

    Raises:
        NotSignedIn: roles count, and there is none to be believed.
    """
    settings = load_settings()
    if settings.authorization is not Authorization.ROLES:
        return None
    if not platform_signs_in():
        raise NotSignedIn("App Service authentication is off, so that no principal can be believed")
    encoded = headers.get(PRINCIPAL_HEADER)
    if not encoded:
        raise NotSignedIn("the request has no principal")
    try:
        principal = read_principal(encoded, settings.tenant_id)
    except InvalidPrincipal as error:
        raise NotSignedIn(f"the principal cannot be believed: {error}") from error
    if headers.get(PROVIDER_HEADER) != ENTRA:
        raise NotSignedIn("the principal cannot be believed: it is not of Entra")
    return principal


def signed_in(headers: Mapping[str, str]) -> Signed | None:
    """Who is signed in, as the platform names them: by name, else by object id; ``None`` where it signs in no one.

    Where roles count, only the principal that they are read from.
    """
    if not platform_signs_in():
        return None
    object_id = headers.get(ID_HEADER, "").casefold() if headers.get(PROVIDER_HEADER) == ENTRA else ""
    try:
        principal = principal_of(headers)
    except NotSignedIn:
        return None
    if principal is not None:
        object_id = principal.id
    name = headers.get(NAME_HEADER) or object_id
    return Signed(by=_shown(name), by_id=_shown(object_id), proven=True) if name else None


def caller_named(headers: Mapping[str, str], claimed: str = "") -> Signed:
    """Who calls: the signed-in principal, else the name that the caller ``claimed``, shown as such, else the API."""
    found = signed_in(headers)
    if found is not None:
        return found
    name = _shown(claimed)
    return Signed(by=f"{name}{CLAIMED}" if name else "api")


def _shown(name: str) -> str:
    return "".join(character for character in name if character.isprintable())[:_MAX_NAME]
