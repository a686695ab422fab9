"""How Resource Manager compares names: ordinally, without case, one letter with one letter."""

from __future__ import annotations

from functools import cache


def folded(name: str) -> str:
    """The name in the form in which two spellings of one name are equal.

    It is that of .NET's ``OrdinalIgnoreCase``: the invariant upper-case form of each letter, which keeps ``ß`` apart
    from ``SS``, and letters beyond ASCII apart from those of ASCII. ASCII is given in lower case.
    """
    return name.lower() if name.isascii() else "".join(map(_letter, name))


@cache
def _letter(letter: str) -> str:
    if letter.isascii():
        return letter.lower()
    upper = letter.upper()
    return letter if len(upper) > 1 or upper.isascii() else upper
