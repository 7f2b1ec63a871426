"""The project files agree with each other: licence, metadata, changelog, CI, hooks, contributing.

Reads files only. Pages are taken apart by `tests.unit.docs.pages`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.docs.pages import REPOSITORY, blocks, commands, links, spans

PYPROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
MAKEFILE = (REPOSITORY / "Makefile").read_text("utf-8")
README = REPOSITORY / "README.md"
CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
CONTRIBUTING = REPOSITORY / "CONTRIBUTING.md"
CONTRIBUTING_TEXT = CONTRIBUTING.read_text("utf-8")
GITHUB = REPOSITORY / ".github"
WORKFLOW = GITHUB / "workflows" / "ci.yml"
ACTIONS = (WORKFLOW, *sorted((GITHUB / "actions").rglob("action.yml")))
FORMS = [GITHUB / "ISSUE_TEMPLATE" / name for name in ("bug.yml", "feature.yml")]
RECORDS = sorted((REPOSITORY / "docs" / "adr").glob("[0-9]*.md"))

APACHE_2_SHA256 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of https://www.apache.org/licenses/LICENSE-2.0.txt."""

CHANGE_SECTIONS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
"""The sections of Keep a Changelog 1.1.0."""

RELEASE = re.compile(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d{2}-\d{2})(?: \[YANKED\])?")
"""The heading of a release in Keep a Changelog 1.1.0."""

PYTHON_CLASSIFIER = "Programming Language :: Python :: "

MAX_COLUMNS = 100
COLUMN_LIMITED = (
    *(REPOSITORY / name for name in ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "SECURITY.md")),
    CONTRIBUTING,
    REPOSITORY / "README.md",
    REPOSITORY / "SCOPE.md",
    *sorted(
        path
        for path in (REPOSITORY / "docs").rglob("*.md")
        if path.name != "engine.md"  # its generated tables are wider
    ),
    *sorted(path for path in GITHUB.rglob("*") if path.is_file()),
)


def read_yaml(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return document


def steps_of(path: Path) -> list[dict[str, Any]]:
    """The steps of all jobs of a workflow, or of a composite action."""
    document = read_yaml(path)
    if "runs" in document:
        steps: list[dict[str, Any]] = document["runs"]["steps"]
        return steps
    return [step for job in document["jobs"].values() for step in job["steps"]]


def read_hooks() -> list[dict[str, Any]]:
    """The pre-commit hooks of all repositories."""
    repositories = read_yaml(REPOSITORY / ".pre-commit-config.yaml")["repos"]
    return [hook for repository in repositories for hook in repository["hooks"]]


def program_of(hook: dict[str, Any]) -> str:
    """The first word of what a hook runs."""
    return shlex.split(hook["entry"])[0]


def typed_lines(page: Path) -> list[str]:
    """The lines after a prompt in the page's console blocks."""
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def is_command(word: str) -> bool:
    """Whether a program exists: in the checkout, in the environment or on the PATH."""
    if word.startswith(".venv/bin/"):
        return os.access(Path(sys.prefix) / "bin" / word.removeprefix(".venv/bin/"), os.X_OK)
    if "/" in word:
        return os.access(REPOSITORY / word, os.X_OK)
    return shutil.which(word) is not None


# --- licence and metadata


def test_the_licence_is_the_unchanged_text_of_the_expression_in_pyproject() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    digest = hashlib.sha256((REPOSITORY / "LICENSE").read_bytes()).hexdigest()
    assert digest == APACHE_2_SHA256


def test_the_wheel_contains_the_licence_and_the_notice() -> None:
    assert PROJECT["license-files"] == ["LICENSE", "NOTICE"]
    assert all((REPOSITORY / name).is_file() for name in PROJECT["license-files"])


def test_no_classifier_repeats_the_licence() -> None:
    """PEP 639 rejects licence classifiers beside an expression."""
    assert not [each for each in PROJECT["classifiers"] if each.startswith("License ::")]


def test_the_notice_names_the_authors_of_pyproject() -> None:
    authors = [author["name"] for author in PROJECT["authors"]]
    notice = (REPOSITORY / "NOTICE").read_text("utf-8")
    assert authors == re.findall(r"^Copyright \d{4} (.+)$", notice, re.MULTILINE)


def test_the_package_declares_its_types() -> None:
    assert "Typing :: Typed" in PROJECT["classifiers"]
    assert (REPOSITORY / "cluster" / "py.typed").is_file()


# --- changelog


def test_the_changelog_begins_with_unreleased_changes() -> None:
    headings = re.findall(r"^(#+) (.+)$", CHANGELOG, re.MULTILINE)
    assert headings[0] == ("#", "Changelog")
    assert headings[1] == ("##", "[Unreleased]")


def test_releases_in_the_changelog_have_a_version_and_a_date_the_latest_first() -> None:
    released = []
    for heading in re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)[1:]:
        match = RELEASE.fullmatch(heading)
        assert match is not None, heading
        major, minor, patch, day = match.groups()
        released.append((int(major), int(minor), int(patch), date.fromisoformat(day)))
    assert released == sorted(released, reverse=True)


