"""Texts of others without what opens something: they are shown to people, logged, and kept in durable history.

Azure repeats addresses in its errors, people paste headers into comments, and libraries put whole requests into the
texts of their exceptions. The texts come from callers and guests too, so each pattern passes over a text once: what it
has looked at, it either replaces or never begins with again.
"""

from __future__ import annotations

import base64
import re
from typing import Annotated

from pydantic import AfterValidator

# A query string may hold a signature, and a user a password; no text that people read needs either. Addresses with
# neither match as well, so that a text of nothing but "http://" is read once and not once for each of them.
_URL = re.compile(r"(https?://)([^\s/?#\"'<>@]*+@)?([^\s?\"'<>]*+)(\?[^\s\"'<>]*+)?", re.IGNORECASE)
# The parts begin where no part can have begun before: a scan that fails ends at the next place where one may begin.
_JWT = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+){1,4}+")
_BEARER = re.compile(r"\bBearer\s++[A-Za-z0-9._~+/=-]{8,}+", re.IGNORECASE)
_SCHEME = re.compile(
    r"\b(Authorization\\?[\"']?[ \t]{0,8}[:=][ \t]{0,8}\\?[\"']?(?:Basic|Digest|Negotiate|SharedKey(?:Lite)?))"
    r"[ \t]{1,8}[^\s\"'<>,;*]++",
    re.IGNORECASE,
)
_BASIC = re.compile(r"\b(Basic)[ \t]{1,8}([A-Za-z0-9+/]{4,}+={0,2})", re.IGNORECASE)
# What has been taken out already comes first, so that taking out twice changes nothing more.
_VALUE = r"(?:\*\*\*|\\?\"[^\"]*+\"?[^\s;&,\"'<>)}\]]*+|\\?'[^']*+'?[^\s;&,\"'<>)}\]]*+|[^\s;&,\"'<>]++)"
_KEY = re.compile(
    r"((?:password|passwd|pwd|passphrase|secret|x-functions-key|x-health-key|api-?key|subscription-key"
    r"|(?:access|refresh|id)_token)\\?[\"']?[ \t]{0,8}[:=][ \t]{0,8}"
    r"|(?<![A-Za-z])(?:AccountKey|SharedAccessKey|SharedAccessSignature|AccessKey|sig)=)" + _VALUE,
    re.IGNORECASE,
)
# Numbers behind "code=" are those of errors; a function key is none.
_CODE = re.compile(
    rf"((?<![A-Za-z])code=)(?!-?(?:0x[0-9a-f]{{1,16}}|[0-9]{{1,11}})(?![A-Za-z0-9_=+/-])){_VALUE}", re.IGNORECASE
)


def without_secrets(text: str) -> str:
    """The text without query strings and users of URLs, tokens, credentials, and values that are named as keys.

    >>> without_secrets("GET https://example.org/a?sig=x failed with Bearer abcdefgh")
    'GET https://example.org/a?*** failed with Bearer ***'
    """
    text = _URL.sub(_bare_url, text)
    text = _SCHEME.sub(r"\1 ***", text)
    text = _BEARER.sub("Bearer ***", text)
    text = _BASIC.sub(_bare_basic, text)
    text = _JWT.sub("***", text)
    return _CODE.sub(r"\1***", _KEY.sub(r"\1***", text))


def _bare_url(found: re.Match[str]) -> str:
    scheme, user, rest, query = found.groups()
    return f"{scheme}{'***@' if user else ''}{rest}{'?***' if query else ''}"


def _bare_basic(found: re.Match[str]) -> str:
    """Only what decodes to a user and a password: "basic authentication" is what people write about."""
    try:
        decoded = base64.b64decode(found[2] + "=" * (-len(found[2]) % 4), validate=True).decode()
    except ValueError:
        return found[0]
    return f"{found[1]} ***" if ":" in decoded and decoded.isprintable() else found[0]


type ForeignText = Annotated[str, AfterValidator(without_secrets)]
"""A text that somebody else wrote, in a document of ours."""
