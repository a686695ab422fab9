"""How the clients of the Azure libraries reach the network."""

from __future__ import annotations

from typing import Any
from urllib.request import getproxies

_SCHEMES = frozenset({"http", "https", "all"})


def transport_options() -> dict[str, Any]:
    """What every client of an Azure library is made with.

    The environment is asked for a proxy only where it names one. aiohttp would otherwise look before each request for
    one, and for a password in a ``.netrc``, both in a thread: a busy process then sends a request tenths of a second
    after its turn, and those whose turns were apart leave together.
    """
    return {"use_env_settings": not _SCHEMES.isdisjoint(getproxies())}
