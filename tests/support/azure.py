"""The simulator as the app's adapters reach it: settings, a token of its identity endpoint, and trust in its CA."""

from __future__ import annotations

from typing import Any

from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import AioHttpTransport

from patchwave.azure.pipeline import ArmPipeline
from patchwave.settings import Settings
from tests.support.simulator import token


class Credential:
    """The token of the simulator's managed identity."""

    def __init__(self, value: str) -> None:
        self._value = value

    async def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken(self._value, 4_102_444_800)

    async def close(self) -> None: ...

    async def __aenter__(self) -> Credential:
        return self

    async def __aexit__(self, exc_type: Any = None, exc_value: Any = None, traceback: Any = None) -> None: ...


class Access:
    """What an adapter is made with that has the simulator of this ready document for Azure."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.settings = Settings(
            resource_manager=document["arm"], tables_endpoint="https://account.table.core.windows.net"
        )
        self.credential = Credential(token(document))

    def transport(self) -> Any:
        """Each client closes its own. aiohttp reads SSL_CERT_FILE once per process, so the CA is given to it."""
        return AioHttpTransport(connection_verify=str(self.document["ca"]))

    def pipeline(self) -> ArmPipeline:
        """One for each adapter."""
        return ArmPipeline(self.settings, self.credential, self.transport())
