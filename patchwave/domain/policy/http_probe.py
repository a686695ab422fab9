"""The HTTP probe of a policy: a URL template, and which hosts it may reach.

The policy names the address, so the author of a policy chooses where requests go. Two rules bound that: hosts must be
on the installation's list, and addresses are checked when they are called (`patchwave.domain.core.egress`).
Placeholders take values from machines, whose tags can be set with a role on the machine alone: they are encoded, and a
value never changes scheme, host list, port or path.
"""

import re
from collections.abc import Callable, Sequence
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, Field, StrictInt

from patchwave.domain.core.documents import Document

MAX_URL = 2_000
MAX_PLACEHOLDERS = 3
"""In one address: more than any real one has."""
_PLACES = ("name", "resourceGroup", "location")
TAG_PREFIX = "tag:"
_URL = re.compile(r"(?P<scheme>https?)://(?P<host>[^/?#]*?)(?P<port>:[0-9]{1,5})?(?P<rest>[/?][^#]*)?")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.IGNORECASE)
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\U0010ffff\\]")


class ProbeImpossible(ValueError):
    """The address of the policy cannot be filled in for a machine. The text says why."""


def _check_url(text: str) -> str:
    if len(text) > MAX_URL:
        raise ValueError(f"is too long; at most {MAX_URL}")
    names = _PLACEHOLDER.findall(text)
    if len(names) > MAX_PLACEHOLDERS:
        raise ValueError(f"has {len(names)} placeholders; at most {MAX_PLACEHOLDERS}")
    for name in names:
        if name not in _PLACES and not (name.startswith(TAG_PREFIX) and len(name) > len(TAG_PREFIX)):
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


def fill_template(template: str, value_of: Callable[[str], str]) -> str:
    """The address with ``value_of(name)`` for each placeholder, encoded.

    Raises:
        ProbeImpossible: a value makes no host name, or steps out of the path.
    """
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
    """The host of an address that `fill_template` made."""
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
