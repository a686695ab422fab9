"""Everything that differs between installations, validated once and frozen.

A sovereign cloud, a private test bed and the local simulator are selected by the same values: there is no
"local mode" in deployed code.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


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
    poll_seconds: float = Field(
        default=30,
        ge=0.05,
        le=600,
        description="Seconds between two polls of an operation when Azure does not say.",
    )
    assess_concurrency: int = Field(default=50, ge=1, le=1000, description="Machines assessed at the same time.")
    webhook_secret: SecretStr = Field(
        default=SecretStr(""),
        description="Key of the HMAC-SHA256 signature that webhook callers must send; none is asked for without it.",
    )
    health_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key of the deep health check; without one the deep check is off.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        manager = urlsplit(self.resource_manager)
        if manager.scheme != "https" or not manager.hostname or manager.path.strip("/") or manager.username:
            raise ValueError("PATCHWAVE_RESOURCE_MANAGER must be an https address without a path")
        if not self.tables_connection.get_secret_value() and not self.tables_endpoint:
            raise ValueError("set PATCHWAVE_TABLES_ENDPOINT (with an identity) or PATCHWAVE_TABLES_CONNECTION")
        if self.tables_endpoint and urlsplit(self.tables_endpoint).scheme != "https":
            raise ValueError("PATCHWAVE_TABLES_ENDPOINT must be https: a bearer token is sent to it")
        return self

    @property
    def manager_url(self) -> str:
        """The Resource Manager endpoint without a trailing slash."""
        return self.resource_manager.rstrip("/")

    @property
    def manager_scope(self) -> str:
        """The token scope for Resource Manager."""
        return (self.resource_manager_audience or self.manager_url).rstrip("/") + "/.default"


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """The settings of this process, read from the environment once."""
    return Settings()