def test_each_version_in_the_changelog_has_a_link() -> None:
    versions = re.findall(r"^## \[([^\]]+)\]", CHANGELOG, re.MULTILINE)
    targets = re.findall(r"^\[([^\]]+)\]: https://", CHANGELOG, re.MULTILINE)
    assert versions == targets


def test_changes_stand_in_the_sections_of_keep_a_changelog_a_line_each() -> None:
    for version in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        preamble, *sections = re.split(r"^### ", version, flags=re.MULTILINE)
        assert len(preamble.strip().splitlines()) == 1, f"changes outside of a section: {preamble}"
        names = [section.splitlines()[0] for section in sections]
        assert names == [name for name in CHANGE_SECTIONS if name in names]
        for section in sections:
            lines = [line for line in section.splitlines()[1:] if line and not line.startswith("[")]
            assert lines
            assert not [line for line in lines if not re.fullmatch(r"- [A-Z`].*\.", line)]


# --- continuous integration


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in [line.split("#")[0].strip() for line in typed_lines(README)]
    runs = [step.get("run") for step in steps_of(WORKFLOW)]
    assert {"make test", "make test-fast", "MESAFORM_TEST_PROFILE=nightly make test"} <= set(runs)
    assert "make test" in (REPOSITORY / ".ci" / "run").read_text("utf-8")


def test_ci_tests_each_python_of_the_classifiers() -> None:
    versions = read_yaml(WORKFLOW)["jobs"]["test-fast"]["strategy"]["matrix"]["python"]
    classified = [each.removeprefix(PYTHON_CLASSIFIER) for each in PROJECT["classifiers"]]
    assert versions == [each for each in classified if re.fullmatch(r"3\.\d+", each)]
    assert PROJECT["requires-python"] == f">={versions[0]}"


@pytest.mark.parametrize("path", ACTIONS, ids=lambda path: path.parent.name)
def test_ci_uses_actions_of_a_fixed_major_version(path: Path) -> None:
    used = [step["uses"] for step in steps_of(path) if "uses" in step]
    assert used
    for action in used:
        if action.startswith("./"):
            assert (REPOSITORY / action / "action.yml").is_file()
        else:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", action), action


@pytest.mark.parametrize("path", ACTIONS, ids=lambda path: path.parent.name)
def test_ci_needs_no_secret_and_names_no_host(path: Path) -> None:
    text = path.read_text("utf-8")
    assert "secrets." not in text
    assert "://" not in text


def test_ci_may_only_read_the_repository() -> None:
    assert read_yaml(WORKFLOW)["permissions"] == {"contents": "read"}


# --- hooks


