"""docs/security.md names a test that exists for each attempt."""

from __future__ import annotations

import re

import pytest

from tests.unit.docs.pages import REPOSITORY

PAGE = (REPOSITORY / "docs" / "security.md").read_text()
ATTEMPTS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for part in PAGE.split("| Attempt |")[1:]
    for line in part.partition("\n\n")[0].splitlines()[2:]
]


def listed_tests() -> dict[int, tuple[str, str]]:
    """File and function of each test by its number; the function is empty for a whole file."""
    tests = {}
    for part in PAGE.partition("## Tests")[2].split("\n\n")[1:]:
        head, *lines = part.strip().splitlines()
        for line in lines:
            number, _, name = line.removeprefix("- ").partition(": ")
            tests[int(number)] = (head.strip("`"), name.strip("`") if "`" in name else "")
    return tests


def test_each_attempt_has_a_reason_and_tests_of_the_list() -> None:
    assert ATTEMPTS
    numbers = [int(number) for row in ATTEMPTS for number in row[2].split(",")]
    numbers += [int(number) for number in re.findall(r"\(test (\d+)\)", PAGE)]
    assert sorted(set(numbers)) == sorted(listed_tests())
    assert all(row[1] for row in ATTEMPTS)


@pytest.mark.parametrize("number", listed_tests())
def test_a_test_of_the_list_exists(number: int) -> None:
    file, function = listed_tests()[number]
    text = (REPOSITORY / "tests" / file).read_text()
    assert not function or f"def {function}(" in text
