"""The part of host.json that the embedded host supports."""

import json
import os
import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

_TIME_SPAN = re.compile(r"^(?:(?P<days>\d+)\.)?(?P<hours>\d{1,2}):(?P<minutes>\d{2}):(?P<seconds>\d{2})$")
_SETTING = re.compile(r"%([^%]+)%")

# Azure's default outside the Consumption plan; host.json of the app overrides it.
_DEFAULT_TIMEOUT = timedelta(minutes=30)


class HostJsonError(ValueError):
    """host.json or a binding cannot be used; the message says what to change."""


@dataclass(frozen=True, slots=True)
class HostJson:
    """Settings of the host.

    ``function_timeout`` None means unlimited. ``log_levels`` are Python level names by logger name; ``""`` is the
    default. ``replace_live_instances`` is ``overridableExistingInstanceStates: AnyState``.
    """

    route_prefix: str = "api"
    function_timeout: timedelta | None = _DEFAULT_TIMEOUT
    hub_name: str = "TestHubName"
    max_activities: int = 10
    max_orchestrators: int = 10
    replace_live_instances: bool = False
    log_levels: dict[str, str] = field(default_factory=dict[str, str])


def parse_time_span(text: str) -> timedelta:
    """``[d.]hh:mm:ss`` as a duration."""
    match = _TIME_SPAN.match(text.strip())
    if match is None:
        raise HostJsonError(f"'{text}' is not a time span: write hh:mm:ss")
    return timedelta(**{name: int(value) for name, value in match.groupdict(default="0").items()})


def expand_settings(text: str, environment: dict[str, str] | None = None) -> str:
    """Replaces every ``%NAME%`` by the app setting of that name."""
    settings = os.environ if environment is None else environment

    def value(match: re.Match[str]) -> str:
        found = settings.get(match[1])
        if found is None:
            raise HostJsonError(f"'{text}' names the app setting {match[1]}, which is not set")
        return found

    return _SETTING.sub(value, text)


_LEVELS = {
    "trace": "DEBUG",
    "debug": "DEBUG",
    "information": "INFO",
    "warning": "WARNING",
    "error": "ERROR",
    "critical": "CRITICAL",
    "none": "CRITICAL",
}


def _section(document: dict[str, Any], *path: str) -> dict[str, Any]:
    for name in path:
        found: Any = document.get(name)
        document = cast(dict[str, Any], found) if isinstance(found, dict) else {}
    return document


def load_host_json(app: Path) -> HostJson:
    """Reads ``host.json`` in the app's folder; a missing file means defaults."""
    path = app / "host.json"
    if not path.exists():
        return HostJson()
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HostJsonError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or cast(dict[str, Any], document).get("version") != "2.0":
        raise HostJsonError(f'{path} must be an object with "version": "2.0"')
    root = cast(dict[str, Any], document)
    durable = _section(root, "extensions", "durableTask")
    per_core = 10 * (os.cpu_count() or 1)
    return HostJson(
        route_prefix=str(_section(root, "extensions", "http").get("routePrefix", "api")).strip("/"),
        function_timeout=_timeout(root.get("functionTimeout")),
        hub_name=_hub_name(str(durable.get("hubName", "TestHubName"))),
        max_activities=int(durable.get("maxConcurrentActivityFunctions", per_core)),
        max_orchestrators=int(durable.get("maxConcurrentOrchestratorFunctions", per_core)),
        replace_live_instances=durable.get("overridableExistingInstanceStates") == "AnyState",
        log_levels={
            "" if name == "default" else str(name): _LEVELS.get(str(level).lower(), "INFO")
            for name, level in _section(root, "logging", "logLevel").items()
        },
    )


def _timeout(value: object) -> timedelta | None:
    if value is None:
        return _DEFAULT_TIMEOUT
    return None if str(value) == "-1" else parse_time_span(str(value))


def _hub_name(text: str) -> str:
    """A task hub may be named by a setting that is not set locally: the engine has one hub anyway."""
    try:
        return expand_settings(text)
    except HostJsonError:
        return "local"
