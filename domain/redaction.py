"""Texts of others without what opens something: they are shown to people, logged, and kept in durable history.

Azure repeats addresses in its errors, people paste headers into comments, and libraries put whole requests into the
texts of their exceptions.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

# A query string may hold a signature; no text that people read needs one.
_QUERY_STRING = re.compile(r"(https?://[^\s?\"'<>]+)\?[^\s\"'<>]*", re.IGNORECASE)
_BEARER = re.compile(r"\bBearer\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_KEY = re.compile(r"\b(AccountKey|SharedAccessKey|SharedAccessSignature|AccessKey|sig)=[^\s;&\"'<>*]+", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """The text without query strings of URLs, bearer tokens, and keys of connection strings.

    >>> without_secrets("GET https://example.org/a?sig=x failed with Bearer abcdefgh")
    'GET https://example.org/a?*** failed with Bearer ***'
    """
    return _KEY.sub(r"\1=***", _BEARER.sub("Bearer ***", _QUERY_STRING.sub(r"\1?***", text)))


type ForeignText = Annotated[str, AfterValidator(without_secrets)]
"""A text that somebody else wrote, in a document of ours."""
