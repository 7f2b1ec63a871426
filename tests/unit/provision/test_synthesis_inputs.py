"""A synthesis is not repeated while nothing that it reads has changed, and its files are whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mesaform.cli.context import Context
from mesaform.config.schema import ClusterSpec
from mesaform.provision import synthesis_inputs
from mesaform.provision.authority import certificates_file
from mesaform.provision.state_folders import STACKS, stack_dir, synth_dir
from mesaform.provision.synthesis_inputs import digest_inputs, forget, is_current, remember

ENVIRONMENT = {"MESAFORM_IMAGE_ID": "ami-1", "MESAFORM_UPGRADED_ROLES": "", "TERM": "xterm"}


@pytest.fixture
def place(tmp_path: Path) -> Context:
    """A cluster's folder after a synthesis."""
    file = tmp_path / "cluster.yaml"
    file.write_text("name: a\n")
    context = Context(ClusterSpec(name="a"), file, tmp_path / ".mesaform")
    for stack in STACKS:
        stack_dir(context.cluster_dir, stack).mkdir(parents=True)
        (stack_dir(context.cluster_dir, stack) / "cdk.tf.json").write_text("{}")
    (synth_dir(context.cluster_dir) / "manifest.json").write_text("{}")
    (context.cluster_dir / "deployment.json").write_text("{}")
    remember(context.cluster_dir, digest_inputs(context, ENVIRONMENT))
    return context


def is_repeated(place: Context, environment: dict[str, str] = ENVIRONMENT) -> bool:
    return not is_current(place.cluster_dir, digest_inputs(place, environment))


def test_an_equal_synthesis_is_not_repeated(place: Context) -> None:
    assert not is_repeated(place)
    assert not is_repeated(place, {**ENVIRONMENT, "TERM": "dumb", "AWS_PROFILE": "other"})


def write(name: str, text: str) -> Callable[[Context], object]:
    return lambda place: (place.cluster_dir / name).write_text(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda place: place.file.write_text("name: a # and a comment\n"),
        write("deployment.json", '{"deployment_id": "other"}'),
        lambda place: certificates_file(place.cluster_dir).write_text("a certificate"),
        write("cdktf.out/stacks/masters/cdk.tf.json", '{"by": "another hand"}'),
        write("cdktf.out/manifest.json", '{"stacks": {}}'),
        lambda place: (place.cluster_dir / "cdktf.out/stacks/agents/cdk.tf.json").unlink(),
        lambda place: forget(place.cluster_dir),
    ],
    ids=["file", "record", "CA", "stack", "manifest", "a stack less", "cut short"],
)
def test_what_a_synthesis_reads_or_wrote_repeats_it(
    place: Context, change: Callable[[Context], object]
) -> None:
    change(place)
    assert is_repeated(place)


@pytest.mark.parametrize("name", ["MESAFORM_IMAGE_ID", "MESAFORM_UPGRADED_ROLES", "MESAFORM_NEW"])
def test_another_variable_of_the_program_repeats_it(place: Context, name: str) -> None:
    assert is_repeated(place, {**ENVIRONMENT, name: "other"})


def test_changed_code_repeats_it(
    place: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "code" / "a_package_of_stacks"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(synthesis_inputs, "CODE", (package.name,))
    remember(place.cluster_dir, digest_inputs(place, ENVIRONMENT))
    assert not is_repeated(place)
    (package / "__init__.py").write_text("changed = True\n")
    assert is_repeated(place)
