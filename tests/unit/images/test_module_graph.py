"""Static analysis finds every module that a program can import."""

from __future__ import annotations

import pytest

from mesaform_images.module_graph import imports_of, module_name, reachable


def reached_from(root: str, **sources: str) -> set[str]:
    named = {name.replace("__", "."): text.encode() for name, text in sources.items()}
    return set(reachable([root], named))


def test_a_file_is_named_as_python_names_its_module() -> None:
    assert module_name("mesaform/node/main.py") == "mesaform.node.main"
    assert module_name("mesaform/node/__init__.py") == "mesaform.node"


def test_modules_are_reached_through_others_with_their_packages() -> None:
    reached = reached_from(
        "p.a", p="", p__a="import p.q.b", p__q="", p__q__b="from p import c", p__c="", p__d=""
    )
    assert reached == {"p", "p.a", "p.q", "p.q.b", "p.c"}


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    import p.b",
        "class C:\n    async def f(self):\n        from p import b",
        "try:\n    pass\nexcept ValueError:\n    from p.b import x",
        "if x:\n    pass\nelse:\n    import p.b",
        "match x:\n    case 1:\n        import p.b",
        "with x:\n    for y in z:\n        import p.b",
        "from . import b",
        "from .b import x",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import p.b",
    ],
)
def test_imports_count_wherever_they_stand(text: str) -> None:
    assert "p.b" in reached_from("p.a", p="", p__a=text, p__b="")


@pytest.mark.parametrize("test", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_imports_for_type_checkers_do_not_count(test: str) -> None:
    text = f"if {test}:\n    import p.b"
    assert reached_from("p.a", p="", p__a=text, p__b="") == {"p", "p.a"}


def test_relative_imports_refer_to_the_package_of_the_module() -> None:
    assert "a.b.c" in imports_of(b"from .c import x", "a.b")
    assert "a.c" in imports_of(b"from ..c import x", "a.b")
    assert "a.c" in imports_of(b"from .. import c", "a.b")


def test_cycles_of_imports_end() -> None:
    assert reached_from("p.a", p="", p__a="import p.b", p__b="import p.a") == {"p", "p.a", "p.b"}


def test_a_root_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError):
        reached_from("p.a", p="")
