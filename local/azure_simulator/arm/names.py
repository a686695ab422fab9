"""Name comparison of Resource Manager: ordinal, ignoring case, letter by letter."""

from __future__ import annotations

from functools import cache


def folded(name: str) -> str:
    """The normalized name: equal for spellings of one name.

    As .NET's ``OrdinalIgnoreCase``: the invariant upper-case form of each letter, which keeps ``ß`` distinct from
    ``SS``, and non-ASCII letters distinct from ASCII ones. ASCII is returned in lower case.
    """
    return name.lower() if name.isascii() else "".join(map(_letter, name))


@cache
def _letter(letter: str) -> str:
    if letter.isascii():
        return letter.lower()
    upper = letter.upper()
    return letter if len(upper) > 1 or upper.isascii() else upper
