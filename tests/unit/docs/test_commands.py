"""What the pages tell people to type exists, with those options and values."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from mesaform.cli.main import EPILOG, build
from mesaform.common.errors import Exit
from tests.unit.docs.pages import PAGES, REPOSITORY, Command, blocks, commands, prose, spans

PROGRAM = typer.main.get_command(build())
TYPED = list(chain.from_iterable(commands(page, "mesaform") for page in PAGES))


def resolve(words: tuple[str, ...]) -> tuple[Any, list[str]]:
    """The verb that the words lead to, and what is left for it."""
    command: Any = PROGRAM
    rest = list(words[1:])
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith(("-", "<")):
        result = command.commands.get(rest[0])
        assert result is not None, f"there is no verb {rest[0]}"
        command, rest = result, rest[1:]
    return command, rest


def options_of(command: Any) -> set[str]:
    return {
        "--help",
        *chain.from_iterable((*known.opts, *known.secondary_opts) for known in command.params),
    }


def test_pages_name_commands() -> None:
    assert sum(command.whole for command in TYPED) >= 5
    assert len(TYPED) >= 20


@pytest.mark.parametrize("command", TYPED, ids=str)
def test_a_command_on_a_page_exists_with_its_options(command: Command) -> None:
    verb, rest = resolve(command.words)
    ours = rest[: rest.index("--")] if "--" in rest else rest
    asked = {word.split("=")[0] for word in ours if word.startswith("-")}
    assert asked <= options_of(verb), f"{verb.name} has no {asked - options_of(verb)}"


@pytest.mark.parametrize("command", [each for each in TYPED if each.whole], ids=str)
def test_a_command_to_be_typed_is_accepted_as_it_stands(command: Command) -> None:
    verb, rest = resolve(command.words)
    if "--help" not in rest:
        verb.make_context(verb.name, [word for word in rest if word != "--help"])


def test_every_verb_is_on_a_page() -> None:
    assert isinstance(PROGRAM, TyperGroup)
    shown = {command.words[1] for command in TYPED if len(command.words) > 1} | set(
        chain.from_iterable(map(spans, PAGES))
    )
    assert set(PROGRAM.commands) <= shown, f"no page tells of {set(PROGRAM.commands) - shown}"


def test_every_make_target_on_a_page_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = {
        command.words[1]
        for page in PAGES
        for command in commands(page, "make")
        if len(command.words) > 1 and not command.words[1].startswith("<")
    }
    assert {"up", "down", "test"} <= named <= targets


def test_exit_codes_on_the_pages_are_the_program_s() -> None:
    text = " ".join(map(prose, PAGES))
    shown = re.search(r"Exit codes: (.*?)[.;]", text, re.DOTALL)
    assert shown is not None
    codes = {code.value for code in Exit}
    assert {int(code) for code in re.findall(r"\b\d+\b", shown.group(1))} == codes
    assert {int(code) for code in re.findall(r"\b\d+\b", EPILOG)} == codes


def test_lines_to_be_typed_have_a_prompt() -> None:
    for page in PAGES:
        for block in blocks(page, "console"):
            assert block.startswith("$ "), f"{page.name}: a console block starts with what is typed"


def test_the_table_of_commands_on_the_first_page_has_every_verb() -> None:
    table = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("## Commands")[1]
    rows = [line for line in table.split("##")[0].splitlines() if line.startswith("|")]
    assert isinstance(PROGRAM, TyperGroup)
    assert set(re.findall(r"`([a-z]+)`", "\n".join(rows))) == set(PROGRAM.commands)
