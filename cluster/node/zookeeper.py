"""How this machine runs its member of the ZooKeeper ensemble: configuration, and a JVM that starts quickly and stays small."""

from __future__ import annotations

from pathlib import PurePosixPath

from mesaform.node.model import ConfigFile, Programs, Service
from mesaform.topology.ports import Port
from mesaform.topology.user_data import NodeDocument, ZooKeeperMember

HEAP_MIB = 96
"""The ensemble holds a few hundred small nodes (elections, the engine's registry, launch intents): tens of MiB at most."""

_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"

_LOG4J = """\
log4j.rootLogger=INFO, CONSOLE
log4j.appender.CONSOLE=org.apache.log4j.ConsoleAppender
log4j.appender.CONSOLE.layout=org.apache.log4j.PatternLayout
log4j.appender.CONSOLE.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
"""


def member_at(document: NodeDocument, address: str) -> ZooKeeperMember:
    """The machine's place in the ensemble.

    Raises:
        ValueError: the document's ensemble has no member with this address.

    """
    for member in document.zookeeper:
        if member.address == address:
            return member
    known = ", ".join(member.address for member in document.zookeeper)
    message = f"this master's address {address} is not among the ensemble's ({known}): deploy the masters again"
    raise ValueError(message)


def zoo_cfg(document: NodeDocument, address: str, data_dir: PurePosixPath) -> str:
    """The server's configuration file.

    A tick of 500 ms allows sessions from 1 s; the ceiling is raised so that clients may ask for up to 40 s.
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
    lines += [
        f"server.{m.id}={m.address}:{Port.ZOOKEEPER_PEER}:{Port.ZOOKEEPER_ELECTION}"
        for m in document.zookeeper
    ]
    return "\n".join(lines) + "\n"


def files(document: NodeDocument, address: str, folder: PurePosixPath) -> tuple[ConfigFile, ...]:
    """What the server reads: its configuration, its number in the ensemble, and where its log goes (standard output)."""
    data_dir = folder / "data"
    return (
        ConfigFile(folder / "conf" / "zoo.cfg", zoo_cfg(document, address, data_dir)),
        ConfigFile(folder / "conf" / "log4j.properties", _LOG4J),
        ConfigFile(data_dir / "myid", f"{member_at(document, address).id}\n"),
    )


def service(address: str, folder: PurePosixPath, programs: Programs) -> Service:
    """The server as a process.

    The first group of options buys a quick start on small machines. The election's options matter when a peer is gone without a
    goodbye (`cnxTimeout`: a connection to it is given up after 1.5 s, not 5) and when masters boot minutes apart (by default the
    pause between election notices grows to a minute).
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
    return Service("zookeeper", argv, ready=(address, Port.ZOOKEEPER_CLIENT), ready_within_s=8.0)
