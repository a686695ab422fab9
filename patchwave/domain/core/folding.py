"""How Azure compares names: without case, letter by letter, whatever the language."""

from functools import lru_cache

_MAX_KEPT = 300
"""Of an id of a machine: 260 characters at most."""


def fold(text: str) -> str:
    """The text in the one form in which ids, names and tags are compared; ASCII becomes lower case.

    Two texts are equal in this form when .NET's ``OrdinalIgnoreCase``, by which Resource Manager compares, calls them
    equal: each letter by its simple upper-case form, and none beyond ASCII with one of ASCII. So ``ß`` is not ``ss``,
    the Turkish ``ı`` and ``İ`` are not ``i``, and the Kelvin sign is not ``k``. `str.lower` and `str.casefold` each
    make some of these one, and so two machines of Azure one machine.
    """
    if text.isascii():
        return text.lower()
    return _kept(text) if len(text) <= _MAX_KEPT else text.translate(_FOLDED)


@lru_cache(maxsize=8_192)
def _kept(text: str) -> str:
    # Letter by letter is thirty times slower than ASCII, and the same ids are compared again and again.
    return text.translate(_FOLDED)


class _Folded(dict[int, int]):
    """Code points by code point, each worked out when it is met first."""

    def __missing__(self, code: int) -> int:
        self[code] = folded = ord(_fold_letter(chr(code)))
        return folded


def _fold_letter(letter: str) -> str:
    if letter.isascii():
        return letter.lower()
    upper = _simple_upper(letter)
    if upper.isascii():
        return letter
    lower = upper.lower()
    # Lower case is for readers; where it would lead to another letter, as of the Kelvin sign, there is none.
    return lower if len(lower) == 1 and _simple_upper(lower) == upper else upper


def _simple_upper(letter: str) -> str:
    """One letter for one letter: `str.upper` may give several, as SS for ß."""
    return next((form for form in (letter.upper(), letter.title()) if len(form) == 1), letter)


_FOLDED = _Folded()
