"""A cluster on the local cloud, used only through the `mesaform` program and public ports."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import boto3

from harness.installation import Installation
from harness.networks import claim_net
from harness.ports import free_port

T = TypeVar("T")
POLL_S = 0.25
CACHE = "MESAFORM_CACHE_DIR"
REPOSITORY = Path(__file__).parents[1]

CLUSTER = """\
version: 1
name: {name}
target: local
network:
  cidr: {cidr}
agents:
  - name: default
    count: 2
    types: [m5.large, m5.xlarge, m5.2xlarge]
    max: 12
autoscaler:
  idle_after_s: 5
"""


def until(what: str, look: Callable[[], T | None], timeout_s: float, poll_s: float = POLL_S) -> T:
    """The first true answer of `look`; fails with `what` when there is none in time."""
    deadline = time.monotonic() + timeout_s
    last: object = None
    while time.monotonic() < deadline:
        last = look()
        if last:
            return last  # type: ignore[return-value]
        time.sleep(poll_s)
    raise AssertionError(f"not within {timeout_s:.0f} s: {what}; last seen: {last!r}")


def _rows_of_why(lines: list[str]) -> list[str]:
    """The rows of the table of `mesaform why`, each of which may take several lines."""
    head = next(line for line in lines if line.split()[:3] == ["time", "what", "why"])
    what, why = head.index("what"), head.index("why")
    rows: list[tuple[list[str], list[str], str]] = []
    for line in lines[lines.index(head) + 1 :]:
        is_continued = line[:what].isspace()
        if not (is_continued or re.match(r" \d", line)):
            continue  # a sentence below the table
        cells, usd = _split_off_usd(line)
        if not is_continued:
            rows.append(([], [], usd))
        rows[-1][0].append(cells[what:why].strip())
        rows[-1][1].append(cells[why:].strip())
    return [" | ".join((_words(first), _words(second), usd)) for first, second, usd in rows]


def _words(cells: list[str]) -> str:
    return " ".join(filter(None, cells))


def _split_off_usd(line: str) -> tuple[str, str]:
    """A line and the dollars at its end; without dollars an empty string."""
    text, _, usd = line.rstrip().rpartition(" ")
    is_usd = usd[:1] in {"+", "-"} and usd[1:].replace(".", "").isdigit()
    return (text, usd) if is_usd else (line, "")


def _runs(pid: int, command: tuple[str, ...], variables: set[bytes]) -> bool:
    """Whether a process's command line ends so, and its environment has one of the variables."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[-len(command) :] == list(command) and bool(variables & set(environment))


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


def without_settings(inherited: Mapping[str, str]) -> dict[str, str]:
    """An environment without what a person has set for AWS and for mesaform."""
    return {
        key: value
        for key, value in inherited.items()
        if not key.startswith(("AWS_", "MESAFORM_")) or key == CACHE
    }


