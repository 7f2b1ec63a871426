"""Parser of the documentation: commands, links, code, settings. Text in, values out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
PAGES = (*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md")))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_ENDS = frozenset({"|", "||", "&", "&&", ";", ">", ">>", ")"})


@dataclass(frozen=True, slots=True)
class Command:
    """A command line on a page. `whole` commands can be typed as they stand."""

    page: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """What stands between backticks in a line of prose."""
    return _SPAN.findall(prose(page))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [
        text
        for result, text in _FENCE.findall(page.read_text(encoding="utf-8"))
        if result == language
    ]


def links(page: Path) -> list[str]:
    """Where the page's links lead, without those that leave the repository."""
    return [
        link
        for link in _LINK.findall(prose(page))
        if "://" not in link and not link.startswith("mailto:")
    ]


def anchors(page: Path) -> set[str]:
    """The names of the page's headings, as forges make them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in _HEADING.findall(prose(page))
    }


def commands(page: Path, program: str) -> Iterator[Command]:
    """Every line that runs `program`: in blocks after the prompt, in prose between backticks."""
    typed = [
        line
        for language in ("console", "")
        for block in blocks(page, language)
        for line in _typed(block)
    ]
    for line, whole in [
        *((line, True) for line in typed),
        *((span, False) for span in spans(page)),
    ]:
        for words in _calls(line, program):
            yield Command(name_of(page), words, whole)


def _typed(block: str) -> Iterator[str]:
    """Lines after a prompt, with their continuations; a line with `mesaform` counts as well."""
    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            yield line[2:]
        elif line.startswith("mesaform "):
            yield line


def _calls(line: str, program: str) -> Iterator[tuple[str, ...]]:
    """Each call of the program in a line of shell, up to the next operator."""
    lexer = shlex.shlex(
        line.replace('"$(', " ").replace("$(", " ").replace(')"', " ) "),
        posix=True,
        punctuation_chars="();|&",
    )
    lexer.whitespace_split = True
    words = list(lexer)
    for at, word in enumerate(words):
        if word == program and (at == 0 or words[at - 1] in _ENDS | {"eval"}):
            rest = words[at + 1 :]
            end = next((index for index, other in enumerate(rest) if other in _ENDS), len(rest))
            yield (program, *rest[:end])
