"""An HTTP probe of a machine: which address it asks, and what the answer says of the machine's health.

The policy names the address, so somebody who may write policies chooses where requests go. Two rules bound that: hosts
are on a list of the installation's, and addresses are checked when they are called (`patchwave.domain.core.egress`).
Placeholders take values from machines, whose tags anybody with a role on the machine may set: they are encoded, and a
value never changes scheme, host list, port or path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, Field, StrictInt

from patchwave.domain.core.documents import Document
from patchwave.domain.core.folding import fold
from patchwave.domain.runs.run import MachineRecord, Signal, SignalState

LONGEST_URL = 2_000
MOST_PLACEHOLDERS = 3
"""In one address: more than any real one has."""
_PLACES = ("name", "resourceGroup", "location")
_TAG = "tag:"

_URL = re.compile(r"(?P<scheme>https?)://(?P<host>[^/?#]*?)(?P<port>:[0-9]{1,5})?(?P<rest>[/?][^#]*)?")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.IGNORECASE)
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\U0010ffff\\]")


class ProbeImpossible(ValueError):
    """The address of the policy cannot be filled in for a machine. The text says why."""


def _check_url(text: str) -> str:
    if len(text) > LONGEST_URL:
        raise ValueError(f"is too long; at most {LONGEST_URL}")
    names = _PLACEHOLDER.findall(text)
    if len(names) > MOST_PLACEHOLDERS:
        raise ValueError(f"has {len(names)} placeholders; at most {MOST_PLACEHOLDERS}")
    for name in names:
        if name not in _PLACES and not (name.startswith(_TAG) and len(name) > len(_TAG)):
            known = ", ".join(f"{{{place}}}" for place in _PLACES)
            raise ValueError(f"{{{name}}} is no placeholder; use {known} or {{tag:...}} with the name of a tag")
    sample = _PLACEHOLDER.sub("x", text)
    if "{" in sample or "}" in sample:
        raise ValueError("has a brace without its partner")
    found = _URL.fullmatch(sample)
    # Placeholders may hold a space, as the names of tags do.
    if found is None or _UNSAFE.search(sample):
        raise ValueError(
            "must be an http or https address without a fragment, such as https://{name}.example.org/health"
        )
    if "@" in found["host"]:
        raise ValueError("must not name a user: probes carry no credentials")
    if not _HOST.fullmatch(found["host"]):
        raise ValueError(f"{found['host']!r} is no host name")
    if found["port"] and not 1 <= int(found["port"][1:]) <= 65_535:
        raise ValueError("has a port outside of 1 to 65535")
    if _has_dot_step(found["rest"] or ""):
        raise ValueError("must not have . or .. as a step of its path")
    return text


def _check_status(value: int) -> int:
    if not 100 <= value <= 599:
        raise ValueError("must be an HTTP status from 100 to 599")
    return value


class Probe(Document):
    """One GET of an address of the machine's own service."""

    url: Annotated[str, AfterValidator(_check_url)] = Field(
        title="Address",
        description="http or https. {name}, {resourceGroup}, {location} and {tag:...} stand for those of the machine,"
        " at most three of them. Its host must be on the list in PATCHWAVE_PROBE_HOSTS.",
        examples=["https://{name}.example.org/health"],
    )
    status: list[Annotated[StrictInt, AfterValidator(_check_status)]] = Field(
        default=[200],
        min_length=1,
        max_length=20,
        title="Status",
        description="HTTP statuses that count as healthy. Redirects are not followed.",
    )
    contains: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, title="Contains", description="A text that the first 64 KiB of the answer must hold."
    )
    timeout_seconds: Annotated[StrictInt, Field(ge=1, le=30)] = Field(
        default=10, title="Time-out", description="Seconds for the whole request, from 1 to 30."
    )


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What came back; ``body`` is the beginning of it, and empty when the probe does not look at it."""

    status: int
    body: str = ""


@dataclass(frozen=True, slots=True)
class ProbeFailure:
    """There was no answer. Only when the machine ``was_tried`` does that say something of it.

    ``detail`` goes on after "The probe": ``was refused a connection``.
    """

    detail: str
    was_tried: bool


def fill_url(template: str, machine: MachineRecord) -> str:
    """The address for one machine.

    Raises:
        ProbeImpossible: the machine lacks a tag, or a value makes no host name.
    """
    tags = {fold(name): value for name, value in machine.tags.items()}
    values = {"name": machine.name, "resourceGroup": machine.resource_group, "location": machine.location}

    def value_of(place: str) -> str:
        value = tags.get(fold(place.removeprefix(_TAG)), "") if place.startswith(_TAG) else values[place]
        if not value:
            raise ProbeImpossible(f"the machine has no {place.removeprefix(_TAG)!r} for its address")
        return value

    scheme, host, port, rest = _parts(template)
    host = _PLACEHOLDER.sub(lambda found: value_of(found[1]), host)
    if not _HOST.fullmatch(host):
        raise ProbeImpossible(f"{host[:100]!r} is no host name")
    path = _PLACEHOLDER.sub(lambda found: quote(value_of(found[1]), safe="", errors="replace"), rest)
    # Dots have no quoted form: servers read one as a step to another path all the same.
    if _has_dot_step(path):
        raise ProbeImpossible("a value of the machine steps out of the path")
    return f"{scheme}://{host.lower()}{port}{path}"


def host_of(url: str) -> str:
    """The host of an address that `fill_url` made."""
    return _parts(url)[1]


def is_listed(host: str, listed: Sequence[str]) -> bool:
    """Whether a host is on the list: by its name, or below ``*.example.org``, which does not hold example.org."""
    name = host.casefold()
    return any(
        name.endswith(entry[1:].casefold()) and len(name) > len(entry) - 1
        if entry.startswith("*.")
        else name == entry.casefold()
        for entry in listed
    )


def may_be_listed(template: str, listed: Sequence[str]) -> bool:
    """Whether the address of a policy can be on the list for any machine, whatever its placeholders stand for."""
    host = host_of(template).casefold()
    if not _PLACEHOLDER.search(host):
        return is_listed(host, listed)
    words = _PLACEHOLDER.sub("\0", host).split("\0")

    def is_possible(entry: str) -> bool:
        below = entry[1:]
        if entry.startswith("*."):
            return below.endswith(words[-1]) or words[-1].endswith(below)
        return _holds_in_order(entry, words)

    return any(is_possible(entry.casefold()) for entry in listed)


def _holds_in_order(text: str, words: Sequence[str]) -> bool:
    """Whether the text is the words in their order with at least one character between two of them.

    The leftmost place of each word leaves the most room for the next, so one pass is enough. A regular expression
    with a gap for each placeholder tries every combination of places.
    """
    first, *middle, last = words
    if not text.startswith(first):
        return False
    at = len(first)
    for word in middle:
        found = text.find(word, at + 1)
        if found < 0:
            return False
        at = found + len(word)
    return text.endswith(last) and len(text) - len(last) > at


def judge_probe(probe: Probe, answer: ProbeAnswer | ProbeFailure) -> Signal:
    """What the answer says of the machine."""
    if isinstance(answer, ProbeFailure):
        state = SignalState.UNHEALTHY if answer.was_tried else SignalState.UNKNOWN
        return Signal(state=state, detail=f"The probe {answer.detail}.")
    if answer.status not in probe.status:
        wanted = " or ".join(map(str, probe.status))
        return Signal(
            state=SignalState.UNHEALTHY, detail=f"The probe was answered with {answer.status} instead of {wanted}."
        )
    if probe.contains is not None and probe.contains not in answer.body:
        return Signal(state=SignalState.UNHEALTHY, detail=f"The answer to the probe does not hold {probe.contains!r}.")
    return Signal(state=SignalState.HEALTHY)


def _has_dot_step(rest: str) -> bool:
    return not {".", ".."}.isdisjoint(rest.partition("?")[0].split("/"))


def _parts(url: str) -> tuple[str, str, str, str]:
    """Scheme, host, port with its colon, and the rest; placeholders stay as they are, colons inside them too."""
    scheme, _, after = url.partition("://")
    masked = _PLACEHOLDER.sub(lambda found: "x" * len(found[0]), after)
    end = min((at for mark in "/?" if (at := masked.find(mark)) >= 0), default=len(masked))
    colon = masked.find(":", 0, end)
    split = end if colon < 0 else colon
    return scheme, after[:split], after[split:end], after[end:]
