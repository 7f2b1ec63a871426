"""The user at the other end of a connection, as the kernel and as its table name it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from mesaform.localcloud.peer_users import ask_kernel, peer_user, read_table

NOBODY = 65534
ADDRESS = "127.0.0.1"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((ADDRESS, 0)) as server:
        yield server


@pytest.mark.parametrize("look", [peer_user, read_table])
def test_the_user_of_a_connection_is_its_process_until_it_closes_it(listener, look):
    with socket.create_connection(listener.getsockname()) as client:
        served, peer = listener.accept()
        with served:
            own = served.getsockname()
            assert look(own, peer) == os.getuid()
            client.close()
            assert look(own, peer) is None, "a closed end stands under user 0"


@pytest.mark.parametrize("look", [peer_user, read_table])
@pytest.mark.skipif(os.getuid() != 0, reason="only root may start a process of another user")
@pytest.mark.skipif(shutil.which("perl") is None, reason="needs a program that every user may run")
def test_a_process_of_another_user_is_named(listener, look):
    address, port = listener.getsockname()
    program = f"use IO::Socket::INET; $s = IO::Socket::INET->new('{address}:{port}'); <$s>;"
    with subprocess.Popen(["perl", "-e", program], user=NOBODY, cwd="/") as process:
        served, peer = listener.accept()
        with served:
            assert look(served.getsockname(), peer) == NOBODY
        assert process.wait(30) == 0


@pytest.mark.parametrize("look", [peer_user, read_table])
def test_a_port_at_which_somebody_only_listens_is_no_end_of_a_connection(listener, look):
    with socket.create_server((ADDRESS, 0)) as other:
        assert look(listener.getsockname(), other.getsockname()) is None


def test_the_kernel_names_the_user_without_its_table(listener):
    with socket.create_connection(listener.getsockname()):
        served, peer = listener.accept()
        with served:
            try:
                user = ask_kernel(served.getsockname(), peer)
            except (OSError, LookupError):
                pytest.skip("this kernel does not answer questions about connections")
            assert user == os.getuid()
