"""What the pages point at is there: other pages, files, names in the code, settings, words."""

from __future__ import annotations

import importlib
import re
from itertools import chain
from pathlib import Path

import pydantic
import pytest

from mesaform.config.parser import parse
from mesaform.config.schema import ClusterSpec
from mesaform.placement.task_labels import ARCHITECTURE_LABEL
from mesaform.topology.ports import Port
from tests.unit.docs.pages import PAGES, REPOSITORY, anchors, blocks, links, name_of, prose, spans

FOLDERS = (
    "cluster",
    "docs",
    "images",
    "scripts",
    "stacks",
    "tests",
    "harness",
    "benchmarks",
    "node_modules",
)
_TYPES = {name: field.annotation for name, field in ClusterSpec.model_fields.items()}
SECTIONS = [
    name
    for name, result in _TYPES.items()
    if isinstance(result, type) and issubclass(result, pydantic.BaseModel)
]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_pages_resolve(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        result = (page.parent / target).resolve() if target else page
        assert result.exists(), f"{name_of(page)} leads to {target}, which is not there"
        if anchor:
            assert anchor in anchors(result), (
                f"{name_of(page)} leads to a heading that {target or 'it'} lacks: {anchor}"
            )


def test_every_page_below_docs_can_be_reached_from_the_readme() -> None:
    reached, todo = set[Path](), [REPOSITORY / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        result = [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
        pages = chain.from_iterable(
            sorted(target.glob("*.md")) if target.is_dir() else [target] for target in result
        )
        todo += [target for target in pages if target.suffix == ".md" and target not in reached]
    assert {name_of(page) for page in PAGES} <= {name_of(page) for page in reached}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_folders_named_on_a_page_exist(page: Path) -> None:
    for span in spans(page):
        if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./-]*", span) and not span.startswith(
            "node_modules/"
        ):
            assert (REPOSITORY / span).exists(), f"{name_of(page)} names {span}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_of_the_code_on_a_page_exist(page: Path) -> None:
    for span in spans(page):
        dotted = re.fullmatch(
            r"((?:mesaform|mesaform_stacks|mesaform_images)(?:\.[a-z_]+)+)(?:\.(\w+))?(?:\(\w*\))?",
            span,
        )
        if dotted and span != ARCHITECTURE_LABEL and not span.endswith((".yaml", ".json", ".py")):
            assert resolves(dotted.group(1), dotted.group(2)), f"{name_of(page)} names {span}"


def resolves(path: str, attribute: str | None) -> bool:
    """Whether a dotted path leads to a module, or to something in one."""
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError:
        head, _, tail = path.rpartition(".")
        return attribute is None and hasattr(importlib.import_module(head), tail)
    return attribute is None or hasattr(module, attribute)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_named_on_a_page_exist(page: Path) -> None:
    for span in spans(page):
        if re.fullmatch(rf"({'|'.join(SECTIONS)})(\.[a-z_]+)+", span) and not span.endswith(
            (".py", ".md")
        ):
            assert is_setting(span), f"{name_of(page)} names {span}"


def is_setting(path: str) -> bool:
    model: object = ClusterSpec
    for part in path.split("."):
        if (
            not (isinstance(model, type) and issubclass(model, pydantic.BaseModel))
            or part not in model.model_fields
        ):
            return False
        model = model.model_fields[part].annotation
    return True


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_cluster_files_on_a_page_can_be_used(page: Path) -> None:
    """A snippet without `version` and `name` is a part of a file; the required keys are added."""
    for block in blocks(page, "yaml"):
        text = block
        if "version:" not in block:
            text = f"version: 1\nname: demo\ntarget: local\n{block}"
            if "agents:" not in block:
                text += "agents:\n  - {name: default, count: 2, types: [m5.large]}\n"
        parse(text, name_of(page))


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 90


def test_the_glossary_is_in_alphabetical_order_and_says_each_word_once() -> None:
    words = re.findall(
        r"^\| ([a-z][\w -]*) \|",
        (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(words) > 20
    assert words == sorted(set(words))


def test_ports_on_the_pages_are_the_code_s() -> None:
    ours = {value for value in vars(Port).values() if isinstance(value, int)}
    shown = {
        int(port)
        for port in re.findall(
            r"\b(?:50\d\d|80\d\d|95\d\d|21\d\d|44\d\d)\b",
            prose(REPOSITORY / "docs" / "architecture.md"),
        )
    }
    assert shown <= ours, f"documented, but not the code's: {shown - ours}"
