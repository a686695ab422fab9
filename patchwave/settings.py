"""Everything that differs between installations, validated once and frozen.

A sovereign cloud, a private test bed and the local simulator are selected by the same values: there is no
"local mode" in deployed code.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

MAX_URL = 4096
MAX_RECIPIENTS = 50
"""That Communication Services takes in one mail."""


_ROTATION = r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?=[1-9][0-9]{0,5}(\+[1-9][0-9]{0,5})?"
_SUBSCRIPTION = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
JUDGED_BY_LENGTH = ("webhook_secret", "health_key")
"""Settings whose values people make up; a storage account makes the keys of a connection string."""
MIN_SECRET = 32
"""Characters of a secret that this app checks or signs with: fewer can be guessed."""
_REFERENCES = ("@microsoft.keyvault(", "@microsoft.appconfiguration(")
"""What a setting holds whose value the platform was to fetch, and could not: it takes whole values only."""
_UNRESOLVED = "is a reference to a Key Vault or the like that the platform could not resolve"
_TOPIC = re.compile(rf"/subscriptions/{_SUBSCRIPTION.pattern}(/[^/\s]+)*/?", re.IGNORECASE)
_PROBE_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")


class Authorization(StrEnum):
    """What decides whether a caller may call an HTTP function."""

    KEYS = "keys"
    """A function key, whoever holds it."""
    ROLES = "roles"
    """A function key, and the roles of the principal that App Service authentication has signed in."""


def platform_signs_in() -> bool:
    """Whether App Service authentication is on, so that the headers about the principal are its own.

    Not a setting of ours: the platform sets the variable, with any case of the word.
    """
    return os.environ.get("WEBSITE_AUTH_ENABLED", "").casefold() == "true"


def _is_unresolved(text: str) -> bool:
    """Whether a value is still the reference to one. The name of the vault is enough to know the whole text.

    A reference in quotes, in a part of the value, or with a mark of byte order or an invisible space is none to
    the platform, and a value all the same.
    """
    seen = "".join(each for each in text if "!" <= each <= "~").casefold()
    return any(reference in seen for reference in _REFERENCES)


class ChannelKind(StrEnum):
    """Where a notification can go."""

    TEAMS = "teams"
    SLACK = "slack"
    WEBHOOK = "webhook"
    MAIL = "mail"


class ChannelsError(ValueError):
    """The setting ``PATCHWAVE_CHANNELS`` cannot be used. The text says where and why, and holds no value of it."""


class Channel(BaseModel):
    """One place where notifications go, under the name that policies use.

    Teams, Slack and webhooks have a ``url``, which is a secret by itself; a webhook also has the ``secret`` of its
    signature, and may be ``private``: in a private network. Mail has the ``connection`` string of a Communication
    Services resource, a sender and recipients.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
    kind: ChannelKind
    url: SecretStr = SecretStr("")
    secret: SecretStr = SecretStr("")
    private: bool = False
    connection: SecretStr = SecretStr("")
    sender: str = Field(default="", alias="from", max_length=254)
    to: tuple[Annotated[str, StringConstraints(pattern=r"^[^\s@]+@[^\s@]+$", max_length=254)], ...] = Field(
        default=(), max_length=MAX_RECIPIENTS
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        wanted = {
            ChannelKind.TEAMS: {"url"},
            ChannelKind.SLACK: {"url"},
            ChannelKind.WEBHOOK: {"url", "secret"},
            ChannelKind.MAIL: {"connection", "from", "to"},
        }[self.kind]
        given = {
            "url": self.url.get_secret_value(),
            "secret": self.secret.get_secret_value(),
            "connection": self.connection.get_secret_value(),
            "from": self.sender,
            "to": self.to,
        }
        if wanted != {key for key, value in given.items() if value}:
            raise ValueError(f"a {self.kind} channel has {', '.join(sorted(wanted))} and nothing else")
        if self.kind is ChannelKind.WEBHOOK and len(self.secret.get_secret_value().strip()) < MIN_SECRET:
            raise ValueError(f"secret must have at least {MIN_SECRET} characters")
        if any(_is_unresolved(str(value)) for value in given.values()):
            raise ValueError("has a value that is a reference which the app could not resolve")
        if self.private and self.kind is not ChannelKind.WEBHOOK:
            raise ValueError("private is for webhooks: the other services are never in a private network")
        if self.kind is ChannelKind.MAIL:
            self.mail_resource()
        elif not _is_https(self.url.get_secret_value()):
            raise ValueError("url must be an https address without user and fragment")
        return self

    def mail_resource(self) -> tuple[str, bytes]:
        """The endpoint without a trailing slash and the access key, out of the connection string.

        The endpoint is written as clients write a Host header, which is part of what is signed.

        Raises:
            ValueError: it is none.
        """
        parts: dict[str, str] = {}
        for part in self.connection.get_secret_value().split(";"):
            name, _, value = part.partition("=")
            parts[name.strip().lower()] = value.strip()
        try:
            key = base64.b64decode(parts.get("accesskey", ""), validate=True)
        except binascii.Error:
            key = b""
        endpoint = parts.get("endpoint", "").lower().rstrip("/").removesuffix(":443")
        if not key or not _is_https(endpoint) or urlsplit(endpoint).path or urlsplit(endpoint).query:
            raise ValueError("connection must read endpoint=https://...;accesskey=...")
        return endpoint, key


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_complete = parts.scheme == "https" and bool(parts.hostname) and (parts.port or 443) > 0
    except ValueError:
        return False
    has_extras = parts.username is not None or bool(parts.fragment)
    return is_complete and not has_extras and url.isascii() and url.isprintable() and len(url) <= MAX_URL


_CHANNELS = TypeAdapter(tuple[Channel, ...])


def parse_channels(text: str) -> dict[str, Channel]:
    """The channels of the setting, a JSON list, by name.

    Raises:
        ChannelsError: what is wrong, without the values: they are secrets.
    """
    if not text.strip():
        return {}
    try:
        channels = _CHANNELS.validate_json(text)
    except ValidationError as error:
        is_no_list = not any(problem["loc"] for problem in error.errors(include_input=False))
        if is_no_list and _is_unresolved(text):
            raise ChannelsError("PATCHWAVE_CHANNELS is a Key Vault reference that the app could not resolve.") from None
        problems = {_place(problem["loc"]) + problem["msg"] for problem in error.errors(include_input=False)}
        raise ChannelsError("PATCHWAVE_CHANNELS is not valid: " + "; ".join(sorted(problems))) from None
    by_name = {channel.name: channel for channel in channels}
    if len(by_name) < len(channels):
        raise ChannelsError("PATCHWAVE_CHANNELS is not valid: two channels have the same name")
    return by_name


def _place(location: tuple[str | int, ...]) -> str:
    """``[0].url: ``. A key that is not ours may be a misplaced secret and is not shown."""
    ours = {field.alias or name for name, field in Channel.model_fields.items()}
    parts = [f"[{part}]" if isinstance(part, int) else f".{part if part in ours else '?'}" for part in location]
    return "".join(parts) + ": " if parts else ""


def secret_fault(text: str) -> str:
    """Why the app does not take a secret that people made up; empty when it does, or there is none."""
    if _is_unresolved(text):
        return _UNRESOLVED
    return f"must have at least {MIN_SECRET} characters" if text and len(text.strip()) < MIN_SECRET else ""


class Settings(BaseSettings):
    """App settings with the prefix ``PATCHWAVE_``.

    Raises:
        pydantic.ValidationError: a value is missing or wrong; the health function reports the sentence.
    """

    model_config = SettingsConfigDict(env_prefix="PATCHWAVE_", frozen=True, extra="ignore", hide_input_in_errors=True)

    resource_manager: str = Field(
        default="https://management.azure.com",
        description="Resource Manager endpoint; another one selects a sovereign cloud.",
    )
    resource_manager_audience: str = Field(
        default="",
        description="Token audience; the Resource Manager endpoint unless set.",
    )
    identity_client_id: str = Field(default="", description="Client id of a user-assigned identity.")
    tables_connection: SecretStr = Field(
        default=SecretStr(""),
        description="Connection string of the storage account that keeps the records.",
    )
    tables_endpoint: str = Field(
        default="",
        description="Table endpoint (https) of that account; the identity is used instead of a connection string.",
    )
    table_prefix: str = Field(default="patchwave", pattern=r"^[A-Za-z][A-Za-z0-9]{0,30}$")
    storage_batch_delay_seconds: float = Field(
        default=3,
        ge=0,
        le=10,
        description=(
            "How long what a step of a machine writes may wait for the writes of other machines that share its"
            " transaction, when one was sent less than that ago; so long may equal reads wait for each other as well."
            " People and timers wait for nobody. 0: never."
        ),
    )
    poll_seconds: float = Field(
        default=30,
        ge=0.05,
        le=600,
        description="Seconds between two polls of an operation when Azure does not say.",
    )
    clock_speed: float = Field(
        default=1,
        gt=0,
        le=100_000,
        description="How many times faster the bake times and the time to settle of a policy pass; for trials with a"
        " simulator, whose clock is as fast.",
    )
    limits: str = Field(
        default="",
        pattern=r"^(\s*(patchOperations|reads|writes|queries)\s*=\s*[0-9]+(\.[0-9]+)?\s*/\s*[1-9][0-9]*\s*(,|$))*$",
        description="Token buckets of Azure that differ from the documented ones, as bucket=refill a minute/burst, "
        "separated by commas; the buckets are patchOperations, reads, writes and queries.",
    )
    maintenance_cutoff_seconds: float = Field(
        default=600,
        gt=0,
        le=3600,
        description="How long before its start a scheduled run of Update Manager can no longer be cancelled.",
    )
    maintenance_prepare_seconds: float = Field(
        default=1200,
        gt=0,
        le=1800,
        description="How long the work before a scheduled run of Update Manager may take, from its pre event on.",
    )
    maintenance_post_seconds: float = Field(
        default=3600,
        gt=0,
        le=86_400,
        description="How long after the end of a scheduled run its post event is waited for.",
    )
    maintenance_speed: float = Field(
        default=1,
        gt=0,
        le=100_000,
        description="How many times faster the windows of scheduled runs pass; for trials with a simulator.",
    )
    assess_concurrency: int = Field(default=600, ge=1, le=1000, description="Machines assessed at the same time.")
    authorization: Authorization = Field(
        default=Authorization.KEYS,
        description="keys: a function key is enough. roles: callers also need a role of the Entra application.",
    )
    tenant_id: str = Field(
        default="",
        pattern=r"^([0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})?$",
        description="The Entra tenant whose principals have roles; needed with roles.",
    )
    webhook_secret: SecretStr = Field(
        default=SecretStr(""),
        description="From which the secret of each policy's webhook is derived, with which its senders must sign; at"
        " least 32 characters. No signature is asked for without it.",
    )
    webhook_rotations: str = Field(
        default="",
        pattern=rf"^\s*({_ROTATION}(\s*,\s*{_ROTATION})*)?\s*$",
        description="The numbers of the webhook secrets that count, where that is not 1, as policy=number, separated by"
        " commas; policy=1+2 takes both while senders change over.",
    )
    channels: SecretStr = Field(
        default=SecretStr(""),
        description="Notification channels, a JSON list. It is parsed when there is something to tell: a mistake in "
        "it must not keep machines from being patched.",
    )
    scripts: bool = Field(
        default=False,
        description="Whether policies may run scripts in guests, where their authors are root then. Needs roles.",
    )
    probe_hosts: str = Field(
        default="",
        description="Hosts that health probes of policies may call, separated by commas; *.example.org stands for all "
        "names below it. None may be called when empty.",
    )
    probe_private: bool = Field(
        default=False,
        description="Whether health probes may call private addresses, where machines without public ones are.",
    )
    subscriptions: str = Field(
        default="",
        description="Ids of the subscriptions in which the app may change anything, separated by commas; whatever its"
        " identity may do elsewhere is not done. All that the identity may change when empty.",
    )
    event_topics: str = Field(
        default="",
        description="ARM ids of the topics whose events count, or of subscriptions and resource groups around them,"
        " separated by commas. When empty those in PATCHWAVE_SUBSCRIPTIONS; none when that is empty as well.",
    )
    snapshot_groups: str = Field(
        default="",
        description="Names of resource groups to which policies may send snapshots, separated by commas, beside the"
        " group of the disk itself.",
    )
    keep_runs_days: int = Field(
        default=400,
        ge=0,
        le=36_500,
        description="Days after which runs are removed that ended, with everything about them; 0 keeps them for ever.",
    )
    keep_history_days: int = Field(
        default=800,
        ge=0,
        le=36_500,
        description="The same for what each machine's history tells of runs, its latest state, the audit logs of "
        "policies, and when packages were first seen.",
    )
    keep_instances_days: int = Field(
        default=30, ge=0, le=36_500, description="The same for instances of the durable engine that have ended."
    )
    purge_needs_export: bool = Field(
        default=False, description="Whether a run is removed only after its evidence was exported."
    )
    health_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key of the deep health check, at least 32 characters; without one the deep check is off.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_resolved(cls, value: object, given: ValidationInfo) -> object:
        # Channels are judged when they are read: a mistake in them must not keep machines from being patched.
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if given.field_name != "channels" and isinstance(text, str) and _is_unresolved(text):
            raise ValueError(_UNRESOLVED)
        return value

    @field_validator(*JUDGED_BY_LENGTH)
    @classmethod
    def _is_long_enough(cls, value: SecretStr) -> SecretStr:
        if fault := secret_fault(value.get_secret_value()):
            raise ValueError(fault)
        return value

    # After the length was judged: a secret of nothing but white space is a mistake, and not the lack of one.
    @field_validator("*")
    @classmethod
    def _is_stripped(cls, value: object) -> object:
        # `echo` ends what it puts into a vault with a line feed, which is in no sender's or client's copy.
        return SecretStr(value.get_secret_value().strip()) if isinstance(value, SecretStr) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        manager = urlsplit(self.resource_manager)
        if manager.scheme != "https" or not manager.hostname or manager.path.strip("/") or manager.username:
            raise ValueError("PATCHWAVE_RESOURCE_MANAGER must be an https address without a path")
        if not self.tables_connection.get_secret_value() and not self.tables_endpoint:
            raise ValueError("set PATCHWAVE_TABLES_ENDPOINT (with an identity) or PATCHWAVE_TABLES_CONNECTION")
        if self.tables_endpoint and urlsplit(self.tables_endpoint).scheme != "https":
            raise ValueError("PATCHWAVE_TABLES_ENDPOINT must be https: a bearer token is sent to it")
        if self.authorization is Authorization.ROLES and not self.tenant_id:
            raise ValueError("PATCHWAVE_AUTHORIZATION=roles needs PATCHWAVE_TENANT_ID, whose principals have roles")
        if wrong := [host for host in self.listed_probe_hosts if not _PROBE_HOST.fullmatch(host)]:
            raise ValueError(f"PATCHWAVE_PROBE_HOSTS: {wrong[0][:100]!r} is no host name, and not *. before one")
        if wrong := [each for each in self.listed_subscriptions if not _SUBSCRIPTION.fullmatch(each)]:
            raise ValueError(f"PATCHWAVE_SUBSCRIPTIONS: {wrong[0][:100]!r} is no id of a subscription")
        if len(self.listed_rotations) < len(_listed(self.webhook_rotations)):
            raise ValueError("PATCHWAVE_WEBHOOK_ROTATIONS names a policy twice")
        if wrong := [each for each in self.listed_snapshot_groups if "/" in each]:
            raise ValueError(f"PATCHWAVE_SNAPSHOT_GROUPS: {wrong[0][:100]!r} is no name of a resource group")
        if wrong := [each for each in self.listed_event_topics if not _TOPIC.fullmatch(each)]:
            raise ValueError(f"PATCHWAVE_EVENT_TOPICS: {wrong[0][:100]!r} is no ARM id in a subscription")
        if self.subscriptions.strip() and not self.listed_subscriptions:
            raise ValueError("PATCHWAVE_SUBSCRIPTIONS names no subscription: leave it out, or name one")
        return self

    @property
    def runs_scripts(self) -> bool:
        """Whether scripts are run: a key does not say who wrote one, so roles have to be on as well."""
        return self.scripts and self.authorization is Authorization.ROLES

    @property
    def listed_probe_hosts(self) -> tuple[str, ...]:
        """The hosts that health probes may call, one by one."""
        return _listed(self.probe_hosts)

    @property
    def listed_rotations(self) -> dict[str, tuple[int, ...]]:
        """The numbers of the webhook secrets that count, by policy, where that is not the first."""
        named = (part.partition("=") for part in _listed(self.webhook_rotations))
        return {policy: tuple(map(int, numbers.split("+"))) for policy, _, numbers in named}

    @property
    def listed_subscriptions(self) -> tuple[str, ...]:
        """The subscriptions in which the app may change anything; none means all."""
        return _listed(self.subscriptions)

    @property
    def listed_event_topics(self) -> tuple[str, ...]:
        """The ids of topics, or of what they are in, whose events count."""
        return _listed(self.event_topics)

    @property
    def listed_snapshot_groups(self) -> tuple[str, ...]:
        """The resource groups to which policies may send snapshots."""
        return _listed(self.snapshot_groups)

    @property
    def manager_url(self) -> str:
        """The Resource Manager endpoint without a trailing slash."""
        return self.resource_manager.rstrip("/")

    @property
    def manager_scope(self) -> str:
        """The token scope for Resource Manager."""
        return (self.resource_manager_audience or self.manager_url).rstrip("/") + "/.default"


def _listed(text: str) -> tuple[str, ...]:
    """The parts of a setting that are separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def read_health_key() -> SecretStr:
    """The key of the deep health check, also while other settings are not valid; empty where it is not valid itself."""
    try:
        return load_settings().health_key
    except ValidationError as error:
        if any(problem["loc"][:1] == ("health_key",) for problem in error.errors(include_input=False)):
            return SecretStr("")
        return SecretStr(os.environ.get("PATCHWAVE_HEALTH_KEY", "").strip())


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """The settings of this process, read from the environment once."""
    return Settings()
