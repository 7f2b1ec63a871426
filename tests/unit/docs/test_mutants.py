"""Every entry of tests/mutants.toml fits the present code: no run of the mutants is needed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MUTANTS = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text())["mutants"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant["id"] for mutant in MUTANTS])
def test_the_fragment_occurs_once_and_the_tests_exist(mutant: dict) -> None:
    assert (ROOT / mutant["file"]).read_text().count(mutant["old"]) == 1, mutant["file"]
    for test in mutant["tests"]:
        file, *names = test.split("::")
        text = (ROOT / file).read_text()
        for name in names:
            assert f" {name.partition('[')[0]}" in text, test
