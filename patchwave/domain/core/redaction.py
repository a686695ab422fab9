"""Texts of others without what opens something: they are shown to people, logged, and kept in durable history.

Azure repeats addresses in its errors, people paste headers into comments, and libraries put whole requests into the
texts of their exceptions. The texts come from callers and guests too, so each pattern passes over a text once: what it
has looked at, it either replaces or never begins with again.
"""

import base64
import re
from typing import Annotated

from pydantic import AfterValidator

# White space within a line, and invisible characters.
_GAP = r"(?:[^\S\r\n]|[\u200b\u2060\ufeff])"
# Behind a name: the end of its quotes, and what assigns, also as a part of an address that is a value itself.
_CLOSE = r"\\?[\"']?"
_EQUALS = rf"{_GAP}{{0,8}}(?:={{1,3}}>?|:=|%(?:25){{0,4}}3d){_GAP}{{0,8}}"
_COLON = rf"{_GAP}{{0,8}}(?::|%(?:25){{0,4}}3a){_GAP}{{0,8}}"
_ASSIGNS = rf"{_CLOSE}(?:{_EQUALS}|{_COLON})"
# A name of its own and no end of another word: behind no letter, unless that ends a character like %26.
_EDGE = r"(?:(?<![A-Za-z])|(?<=%[0-9a-f][0-9a-f]))"
# What has been taken out already comes first, so that taking out twice changes nothing more.
_VALUE = (
    r"(?:\*\*\*|[bru]{0,2}\\?\"[^\"]*+\"?[^\s;&,\"'<>)}\]]*+|[bru]{0,2}\\?'[^']*+'?[^\s;&,\"'<>)}\]]*+"
    r"|[^\s;&,\"'<>]++)"
)

# A user may hold a password, and a query string a signature; no text that people read needs either. Addresses without
# a query match as well, so that a text of nothing but "http://" is read once and not once for each of them.
_USER = re.compile(r"://(?:[^\s/?#\"'<>@]*+@)++")
_QUERY = re.compile(r"(://[^\s?\"'<>]*+)(\?[^\s\"'<>]*+)?")
_QUOTED_USER = re.compile(r"(%3a%2f%2f)(?:[^\s\"'<>&%/?#@]|%(?!2f|3f|23|40))*+%40", re.IGNORECASE)
# The parts begin where no part can have begun before: a scan that fails ends at the next place where one may begin.
_JWT = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+){1,4}+")
_BEARER = re.compile(r"\bBearer(?:\s|%20)++[A-Za-z0-9._~+/=%-]{8,}+", re.IGNORECASE)
_SCHEME = re.compile(
    rf"((?=a){_EDGE}Authorization{_ASSIGNS}\\?[\"']?"
    r"(?:Basic|Digest|Negotiate|NTLM|Token|Api-?Key|SharedKey(?:Lite)?|SharedAccessSignature))"
    rf"(?:{_GAP}|%20|\+){{1,8}}[^\s\"'<>,;*]++",
    re.IGNORECASE,
)
_ANY_SCHEME = re.compile(
    rf"((?=a){_EDGE}Authorization{_ASSIGNS}\\?[\"']?(?:[A-Za-z_-]{{1,30}}+{_GAP}{{1,8}})?)([^\s\"'<>,;*]++)",
    re.IGNORECASE,
)
_BASIC = re.compile(r"\b(Basic)(?:[ \t]|%20){1,8}(?!Basic\b)([A-Za-z0-9+/]{4,}+)(?:=|%3d){0,2}", re.IGNORECASE)
_COOKIE = re.compile(
    rf"((?=[sc]){_EDGE}(?:Set-)?Cookie2?{_CLOSE}{_COLON}\\?[\"']?)[\w.$%~+-]++=[^\s;,\"'<>]*+"
    r"(?:; ?[\w.$%~+-]++(?:=[^\s;,\"'<>]*+)?)*+",
    re.IGNORECASE,
)
# By their first letters, and these before all else: what begins with none is passed by at once.
_SECRETS = (
    r"(?=[apsxri])(?:p(?:ass(?:word|wd|phrase)|wd|rivate[-_]?key)|s(?:ecret|(?:ubscription|torage)[-_]?key)"
    r"|a(?:pi[-_]?key|ccess(?:[-_]?key|_token)|ccount[-_]?key|ppserviceauthsession)"
    r"|x-(?:functions-key|health-key|zumo-auth)|(?:refresh|id)_token)"
)
_KEY = re.compile(
    rf"({_SECRETS}{_ASSIGNS}|(?=s){_EDGE}s(?:haredAccess(?:Key|Signature)|ig){_CLOSE}{_EQUALS}){_VALUE}", re.IGNORECASE
)
# "pass: 12" and "token: expired" are what people write, and "token=" is not.
_WORD = rf"(?=[tp])(?:{_EDGE}(?:token|pass)|(?-i:(?<=[a-z])(?:Token|Pass)))"
_SHORT_KEY = re.compile(rf"({_WORD}(?:{_CLOSE}{_EQUALS}|\\?[\"']{_COLON})){_VALUE}", re.IGNORECASE)
# A name that ends a sentence about the flag itself is followed by a word of that sentence.
_FLAG = re.compile(
    rf"((?<![\w-])--(?:[a-z0-9]{{1,24}}-){{0,4}}(?:{_SECRETS}|token|pass){_GAP}{{1,8}})"
    r"(?!-|(?:a|an|and|are|as|can|cannot|flag|for|has|if|in|instead|is|must|not|on|option|or|argument|parameter"
    rf"|should|the|to|was|when|with)(?!\w)){_VALUE}",
    re.IGNORECASE,
)
# Numbers behind "code=" are those of errors, and words like AllocationFailed their names; a function key is neither.
_CODE = re.compile(
    rf"((?=c){_EDGE}code(?:=|%(?:25){{0,4}}3d))(?!-?(?:0x[0-9a-f]{{1,16}}|[0-9]{{1,11}})(?![A-Za-z0-9_=+/-]))"
    rf"(?!\\?[\"']?(?-i:(?:[A-Z]{{1,5}}[a-z]{{1,24}}){{2,12}})(?![A-Za-z0-9_=+/%-])){_VALUE}",
    re.IGNORECASE,
)
_MAYBE = re.compile(rf"((?=[ctp]){_EDGE}(?P<name>code|token|pass){_ASSIGNS})({_VALUE})", re.IGNORECASE)
_DIGIT = re.compile("[0-9]")
_ONE_WORD = re.compile(r"[\w~+/=.%-]+")
_LENGTHS = {"code": 16, "token": 8, "pass": 8, "authorization": 8}
"""From how many characters on a value with letters and digits is taken for a secret, where most values are none."""


