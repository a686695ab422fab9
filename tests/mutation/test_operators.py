"""What counts as a small fault, and what is left alone."""

from __future__ import annotations

import ast

import pytest

from tests.mutation.operators import mutations


def changes(source: str) -> set[str]:
    return {make().key for make in mutations(source)}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return a < b", {"return a < b => return a <= b", "return a < b => return None"}),
        ("return a is not b", {"return a is not b => return a is b", "return a is not b => return None"}),
        ("return a in b", {"return a in b => return a not in b", "return a in b => return None"}),
        ("a = b and c", {"a = b and c => a = b or c"}),
        ("return False", {"return False => return True"}),
        ("a = not b", {"a = not b => a = b"}),
        ("a = b - c", {"a = b - c => a = b + c"}),
        ("a = 34", {"a = 34 => a = 35", "a = 34 => a = 2"}),
        ("a = True", {"a = True => a = False"}),
        ("a = 'word'", {"a = 'word' => a = 'word_'"}),
        ("a = min(b, c)", {"a = min(b, c) => a = max(b, c)"}),
        ("call(b)", {"call(b) => pass"}),
        ("a = call(b=c)", {"a = call(b=c) => a = call()"}),
        ("a += b", {"a += b => pass"}),
        ("raise Broken", {"raise Broken => pass"}),
    ],
)
def test_each_kind_of_fault(body: str, expected: set[str]) -> None:
    source = f"def work(a, b, c):\n    {body}\n"
    assert {key.removeprefix("work: ") for key in changes(source)} == expected


def test_a_condition_is_negated_and_the_statement_is_shown_without_its_body() -> None:
    source = "def work(a):\n    if a:\n        call()\n"
    assert changes(source) == {"work: if a: => if not a:", "work: call() => pass"}


def test_the_last_statement_that_is_removed_leaves_a_body() -> None:
    source = "def work():\n    call()\n"
    [removed] = [make() for make in mutations(source)]
    assert ast.unparse(removed.tree) == "def work():\n    pass"


def test_members_of_an_enumeration_take_each_other_s_place() -> None:
    source = "a = Kind.ASSESS\nb = Kind.INSTALL\nc = Other.ONLY\n"
    assert changes(source) == {
        ": a = Kind.ASSESS => a = Kind.INSTALL",
        ": b = Kind.INSTALL => b = Kind.ASSESS",
    }


@pytest.mark.parametrize(
    "source",
    [
        '"""A text of the module."""',
        "import os",
        "_LOG.warning('%s', 1)",
        "__all__ = ['a']",
        "type A = Literal['a']",
        "a = 'a sentence for people'",
        "a: int = Field(title='Title', description='Words', examples=['PT1M'])",
        "def work(a: Literal['b'] ) -> Literal['c']:\n    pass",
    ],
)
def test_what_no_test_should_notice_is_left_alone(source: str) -> None:
    assert changes(source) == set()


def test_a_setting_is_changed_by_much_and_not_by_one() -> None:
    assert changes("_PAGE = 250") == {": _PAGE = 250 => _PAGE = 14"}


def test_a_mutant_keeps_the_lines_of_its_source_and_names_what_it_binds() -> None:
    source = "\n\n_GRACE_POLLS = 4\n"
    mutant = mutations(source)[0]()
    assert mutant.line == 3
    assert mutant.names == {"_GRACE_POLLS"}
    assert mutant.function == ""


def test_only_what_runs_at_import_names_what_it_binds() -> None:
    source = "class A:\n    limit: int = 4\n    def work(self, most=5):\n        found = 6\n        return found\n"
    made = [make() for make in mutations(source)]
    by_text = {mutant.before: (mutant.function, mutant.names) for mutant in made}
    assert by_text == {
        "limit: int = 4": ("A", {"limit"}),
        "def work(self, most=5):": ("A.work", {"work"}),
        "found = 6": ("A.work", set()),
        "return found": ("A.work", set()),
    }


def test_mutants_of_a_real_module_compile_and_differ() -> None:
    with open("patchwave/domain/runs/commands.py", encoding="utf-8") as file:  # noqa: PTH123
        source = file.read()
    original = ast.dump(ast.parse(source))
    makers = mutations(source)
    assert len(makers) > 30
    for mutant in (make() for make in makers[::5]):
        compile(mutant.tree, "patchwave/domain/runs/commands.py", "exec")
        assert ast.dump(mutant.tree) != original
