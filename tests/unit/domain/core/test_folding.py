"""Names compare as Resource Manager compares them: ordinally, without case, one letter with one letter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.core.folding import fold


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("VM-GRÖSSE", "vm-grösse"),
        ("ПАТЧ-01", "патч-01"),
        ("ΣΊΓΜΑΣ", "σίγμας"),  # the final sigma too
        ("ǅ", "ǆ"),
        ("İSTANBUL", "İstanbul"),
        ("µ", "μ"),  # the micro sign and the Greek letter, as .NET has it
    ],
)
def test_one_name_in_two_cases(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("straße", "strasse"),
        ("STRASSE", "straße"),
        ("ẞ", "ß"),
        ("ı", "i"),
        ("ı", "I"),
        ("İ", "i"),
        ("İ", "I"),
        ("\N{KELVIN SIGN}", "k"),
        ("\N{ANGSTROM SIGN}", "å"),
        ("ſ", "s"),
        ("ﬁle", "file"),
        ("größe", "gro\N{COMBINING DIAERESIS}ße"),  # Azure does not normalize
        ("ŉ", "ʼn"),
    ],
)
def test_two_names(one: str, other: str) -> None:
    assert fold(one) != fold(other)


def test_ascii_is_given_in_lower_case() -> None:
    assert fold("/Subscriptions/ABC/RG-Web_01.(x)") == "/subscriptions/abc/rg-web_01.(x)"


@given(st.text())
def test_folding_twice_changes_nothing_and_keeps_places(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    assert len(fold(text)) == len(text)


@given(st.characters(), st.characters())
def test_letters_are_one_exactly_when_their_simple_upper_forms_are(one: str, other: str) -> None:
    def upper(letter: str) -> str:
        forms = [form for form in (letter.upper(), letter.title()) if len(form) == 1]
        return forms[0] if forms and forms[0].isascii() == letter.isascii() else letter

    assert (fold(one) == fold(other)) is (upper(one) == upper(other))
    assert fold(one) == fold(upper(one))