def redact(text: str) -> str:
    """The text without query strings and users of URLs, tokens, credentials, and values that are named as keys.

    >>> redact("GET https://example.org/a?sig=x failed with Bearer abcdefgh")
    'GET https://example.org/a?*** failed with Bearer ***'
    """
    text = _without_users(text)
    text = _QUERY.sub(lambda found: f"{found[1]}?***" if found[2] else found[0], text)
    text = _SCHEME.sub(r"\1 ***", text)
    text = _BEARER.sub("Bearer ***", text)
    text = _BASIC.sub(_bare_basic, text)
    text = _JWT.sub("***", text)
    text = _COOKIE.sub(r"\1***", text)
    for pattern in (_KEY, _SHORT_KEY, _FLAG, _CODE):
        text = pattern.sub(r"\1***", text)
    text = _MAYBE.sub(lambda found: _bare_word(found, found["name"], found[3]), text)
    text = _ANY_SCHEME.sub(lambda found: _bare_word(found, "authorization", found[2]), text)
    # Again, as a slash that ended what could be a user may have been a part of what is gone.
    return _without_users(text)


def _without_users(text: str) -> str:
    return _QUOTED_USER.sub(r"\1***%40", _USER.sub("://***@", text))


def _bare_basic(found: re.Match[str]) -> str:
    """Only what decodes to a user and a password: "basic authentication" is what people write about."""
    try:
        decoded = base64.b64decode(found[2] + "=" * (-len(found[2]) % 4), validate=True).decode()
    except ValueError:
        return found[0]
    return f"{found[1]} ***" if ":" in decoded and decoded.isprintable() else found[0]


def _bare_word(found: re.Match[str], name: str, value: str) -> str:
    """Only a long word of letters and digits: Azure's own codes are words, and those of programs numbers."""
    word = value.strip("\\\"'")
    is_number = word.casefold().startswith("0x")
    is_long = len(word) >= _LENGTHS[name.casefold()] and _ONE_WORD.fullmatch(word) is not None
    is_mixed = _DIGIT.search(word) is not None and any(each.isalpha() for each in word)
    return f"{found[1]}***" if is_long and is_mixed and not is_number else found[0]


type RedactedText = Annotated[str, AfterValidator(redact)]
"""A text from outside in a document of ours, redacted."""
