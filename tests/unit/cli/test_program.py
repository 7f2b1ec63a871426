"""The program as a person meets it: help, bad input, the lock, and an empty place."""

from __future__ import annotations

import fcntl
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mesaform.cli.main import VERBS, build
from mesaform.cli.progress import JsonLines, Lines
from mesaform.common.durations import format_duration
from mesaform.common.errors import BadInput
from mesaform.common.progress import Recorded, stage

GOOD = (
    "version: 1\nname: one\ntarget: local\n"
    "agents:\n  - {name: default, count: 2, types: [m5.large]}\n"
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "cluster.yaml").write_text(GOOD)
    return tmp_path


def mesaform(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The real program in a folder, with nothing in its environment that leads to a cloud."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MESAFORM_"))
    }
    environment |= {
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(place),
    }
    command = [sys.executable, "-m", "mesaform.cli.main", *arguments]
    return subprocess.run(
        command,
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_verb() -> None:
    shown = CliRunner().invoke(build(), ["--help"])
    assert shown.exit_code == 0
    assert all(verb in shown.output for verb in VERBS)


@pytest.mark.slow
def test_a_verb_imports_nothing_of_other_verbs(place: Path) -> None:
    program = """
import sys
from mesaform.cli.main import main
try:
    main(["local", "status"])
except SystemExit:
    pass
assert "mesaform.localcloud.daemon" in sys.modules
assert not {"numpy", "botocore", "mesaform.autoscaler.planner"} & set(sys.modules)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=place, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_version_is_printed() -> None:
    shown = CliRunner().invoke(build(), ["--version"])
    assert (shown.exit_code, shown.output.split()[0]) == (0, "mesaform")


@pytest.mark.parametrize("verb", ["up", "down", "status"])
def test_an_unknown_option_is_bad_input(verb: str) -> None:
    assert CliRunner().invoke(build(), [verb, "--nonsense"]).exit_code == 2


@pytest.mark.parametrize("verb", ["up", "down", "status"])
def test_a_file_that_is_no_cluster_is_refused_before_anything_is_made(
    verb: str, place: Path
) -> None:
    (place / "cluster.yaml").write_text(GOOD.replace("count: 2", "cuont: 2"))
    shown = CliRunner().invoke(build(), [verb, "--file", str(place / "cluster.yaml")])
    assert isinstance(shown.exception, BadInput)
    assert [path.name for path in place.iterdir()] == ["cluster.yaml"]


@pytest.mark.slow
def test_bad_input_is_exit_code_2_with_the_field_named(place: Path) -> None:
    (place / "cluster.yaml").write_text(GOOD.replace("count: 2", "cuont: 2"))
    ended = mesaform(place, "up", "--yes")
    assert ended.returncode == 2
    assert "cuont" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_down_where_nothing_ever_was_says_so_and_makes_nothing(place: Path) -> None:
    ended = mesaform(place, "down", "--yes", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"cluster": "one", "left": []}
    assert not (place / ".mesaform" / "local").exists()


@pytest.mark.slow
def test_status_where_nothing_runs_is_exit_code_1_and_still_json(place: Path) -> None:
    ended = mesaform(place, "status", "--json")
    assert ended.returncode == 1, ended.stderr
    report = json.loads(ended.stdout)
    assert report["leader"] is None
    assert report["unreachable"][0]["source"] == "local cloud"


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["up"])
def test_a_second_run_at_the_same_time_names_the_first(verb: str, place: Path) -> None:
    folder = place / ".mesaform" / "clusters" / "one"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("pid 4711: mesaform up")
        lock.flush()
        ended = mesaform(place, verb, "--yes")
    assert ended.returncode == 4
    assert "pid 4711" in ended.stderr


@pytest.mark.slow
def test_without_credentials_aws_is_a_missing_prerequisite(place: Path) -> None:
    network = "network: {cidr: 10.42.0.0/16, operator_cidrs: [203.0.113.7/32]}"
    (place / "cluster.yaml").write_text(GOOD.replace("target: local", f"target: aws\n{network}"))
    ended = mesaform(place, "down")
    assert ended.returncode == 3, ended.stderr
    assert "AWS_PROFILE" in ended.stderr


def test_a_wrong_confirmation_is_refused(place: Path) -> None:
    shown = CliRunner().invoke(
        build(), ["down", "--file", str(place / "cluster.yaml"), "--confirm", "other"]
    )
    assert isinstance(shown.exception, BadInput)


def test_progress_without_a_terminal_is_a_line_a_change_and_not_too_many() -> None:
    now, out = [0.0], io.StringIO()
    lines = Lines(out, clock=lambda: now[0])
    with stage(lines, "Deploy") as under_way:
        for _ in range(50):
            now[0] += 0.1
            under_way.advance("busy")
        under_way.outcome = "12 resources"
    report = out.getvalue().splitlines()
    assert report[0].endswith("Deploy")
    assert report[-1] == "✓    5.0 s  Deploy: 12 resources"
    assert len(report) == 3


def test_a_stage_with_nothing_new_to_say_shows_that_it_lives_each_quarter_of_a_minute() -> None:
    now, out = [0.0], io.StringIO()
    lines = Lines(out, clock=lambda: now[0])
    with stage(lines, "Deploy") as under_way:
        for second in range(41):
            now[0] += 1.0
            under_way.advance("busy" if second < 35 else "nearly done")
    assert [line.split("  ")[-1] for line in out.getvalue().splitlines()] == [
        "Deploy", "Deploy: busy", "Deploy: busy", "Deploy: busy", "Deploy: nearly done", "Deploy",
    ]  # fmt: skip


def test_a_stage_that_fails_is_shown_with_the_first_line_of_why() -> None:
    report = Recorded()
    with pytest.raises(ValueError, match="no"), stage(report, "Deploy"):
        raise ValueError("no\nsuch thing")
    assert report.events == [("started", "Deploy", ""), ("failed", "Deploy", "no")]


def test_progress_for_programs_is_a_json_object_a_line() -> None:
    out = io.StringIO()
    with stage(JsonLines(out), "Deploy"):
        pass
    assert [json.loads(line)["state"] for line in out.getvalue().splitlines()] == [
        "started",
        "done",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (90000, "1 d 1 h")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
