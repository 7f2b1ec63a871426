"""The question of `mesaform up` before machines go out of service."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from mesaform.cli import confirm_changes as module
from mesaform.cli.confirm_changes import confirm_changes
from mesaform.cli.context import Context
from mesaform.common.errors import BadInput, Exit
from mesaform.config.schema import ClusterSpec, Network
from mesaform.provision.preview import MachineChange, Preview

PREVIEW = Preview((MachineChange("i-1", "master-1", "master", "replace", ("ami",)),))


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(module, "count_tasks", lambda _: {})
    spec = ClusterSpec(name="a", network=Network(cidr="127.60.0.0/16"))
    return Context(spec, tmp_path / "cluster.yaml", tmp_path)


class Terminal:
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_it_stops_with_exit_2_and_names_the_flag(context, monkeypatch):
    monkeypatch.setattr("sys.stdin", type("Pipe", (), {"isatty": lambda _: False})())
    with pytest.raises(BadInput, match="master-1") as caught:
        confirm_changes(context, PREVIEW, yes=False)
    assert caught.value.exit_code == Exit.BAD_INPUT
    assert "--yes" in caught.value.fix


def test_yes_and_no_changes_ask_nothing(context):
    confirm_changes(context, PREVIEW, yes=True)
    confirm_changes(context, Preview(is_synthesized=True), yes=False)


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_the_answer_decides(context, monkeypatch, answer):
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: answer)
    if answer:
        confirm_changes(context, PREVIEW, yes=False)
    else:
        with pytest.raises(typer.Exit):
            confirm_changes(context, PREVIEW, yes=False)
