"""The verb and the page: what they say is what the run was."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
import typer
from typer.testing import CliRunner

from mesaform.cli.main import build
from mesaform.common.errors import BadInput
from mesaform.simulator import svg
from mesaform.simulator.report import means
from mesaform.simulator.results import Level, percentile


class Page(HTMLParser):
    """Every element is closed, and nothing is fetched."""

    VOID = frozenset({"meta", "line", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.svgs = 0
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert tag not in {"script", "link", "img", "iframe"}
        assert not {"src", "href"} & {name for name, _ in attrs}
        self.svgs += tag == "svg"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def verb(*arguments: str) -> str:
    result = CliRunner().invoke(build(), ["simulate", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_the_page_stands_alone_and_has_a_plot_of_everything(tmp_path):
    file = tmp_path / "report.html"
    text = verb(
        "--synthetic",
        "burst",
        "--seed",
        "7",
        "--limit",
        "60",
        "--against",
        "all",
        "--html",
        str(file),
    )
    page = Page()
    page.feed(file.read_text(encoding="utf-8"))
    assert page.open == []
    # dollars (twice), disruptions, waiting (and percentiles), machines, utilisation; decisions
    assert page.svgs == 9 + 5
    assert "lower bound" in page.words
    for name in ("mesaform", "karpenter", "clusterman", "cluster-autoscaler"):
        assert name in text
        assert name in page.words
    assert "can cost less than" in " ".join(text.split())


@pytest.mark.slow
def test_json_has_the_figures_of_each_policy(tmp_path):
    (tmp_path / "quick.yaml").write_text("autoscaler: {idle_after_s: 10}\n", encoding="utf-8")
    (tmp_path / "slow.yaml").write_text("autoscaler: {idle_after_s: 900}\n", encoding="utf-8")
    files = [str(tmp_path / name) for name in ("quick.yaml", "slow.yaml", "quick.yaml")]
    answer = json.loads(
        verb(
            "--synthetic",
            "burst",
            "--limit",
            "40",
            "--policy",
            files[0],
            "-a",
            files[1],
            "-a",
            files[2],
            "--json",
            "--resumable",
        )
    )
    assert [item["name"] for item in answer["policies"]] == ["quick", "slow", "quick (3)"]
    quick, slow, again = answer["policies"]
    assert quick["usd"] == again["usd"] < slow["usd"]
    assert answer["least_usd"] <= quick["usd"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "one trace is needed"),
        (["--synthetic", "burst", "--against", "nomad"], "neither a policy file nor a baseline"),
        (["--synthetic", "burst", "--from", "soon"], "no length of time"),
        (["--synthetic", "burst", "--from", "9d"], "no task is left"),
        (
            ["--synthetic", "burst", "--limit", "1", "--html", "/no/such/folder/x.html"],
            "No such file",
        ),
    ],
)
def test_nonsense_on_the_command_line_is_refused(arguments, complaint):
    with pytest.raises(BadInput, match=complaint):
        verb(*arguments)


def test_means_are_weighted_by_time():
    levels = [Level(0, 2, 0, 0, 0, 0), Level(5, 4, 0, 0, 0, 0), Level(15, 0, 0, 0, 0, 0)]
    assert means(levels, 0, 20, 2, lambda level: level.machines) == [3.0, 2.0]


def test_percentiles_are_values_that_occurred():
    assert [percentile([1, 2, 3, 4], part) for part in (0.0, 0.25, 0.5, 0.51, 0.95, 1.0)] == [
        1,
        1,
        2,
        3,
        4,
        4,
    ]
    assert percentile([], 0.5) == 0.0


def test_axes_have_round_ticks():
    assert svg.nice(87) == [0, 20, 40, 60, 80, 100]
    assert svg.nice(0) == [0.0, 1.0]
    assert svg.times(3 * 86400, str).ticks[1] == 43200
    assert svg.waits(100, str).ticks == [1, 3, 10, 30, 60]
    assert svg.waits(100, str).at(10) == 0.5


def test_what_a_library_prints_is_not_in_our_output(capfd):
    import ctypes

    from mesaform.cli.native_stdout import redirect_native_stdout

    with redirect_native_stdout():
        ctypes.CDLL(None).puts(b"noise of a library")
    typer.echo("ours")
    assert capfd.readouterr() == ("ours\n", "noise of a library\n")
