"""A failed `up` shows the end of the console and of the log of the machine that did not come up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from mesaform.cli import machine_console
from mesaform.cli.machine_console import CONSOLE_LINES, console_tail


class Ec2:
    """GetConsoleOutput of a type without Nitro, which refuses `Latest`."""

    def __init__(self, output: str | None, *, has_nitro: bool = True) -> None:
        self.output = output
        self.has_nitro = has_nitro

    def get_console_output(self, **arguments: Any) -> dict[str, Any]:
        if "Latest" in arguments and not self.has_nitro:
            error = {"Error": {"Code": "UnsupportedOperation", "Message": "not supported"}}
            raise ClientError(error, "GetConsoleOutput")  # type: ignore[arg-type]
        return {} if self.output is None else {"Output": self.output}


def test_the_end_of_the_console_is_shown() -> None:
    text = "\r\n".join(f"line {number}" for number in range(100)) + "\r\n\r\n"
    lines = console_tail(Ec2(text), "i-1")
    assert len(lines) == CONSOLE_LINES
    assert lines[-1] == "line 99"


def test_a_type_without_nitro_shows_its_console_as_well() -> None:
    assert console_tail(Ec2("node: refused", has_nitro=False), "i-1") == ["node: refused"]


def test_a_machine_without_a_console_shows_none() -> None:
    assert console_tail(Ec2(None), "i-1") == []


def test_the_log_of_a_local_machine_is_named_and_its_end_shown(tmp_path: Path) -> None:
    log = tmp_path / "log" / "engine-master.log"
    log.parent.mkdir()
    log.write_text("one\n" * 100 + "the port is taken\n")
    shown = "".join(machine_console._local_log(tmp_path, "engine-master"))
    assert str(log) in shown
    assert shown.endswith("the port is taken")
    assert str(tmp_path) in "".join(machine_console._local_log(tmp_path, "services"))
