"""The ZooKeeper server of a master: configuration files and command line.

Pure functions of the node document; depends on `mesaform.topology.user_data`.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from mesaform.node.model import ConfigFile, Programs, Service
from mesaform.topology.ports import Port
from mesaform.topology.user_data import NodeDocument, ZooKeeperMember
from mesaform.topology.zookeeper import ZK_PURPOSE, derived_secret, super_digest

HEAP_MIB = 96
"""Heap of the server. The ensemble stores a few hundred small nodes (elections, the engine's
registry, launch intents), which take tens of MiB at most."""

RESTART_WITHIN_S = 0.5
"""Without two of its servers nothing in the cluster leads, so a server never waits for long."""

_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"

_LOG4J = """\
log4j.rootLogger=INFO, CONSOLE
log4j.appender.CONSOLE=org.apache.log4j.ConsoleAppender
log4j.appender.CONSOLE.layout=org.apache.log4j.PatternLayout
log4j.appender.CONSOLE.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
"""


def member_at(document: NodeDocument, address: str) -> ZooKeeperMember:
    """The member of the ensemble with this address.

    Raises:
        ValueError: the document's ensemble has no member with this address.

    """
    for member in document.zookeeper:
        if member.address == address:
            return member
    members = ", ".join(member.address for member in document.zookeeper)
    raise ValueError(
        f"this master's address {address} is not among the ensemble's ({members}):"
        " deploy the masters again"
    )


def zoo_cfg(document: NodeDocument, address: str, data_dir: PurePosixPath) -> str:
    """The server's configuration file.

    A tick of 500 ms allows session time-outs from 1 s (twice the tick); the maximum is 40 s.
    Source of the options: ZooKeeper administrator's guide, "Configuration Parameters".
    """
    lines = [
        "tickTime=500",
        "initLimit=20",
        "syncLimit=10",
        "maxSessionTimeout=40000",
        f"dataDir={data_dir}",
        f"clientPort={Port.ZOOKEEPER_CLIENT}",
        f"clientPortAddress={address}",
        "quorumListenOnAllIPs=false",
        "maxClientCnxns=0",
        "autopurge.snapRetainCount=3",
        "autopurge.purgeInterval=1",
        "admin.enableServer=false",
        "4lw.commands.whitelist=ruok,srvr,mntr,cons",
        "preAllocSize=4096",
    ]
    if document.secret:
        # A setting that ZooKeeper does not know becomes the system property zookeeper.<name>.
        password = derived_secret(document.secret, ZK_PURPOSE)
        lines.append(f"DigestAuthenticationProvider.superDigest={super_digest(password)}")
    lines += [
        f"server.{m.id}={m.address}:{Port.ZOOKEEPER_PEER}:{Port.ZOOKEEPER_ELECTION}"
        for m in document.zookeeper
    ]
    return "\n".join(lines) + "\n"


def files(
    document: NodeDocument, address: str, folder: PurePosixPath, data_dir: PurePosixPath
) -> tuple[ConfigFile, ...]:
    """The server's configuration, its number in the ensemble and the target of its log."""
    return (
        ConfigFile(
            folder / "conf" / "zoo.cfg", zoo_cfg(document, address, data_dir), is_secret=True
        ),
        ConfigFile(folder / "conf" / "log4j.properties", _LOG4J),
        ConfigFile(data_dir / "myid", f"{member_at(document, address).id}\n"),
    )


def service(address: str, folder: PurePosixPath, programs: Programs) -> Service:
    """The server as a service.

    The first group of options shortens the start on small machines. `cnxTimeout`: a connection to a
    peer that vanished is given up after 1.5 s (default 5 s). `maxNotificationInterval`: the pause
    between election notices grows to 2 s (default 60 s), which matters when masters boot minutes
    apart.
    """
    conf = folder / "conf"
    argv = (
        programs.java,
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-Xshare:auto",
        "-XX:-UsePerfData",
        f"-Xmx{HEAP_MIB}m",
        "-Xss512k",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.net.preferIPv4Stack=true",
        "-Dzookeeper.jmx.log4j.disable=true",
        "-Dzookeeper.cnxTimeout=1500",
        "-Dzookeeper.electionPortBindRetry=0",
        "-Dzookeeper.fastleader.minNotificationInterval=200",
        "-Dzookeeper.fastleader.maxNotificationInterval=2000",
        "-cp",
        ":".join((str(conf), *programs.zookeeper_classpath)),
        _MAIN,
        str(conf / "zoo.cfg"),
    )
    return Service(
        "zookeeper",
        argv,
        ready=(address, Port.ZOOKEEPER_CLIENT),
        ready_within_s=8.0,
        restart_within_s=RESTART_WITHIN_S,
    )