class ClusterHarness:
    """One cluster in a folder of its own, of this checkout or of an installed wheel.

    Without a `cidr` it claims a network. With `mesos`, the prefix of an Apache Mesos, that is its
    engine.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        cidr: str = "",
        template: str = CLUSTER,
        installed: Installation | None = None,
        mesos: Path | None = None,
    ) -> None:
        self._claim = None if cidr else claim_net()
        self.cidr = self._claim.cidr if self._claim else cidr
        self.folder, self.name = folder, name
        self.python = str(installed.python) if installed else sys.executable
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cluster.yaml").write_text(template.format(name=name, cidr=self.cidr))
        self.port = free_port("127.0.0.1")
        self._clients: dict[tuple[Any, str], Any] = {}
        self.environment = without_settings(installed.environment if installed else os.environ)
        self.mesos = mesos
        if mesos is not None:
            recipe = folder / "recipe.toml"
            recipe.write_text(f'[engine]\nprefix = "{mesos}"\n')
            self.environment["MESAFORM_RECIPE"] = str(recipe)

    def start_local(self) -> None:
        self.mesaform("local", "start", "--port", str(self.port))

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.python, "-m", "mesaform.cli.main", *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **options,
        )

    def mesaform(self, *arguments: str, timeout_s: float = 300, expect: int = 0) -> str:
        """Run the program to its end; returns what it printed on standard output."""
        if arguments[0] == "down":
            self.check_unhandled_errors()
        process = self.popen(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(
                f"mesaform {' '.join(arguments)}: still running after {timeout_s} s\n"
                f"{out[-3000:]}\n{err[-3000:]}"
            ) from None
        assert process.returncode == expect, (
            f"mesaform {' '.join(arguments)}: exit {process.returncode}\n"
            f"{out[-4000:]}\n{err[-4000:]}"
        )
        return out

    def why(self, subject: str = "") -> list[str]:
        """Lines of `mesaform why` as `what | why | change of dollars`, without line breaks."""
        out = self.mesaform("why", *([subject] if subject else []), "--last", "100", timeout_s=60)
        return _rows_of_why([line for line in out.splitlines() if line.strip() and "─" not in line])

    def decisions(self, subject: str = "") -> list[dict[str, Any]]:
        """Every decision, oldest first; with a subject only those that concern it."""
        out = self.mesaform("why", *([subject] if subject else []), "--json", "--last", "500")
        decisions: list[dict[str, Any]] = json.loads(out)["decisions"]
        return decisions

    def fault(self, kind: str, *arguments: str) -> str:
        """Put a fault on the local cloud's switch; its name."""
        return self.mesaform("local", "fault", kind, *arguments).strip()

    def bought(self, *states: str) -> dict[str, dict[str, Any]]:
        """The autoscaler's instances by id, as EC2 lists them, in these states (default: any)."""
        mine = [
            {"Name": "tag:mesaform:cluster", "Values": [self.name]},
            {"Name": "tag:mesaform:managed-by", "Values": ["autoscaler"]},
        ]
        if states:
            mine.append({"Name": "instance-state-name", "Values": list(states)})
        reservations = self.boto("ec2").describe_instances(Filters=mine)["Reservations"]
        return {
            instance["InstanceId"]: {
                **instance,
                "Tags": {tag["Key"]: tag["Value"] for tag in instance["Tags"]},
            }
            for reservation in reservations
            for instance in reservation["Instances"]
        }

    def pid_on(self, address: str, *command: str) -> int | None:
        """The process of the machine at this address whose command ends so."""
        reservations = self.boto("ec2").describe_instances(
            Filters=[{"Name": "private-ip-address", "Values": [address]}]
        )["Reservations"]
        ids = {
            f"MESAFORM_INSTANCE_ID={instance['InstanceId']}".encode()
            for item in reservations
            for instance in item["Instances"]
        }
        pids = (pid for pid in self.processes() if _runs(pid, command, ids))
        return next(pids, None)

    def engine_command(self, part: Literal["master", "agent"]) -> tuple[str, ...]:
        """The end of the command line of the engine's master or agent."""
        if self.mesos is not None:
            return (str(self.mesos / "sbin" / f"mesos-{part}"),)
        return ("-m", "mesaform.engine", part)

    def engine_pid(self, address: str, part: Literal["master", "agent"]) -> int | None:
        """The process of the engine's master or agent at an address."""
        return self.pid_on(address, *self.engine_command(part))

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.mesaform("status", "--json", timeout_s=60))
        return answer

    def http(
        self, url: str, *, method: str = "GET", body: Any = None, timeout_s: float = 10
    ) -> tuple[int, dict[str, str], bytes]:
        """One request without following redirects; status 0 when nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            url,
            data=data,
            method=method,
            headers={"Content-Type": "application/json"} if data else {},
        )
        try:
            with urllib.request.build_opener(NoRedirect).open(request, timeout=timeout_s) as reply:
                return reply.status, dict(reply.headers), reply.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()
        except OSError:
            return 0, {}, b""

    def services(
        self, path: str, *, method: str = "GET", body: Any = None, timeout_s: float = 60
    ) -> Any:
        """The services' answer from whichever master leads them."""

        def ask() -> tuple[int, bytes] | None:
            for address in self.masters():
                code, _, text = self.http(f"http://{address}:8080{path}", method=method, body=body)
                if code and code not in (307, 503):
                    return code, text
            return None

        code, text = until(f"services answer {method} {path}", ask, timeout_s)
        assert code < 300, f"{method} {path}: {code} {text[:500]!r}"
        return json.loads(text) if text else None

    def masters(self) -> list[str]:
        from mesaform.config.parser import load
        from mesaform.topology.addresses import master_addresses

        return [str(address) for address in master_addresses(load(self.folder / "cluster.yaml"))]

    def leader(self) -> str | None:
        """The address of the leading engine master, None while there is none."""
        for address in self.masters():
            if self.http(f"http://{address}:5050/state")[0] == 200:
                return address
        return None

    def registered_agents(self) -> list[dict[str, Any]]:
        """The agents that the leading engine master lists; empty while none leads.

        `status` also has what EC2 and the autoscaler say, and takes a second of processor time.
        """
        for address in self.masters():
            code, _, text = self.http(f"http://{address}:5050/slaves")
            if code == 200:
                agents: list[dict[str, Any]] = json.loads(text)["slaves"]
                return agents
        return []

    def running_tasks(self, prefix: str) -> set[str]:
        """Ids of running tasks whose id begins so, as the leading engine master tells."""
        for address in self.masters():
            code, _, text = self.http(f"http://{address}:5050/tasks?limit=1000")
            if code == 200:
                return {
                    task["id"]
                    for task in json.loads(text)["tasks"]
                    if task["state"] == "TASK_RUNNING" and task["id"].startswith(prefix)
                }
        return set()

    def until_recorded(self, what: str, look: Callable[[], T | None], timeout_s: float) -> T:
        """As `until`, for what the ledger records: looks again when the ledger has changed."""
        looked_at: list[Any] = [None]

        def look_if_changed() -> T | None:
            listed = self._ledger_objects()
            if listed == looked_at[0]:
                return None
            looked_at[0] = listed
            return look()

        return until(what, look_if_changed, timeout_s)

    def _ledger_objects(self) -> set[tuple[str, str]]:
        """Name and digest of each object of the ledger."""
        s3 = self.boto("s3")
        return {
            (entry["Key"], entry["ETag"])
            for bucket in s3.list_buckets()["Buckets"]
            for page in s3.get_paginator("list_objects_v2").paginate(
                Bucket=bucket["Name"], Prefix=f"{self.name}/ledger/"
            )
            for entry in page.get("Contents", ())
        }

    def boto(self, service: Any) -> Any:
        """A client of the local cloud; made once, because making one takes 0.1 s."""
        from mesaform.localcloud.layout import Layout
        from mesaform.localcloud.operator_credentials import read_credentials

        credentials = read_credentials(Layout(self.folder / ".mesaform" / "local"))
        key = (service, credentials.access_key_id)
        if key not in self._clients:
            self._clients[key] = boto3.client(
                service,
                endpoint_url=f"http://127.0.0.1:{self.port}",
                region_name="us-east-1",
                aws_access_key_id=credentials.access_key_id,
                aws_secret_access_key=credentials.secret_access_key,
            )
        return self._clients[key]

    def left_in_ec2(self) -> dict[str, list[str]]:
        """What EC2 still lists of this cluster: ids by the names of their fields; else empty."""
        ec2 = self.boto("ec2")
        mine = [{"Name": "tag:mesaform:cluster", "Values": [self.name]}]
        alive = [
            {
                "Name": "instance-state-name",
                "Values": ["pending", "running", "shutting-down", "stopping", "stopped"],
            }
        ]
        instances = ec2.describe_instances(Filters=alive)["Reservations"]
        listed = {
            "InstanceId": [item for held in instances for item in held["Instances"]],
            "VolumeId": ec2.describe_volumes()["Volumes"],
            "NetworkInterfaceId": ec2.describe_network_interfaces()["NetworkInterfaces"],
            "GroupId": ec2.describe_security_groups(Filters=mine)["SecurityGroups"],
            "VpcId": ec2.describe_vpcs(Filters=mine)["Vpcs"],
            "SubnetId": ec2.describe_subnets(Filters=mine)["Subnets"],
            "LaunchTemplateId": ec2.describe_launch_templates(Filters=mine)["LaunchTemplates"],
        }
        return {kind: [item[kind] for item in items] for kind, items in listed.items() if items}

    def processes(self) -> list[int]:
        """Processes of this cluster's machines: their environment names this folder's machines."""
        marker = f"MESAFORM_MACHINE_DIR={self.folder}".encode()
        pids = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if marker in (entry / "environ").read_bytes():
                        pids.append(int(entry.name))
                except OSError:
                    continue
        return pids

    def check_unhandled_errors(self) -> None:
        """Assert that no server of the cluster had an exception that no code foresaw.

        The logs still tell it after the process of the metric has ended.
        """
        lines = [
            f"{path.relative_to(self.folder)}: {line[:2000]}"
            for path in self.folder.glob(".mesaform/local/**/log/*.log")
            for line in path.read_text(errors="replace").splitlines()
            if "unhandled_error" in line
        ]
        assert lines == []

    def describe(self) -> str:
        """What the cluster says of itself, for the report of a test that failed; never raises."""
        parts = []
        for arguments in (["status"], ["why", "--last", "12"]):
            process = self.popen(*arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            try:
                parts.append(process.communicate(timeout=60)[0][-3000:])
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                parts.append(f"mesaform {arguments[0]}: no answer\n")
        for path in sorted(self.folder.glob(".mesaform/local/**/log/*autoscaler*.log")):
            lines = path.read_text(errors="replace").splitlines()[-6:]
            parts += [f"{path.parts[-3]} {path.name}:", *(line[:400] for line in lines)]
        return "\n".join(parts)

    def end(self) -> None:
        """Leave nothing running, whatever happened before."""
        self.mesaform("local", "stop")
        self.check_unhandled_errors()
