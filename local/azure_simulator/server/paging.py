"""Pages of a provider's list: 250 entries, and a ``nextLink`` with a skip token."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from local.azure_simulator.server import errors
from local.azure_simulator.server.routing import Call

PAGE = 250


def take_page[T](call: Call, base_url: str, listed: list[T]) -> tuple[list[T], dict[str, Any]]:
    """The entries of the requested page, and the ``nextLink`` member when more follow.

    Raises:
        ArmError: 400 for a skip token that is not one.
    """
    query = call.query
    start = _offset(query.get("$skiptoken", ""))
    if start + PAGE >= len(listed):
        return listed[start:], {}
    token = base64.urlsafe_b64encode(str(start + PAGE).encode()).decode()
    given = (item for item in query.items() if item[0].casefold() not in ("$skiptoken", "api-version"))
    kept = "".join(f"&{key}={value}" for key, value in given)
    link = f"{base_url}{call.path}?api-version={call.api_version}{kept}&$skiptoken={token}"
    return listed[start : start + PAGE], {"nextLink": link}


def _offset(token: str) -> int:
    if not token:
        return 0
    try:
        return int(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error) as error:
        raise errors.invalid_parameter(f"The skip token '{token}' is not valid.", "$skiptoken") from error