def test_hooks_come_from_the_checkout() -> None:
    repositories = read_yaml(REPOSITORY / ".pre-commit-config.yaml")["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]


@pytest.mark.parametrize("hook", read_hooks(), ids=lambda hook: hook["id"])
def test_a_hook_calls_an_existing_command(hook: dict[str, Any]) -> None:
    assert hook["language"] == "system"
    assert is_command(program_of(hook))


def test_hooks_run_every_check_of_make_check() -> None:
    recipe = re.search(r"^check:.*\n((?:\t.+\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None
    programs = {Path(line.split()[0]).name for line in recipe.group(1).splitlines()}
    assert programs <= {Path(program_of(hook)).name for hook in read_hooks()}


# --- contributing


def test_make_targets_named_in_contributing_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    named = {target for call in commands(CONTRIBUTING, "make") for target in call.words[1:]}
    assert {"setup", "check", "test-fast", "test", "bench"} <= named <= targets


def test_paths_named_in_contributing_exist() -> None:
    path = re.compile(r"\.?[\w-]+/[\w./-]*|[\w-]+\.(?:md|toml|json)")
    named = {span for span in spans(CONTRIBUTING) if path.fullmatch(span)}
    models = re.findall(r"^\|[^|]+\| `([\w-]+/[\w-]+)` \|$", CONTRIBUTING_TEXT, re.MULTILINE)
    assert len(named) > len(models) > 0
    assert not [each for each in named - set(models) if not (REPOSITORY / each).exists()]


def test_commands_to_be_typed_in_contributing_exist() -> None:
    programs = {line.split()[0] for line in typed_lines(CONTRIBUTING)}
    assert programs
    # `cd` belongs to the shell; contributors install pre-commit themselves.
    assert not [each for each in programs - {"cd", "pre-commit"} if not is_command(each)]


def test_paths_given_to_commands_in_contributing_exist() -> None:
    words = [word for block in blocks(CONTRIBUTING, "console") for word in block.split()]
    paths = [each for each in words if re.fullmatch(r"[\w-]+/[\w./-]+|[\w-]+\.(?:toml|lock)", each)]
    assert paths
    assert not [path for path in paths if not (REPOSITORY / path).exists()]


def test_contributing_explains_the_markers_of_pytest() -> None:
    declared = PYPROJECT["tool"]["pytest"]["ini_options"]["markers"]
    markers = {marker.partition(":")[0] for marker in declared}
    assert markers <= set(spans(CONTRIBUTING))


def test_contributing_and_the_hook_agree_on_the_length_of_a_subject() -> None:
    script = (REPOSITORY / "scripts" / "check-commit-message").read_text("utf-8")
    limit = re.search(r"^readonly LIMIT=(\d+)$", script, re.MULTILINE)
    assert limit is not None
    assert f"at most {limit.group(1)} characters" in CONTRIBUTING_TEXT


# --- other files


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_a_label_and_an_id_for_each_question(path: Path) -> None:
    form = read_yaml(path)
    assert form["name"]
    assert form["description"]
    questions = [item for item in form["body"] if item["type"] != "markdown"]
    ids = [item["id"] for item in questions]
    assert len(set(ids)) == len(ids)
    assert all(item["attributes"]["label"] for item in questions)


def test_the_index_of_decisions_lists_every_record_in_order() -> None:
    linked = links(REPOSITORY / "docs" / "adr" / "README.md")
    listed = [link for link in linked if link[0].isdigit()]
    assert listed == [path.name for path in RECORDS]


def test_numbers_of_decisions_are_used_once() -> None:
    numbers = [path.name[:4] for path in RECORDS]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("path", COLUMN_LIMITED, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_project_file_keeps_to_the_column_limit(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert not [number for number, line in enumerate(lines, 1) if len(line) > MAX_COLUMNS]


def test_lock_files_name_no_registry() -> None:
    pulumi = "stacks/pulumi/requirements.lock"
    for name in (
        "requirements.lock",
        "images/requirements.lock",
        "images/bootstrap.lock",
        "images/ansible.lock",
        pulumi,
    ):
        assert "://" not in (REPOSITORY / name).read_text("utf-8")
    packages = json.loads((REPOSITORY / "package-lock.json").read_text("utf-8"))["packages"]
    assert not [name for name, package in packages.items() if "resolved" in package]


def test_the_extra_for_pulumi_is_what_its_lock_is_made_from() -> None:
    project = PYPROJECT["project"]
    folder = REPOSITORY / "stacks" / "pulumi"
    lines = (folder / "requirements.in").read_text("utf-8").splitlines()
    wanted = project["optional-dependencies"]["pulumi"]
    assert [line for line in lines if not line.startswith("#")] == wanted
    locked = (folder / "requirements.lock").read_text("utf-8")
    assert [name for name in wanted if "==" in name and f"{name} \\" not in locked] == []


def test_the_program_needs_everything_that_a_machine_of_a_cluster_needs() -> None:
    lines = (REPOSITORY / "images/requirements.in").read_text().splitlines()
    node = {line for line in lines if line and not line.startswith("#")}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert node <= set(project["dependencies"])
