"""Network options of the Azure libraries' clients."""

from __future__ import annotations

from typing import Any
from urllib.request import getproxies

_SCHEMES = frozenset({"http", "https", "all"})


def transport_options() -> dict[str, Any]:
    """Options of every client of an Azure library.

    Proxy settings are only read from the environment when it has some. Otherwise aiohttp looks for a proxy and a
    ``.netrc`` before each request, in a thread, which delays requests beyond their reserved time
    (docs/adr/0027-no-hops-before-sending.md).
    """
    return {"use_env_settings": not _SCHEMES.isdisjoint(getproxies())}
