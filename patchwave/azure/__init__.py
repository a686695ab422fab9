"""The outside world: one client per service, and no Azure type beyond this package.

Azure libraries are imported inside the factories, not at the top of modules: a worker that only answers HTTP
does not pay for the compute library (about a second of start-up).
"""

from __future__ import annotations

import logging

# At INFO these log every request with its URL and headers; operation URLs are signed and must not reach a log.
for _name in ("azure.core", "azure.identity", "azure.mgmt", "azure.data", "msal"):
    logging.getLogger(_name).setLevel(logging.WARNING)
