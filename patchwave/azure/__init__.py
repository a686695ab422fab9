"""Clients of Azure, one per service; no Azure type crosses this package's boundary.

Azure libraries are imported inside the factories: a worker that only serves HTTP does not pay for the compute library
(about a second of start-up).
"""

from __future__ import annotations

import logging

# At INFO these log every request with URL and headers; operation URLs are signed and must not reach a log.
for _name in ("azure.core", "azure.identity", "azure.mgmt", "azure.data", "msal"):
    logging.getLogger(_name).setLevel(logging.WARNING)
