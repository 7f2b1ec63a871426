"""The doctor's check of the operator's machine, and what containers need of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mesaform.config.parser import parse
from mesaform.doctor.finding import Level
from mesaform.doctor.operator_machine import CHECK, look
from mesaform.doctor.subject import Caller, Examination, Subject
from mesaform.localcloud.containers import prerequisites

SPEC = parse("name: toy\ntarget: local\nlocal: {machines: containers}\n")
SUBJECT = Subject(SPEC)
CALLER = Caller("123456789012", "arn:aws:iam::123456789012:user/a")


def test_each_missing_thing_is_an_error_with_its_remedy() -> None:
    lacks = (("nft is missing", "apt-get install nftables"),)
    (finding,) = look(Examination(replace(SUBJECT, lacks=lacks), CALLER))
    assert (finding.check, finding.level) == (CHECK, Level.ERROR)
    assert (finding.detail, finding.remedy) == lacks[0]


def test_a_complete_machine_is_one_line_and_one_that_nobody_looked_at_is_none() -> None:
    (finding,) = look(Examination(replace(SUBJECT, lacks=()), CALLER))
    assert finding.level is Level.OK
    assert "containers" in finding.detail
    assert list(look(Examination(SUBJECT, CALLER))) == []


def test_a_host_without_the_programs_of_containers_gets_a_remedy_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lacks = {lack.what: lack.fix for lack in prerequisites.find_lacks()}
    for program, package in prerequisites.PROGRAMS.items():
        assert lacks[f"{program} is missing"] == f"apt-get install {package}"
    assert lacks["debootstrap is missing"] == "apt-get install debootstrap"
    assert "mesaform local base-image" in lacks["there is no base image"]
