"""Reading policies that are stored: each version of one is validated once, however often it is asked for.

A burst of events asks for all policies once per event, and a large one takes a tenth of a second.
"""

from collections.abc import Mapping
from typing import Any

from patchwave.domain.policy.policy import Policy, PolicyError, parse_policy

MAX_KEPT = 100
"""Policies that are kept; of more, those that were asked for last."""

_kept: dict[str, tuple[Mapping[str, Any], Policy | PolicyError]] = {}
"""By name, the document that was read and what it is; the one asked for last at the end."""


def parse_stored_policy(document: Mapping[str, Any], *, name: str) -> Policy:
    """The policy of a stored document, which is not changed any more.

    Raises:
        PolicyError: this version of the app refuses it.
    """
    kept = _kept.pop(name, None)
    # The whole document decides, not an ETag: a digest of 48 bits would let an author make two policies of one.
    if kept is None or kept[0] != document:
        kept = document, _parse(document, name)
    _kept[name] = kept
    if len(_kept) > MAX_KEPT:
        # A default: a thread may have taken it meanwhile.
        _kept.pop(next(iter(_kept)), None)
    found = kept[1]
    if isinstance(found, PolicyError):
        # A new one: an error that is raised again would keep growing by its traces.
        raise PolicyError(found.errors)
    return found


def _parse(document: Mapping[str, Any], name: str) -> Policy | PolicyError:
    try:
        return parse_policy(document, name=name)
    except PolicyError as error:
        return error.with_traceback(None)
