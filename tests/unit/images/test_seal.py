"""What is of the builder alone leaves its disk, and the image keeps time by its host."""

from __future__ import annotations

from pathlib import Path

from mesaform_images.builder.host import Host
from mesaform_images.builder.steps import seal


def a_host(root: Path) -> Host:
    return Host(root=root, bundle=root, log=root / "log")


def test_the_builders_user_data_and_identity_are_not_in_the_image(tmp_path: Path) -> None:
    secrets = {
        "var/lib/cloud/instances/i-1/user-data.txt": "https://bucket/job.json?X-Amz-Signature=1",
        "var/lib/cloud/instances/i-1/obj.pkl": "X-Amz-Signature",
        "var/log/cloud-init.log": "X-Amz-Signature",
        "var/log/cloud-init-output.log": "X-Amz-Signature",
        "var/lib/systemd/random-seed": "seed",
        "etc/ssh/ssh_host_ed25519_key": "key",
    }
    for name, text in {
        **secrets,
        "etc/machine-id": "0" * 32,
        "etc/ssh/sshd_config": "kept",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    seal.remove_identity(a_host(tmp_path))
    seal.remove_identity(a_host(tmp_path))
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "log"]
    assert not [path for path in left if "X-Amz-Signature" in path.read_text()]
    assert not [name for name in secrets if (tmp_path / name).exists()]
    assert (tmp_path / "etc/machine-id").read_text() == "", "the next boot sets it"
    assert (tmp_path / "etc/ssh/sshd_config").read_text() == "kept"


def test_docker_engine_of_a_machine_does_not_begin_with_the_state_of_the_builders(
    tmp_path: Path,
) -> None:
    for name in ("docker/engine-id", "docker/runtimes/runc", "containerd/io.containerd/meta.db"):
        (tmp_path / "var/lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "var/lib" / name).write_text("state")
    (tmp_path / "etc/docker").mkdir(parents=True)
    for _ in range(2):
        seal.remove_docker_state(a_host(tmp_path))
    assert list((tmp_path / "var/lib").iterdir()) == []
    assert (tmp_path / "etc/docker").is_dir(), "its settings stay"


def test_no_user_of_the_image_may_become_root(tmp_path: Path) -> None:
    rules = tmp_path / seal.LOGIN_RULES
    rules.parent.mkdir(parents=True)
    text = "# Created by cloud-init\n\n# User rules for admin\nadmin ALL=(ALL) NOPASSWD:ALL\n"
    rules.write_text(text)
    (tmp_path / seal.NO_LOGIN_USER).parent.mkdir(parents=True)
    assert seal.login_users(text) == ["admin"]
    for _ in range(2):  # the folder has no users, so that none is removed
        seal.remove_login_users(a_host(tmp_path))
        assert not rules.exists()
        assert "users: []" in (tmp_path / seal.NO_LOGIN_USER).read_text()


def test_a_local_builder_shares_its_disk_and_is_left_alone(tmp_path: Path) -> None:
    assert seal.steps(a_host(tmp_path), {}, "", {}) == []  # type: ignore[typeddict-item]
