"""What the stacks describe, asserted on the JSON that Terraform gets."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from mesaform.config.parser import parse
from mesaform.config.schema import ClusterSpec
from mesaform.topology import addresses, names, ports, user_data
from mesaform.topology.user_data import LeaseTerms, parse_node_document
from tests.integration.stacks.conftest import BOUNDARY, CLUSTER_FILE, DEPLOYMENT, KEY

pytestmark = [pytest.mark.slow]


def resources(stack: dict, kind: str) -> list[dict]:
    return list(stack["resource"].get(kind, {}).values())


@pytest.fixture
def spec() -> ClusterSpec:
    return parse(CLUSTER_FILE)


def test_every_way_in_is_one_that_the_blueprint_lists(stacks, spec):
    ids = {f"${{aws_security_group.{role}s.id}}": role for role in user_data.ROLES}
    result = {
        (
            ids[rule["security_group_id"]],
            rule["from_port"],
            rule["to_port"],
            rule.get("cidr_ipv4") or ids[rule["referenced_security_group_id"]],
            rule["ip_protocol"],
        )
        for rule in resources(stacks["network"], "aws_vpc_security_group_ingress_rule")
    }
    assert result == {
        (rule.group, rule.first_port, rule.last_port, rule.source, "tcp")
        for rule in ports.ingress_rules(spec)
    }


def test_every_resource_carries_the_deployment_id_and_only_the_pinned_account_is_changed(stacks):
    identity = DEPLOYMENT["deployment_id"]
    for stack in stacks.values():
        (provider,) = stack["provider"]["aws"]
        assert provider["allowed_account_ids"] == [DEPLOYMENT["account_id"]]
        (default,) = provider["default_tags"]
        assert default["tags"]["mesaform:deployment"] == identity
    for template in resources(stacks["agents"], "aws_launch_template"):
        launched = {
            entry["resource_type"]: entry["tags"] for entry in template["tag_specifications"]
        }
        assert set(launched) == {"instance", "volume", "network-interface"}
        assert {tags["mesaform:deployment"] for tags in launched.values()} == {identity}


@pytest.mark.parametrize("stack", ["masters", "agents"])
def test_a_new_image_or_other_user_data_alone_replaces_no_machine(stacks, stack: str):
    for machine in resources(stacks[stack], "aws_instance"):
        assert machine["lifecycle"] == {"ignore_changes": ["ami", "user_data"]}


def test_an_upgrade_lets_machines_of_its_role_take_the_image_and_no_others(variants):
    upgraded = variants["upgraded"]
    assert not any("lifecycle" in item for item in resources(upgraded["agents"], "aws_instance"))
    assert all("lifecycle" in item for item in resources(upgraded["masters"], "aws_instance"))


def test_operators_reach_three_ports_of_masters_and_nothing_else(stacks):
    from_outside = [
        rule
        for rule in resources(stacks["network"], "aws_vpc_security_group_ingress_rule")
        if "cidr_ipv4" in rule
    ]
    assert {rule["cidr_ipv4"] for rule in from_outside} == {"203.0.113.0/24", "198.51.100.7/32"}
    assert {(rule["from_port"], rule["to_port"]) for rule in from_outside} == {
        (5050, 5050),
        (8080, 8080),
        (9550, 9550),
    }
    assert {rule["security_group_id"] for rule in from_outside} == {
        "${aws_security_group.masters.id}"
    }


def test_agents_reach_only_the_ports_of_masters_that_agents_use(stacks):
    rules = [
        rule
        for rule in resources(stacks["network"], "aws_vpc_security_group_ingress_rule")
        if rule["security_group_id"] == "${aws_security_group.masters.id}"
        and rule.get("referenced_security_group_id") == "${aws_security_group.agents.id}"
    ]
    assert {(rule["from_port"], rule["to_port"]) for rule in rules} == {
        (2181, 2181),
        (5050, 5050),
        (5052, 5052),
        (9550, 9550),
    }
    assert all(rule["description"] for rule in rules)


def test_only_agents_of_the_embedded_engine_reach_its_link_port(spec):
    mesos = spec.model_copy(update={"engine": "mesos"})
    reached = {
        (rule.first_port, rule.last_port)
        for rule in ports.ingress_rules(mesos)
        if (rule.group, rule.source) == ("master", "agent")
    }
    assert reached == {(2181, 2181), (5050, 5050), (9550, 9550)}


def test_only_masters_are_in_the_quorum_of_zookeeper(stacks):
    quorum = [
        rule
        for rule in resources(stacks["network"], "aws_vpc_security_group_ingress_rule")
        if rule["security_group_id"] == "${aws_security_group.masters.id}"
        and any(rule["from_port"] <= port <= rule["to_port"] for port in (2888, 3888))
    ]
    assert {rule["referenced_security_group_id"] for rule in quorum} == {
        "${aws_security_group.masters.id}"
    }


def test_the_clusters_secret_is_in_the_user_data_of_masters_and_nowhere_else(stacks):
    secret = DEPLOYMENT["secret"]
    masters = resources(stacks["masters"], "aws_instance")
    assert [secret in master["user_data"] for master in masters] == [True, True, True]
    for name in ("network", "agents", "notices"):
        text = json.dumps(stacks[name])
        assert secret not in text
        assert base64.b64encode(secret.encode()).decode()[:20] not in text
    for template in resources(stacks["agents"], "aws_launch_template"):
        assert secret not in base64.b64decode(template["user_data"]).decode()


def test_only_the_owner_reads_the_user_data_that_terraform_gets(stacks, tmp_path_factory):
    assert stacks
    folders = list(tmp_path_factory.getbasetemp().glob("stacks[0-9]*/*/out"))
    files = [file for folder in folders for file in folder.glob("stacks/*/cdk.tf.json")]
    assert files
    assert {path.stat().st_mode & 0o077 for path in (*folders, *files)} == {0}


def test_groups_have_no_rules_of_their_own_besides_and_the_default_group_is_closed(stacks):
    groups = resources(stacks["network"], "aws_security_group") + resources(
        stacks["network"], "aws_default_security_group"
    )
    assert len(groups) == 3
    assert all("ingress" not in group and "egress" not in group for group in groups)


def test_the_fixed_addresses_of_masters_are_given_to_nobody_else(stacks):
    reservations = resources(stacks["network"], "aws_ec2_subnet_cidr_reservation")
    assert {r["reservation_type"] for r in reservations} == {"explicit"}
    masters = resources(stacks["masters"], "aws_instance")
    for master in masters:
        address = ip_address(master["private_ip"])
        assert any(address in ip_network(r["cidr_block"]) for r in reservations), address


def test_there_are_three_public_subnets_in_three_zones_with_one_way_out(stacks):
    subnets = resources(stacks["network"], "aws_subnet")
    assert [(s["availability_zone"], s["cidr_block"]) for s in subnets] == [
        ("us-east-1a", "10.60.0.0/19"),
        ("us-east-1b", "10.60.32.0/19"),
        ("us-east-1c", "10.60.64.0/19"),
    ]
    assert len(resources(stacks["network"], "aws_route_table_association")) == 3
    (route,) = resources(stacks["network"], "aws_route")
    assert route["destination_cidr_block"] == "0.0.0.0/0"


@pytest.mark.parametrize("stack", ["masters", "agents"])
def test_machines_require_session_tokens_and_encrypt_their_disks(stacks, stack):
    machines = resources(stacks[stack], "aws_instance")
    assert machines
    for machine in machines:
        assert machine["metadata_options"] == {
            "http_endpoint": "enabled",
            "http_tokens": "required",
            "http_put_response_hop_limit": 1,
        }
        disk = machine["root_block_device"]
        assert (disk["encrypted"], disk["volume_type"], disk["delete_on_termination"]) == (
            True,
            "gp3",
            True,
        )
        assert machine["ami"] == "ami-0123456789abcdef0"


def test_masters_stand_one_a_zone_at_the_addresses_that_everybody_knows(stacks, spec):
    masters = resources(stacks["masters"], "aws_instance")
    assert [master["private_ip"] for master in masters] == [
        str(address) for address in addresses.master_addresses(spec)
    ]
    assert len({master["subnet_id"] for master in masters}) == 3
    document = parse_node_document(masters[0]["user_data"])
    assert (document.role, document.recipe, document.engine, document.lease) == (
        "master",
        "digest",
        "embedded",
        None,
    )


def test_each_master_has_an_encrypted_volume_of_its_own_that_outlives_it(stacks, spec):
    volumes = stacks["network"]["resource"]["aws_ebs_volume"]
    assert list(volumes) == ["master-1-data", "master-2-data", "master-3-data"]
    assert [volume["availability_zone"] for volume in volumes.values()] == list(spec.zones)
    for number, volume in enumerate(volumes.values(), 1):
        assert (volume["type"], volume["encrypted"]) == ("gp3", True)
        assert volume["size"] == spec.masters.data_volume.size_gib
        assert "kms_key_id" not in volume
        assert volume["tags"]["Name"] == f"mesaform-{spec.name}-master-{number}-data"
        assert volume["tags"]["mesaform:role"] == "master"
        assert volume["tags"]["mesaform:deployment"] == DEPLOYMENT["deployment_id"]
        assert "lifecycle" not in volume, "`cdktf destroy` must be able to remove it"
    for master in resources(stacks["masters"], "aws_instance"):
        document = parse_node_document(master["user_data"])
        assert document.data_volume is not None
        assert document.data_volume.deployment == DEPLOYMENT["deployment_id"]
        assert "terraform_remote_state" in document.data_volume.volume_id
    used = {
        parse_node_document(master["user_data"]).data_volume
        for master in resources(stacks["masters"], "aws_instance")
    }
    assert len(used) == 3
    for agent in resources(stacks["agents"], "aws_instance"):
        assert parse_node_document(agent["user_data"]).data_volume is None


def test_terraform_keeps_count_agents_spread_over_the_zones(stacks):
    agents = resources(stacks["agents"], "aws_instance")
    assert len(agents) == 4
    assert [agents.count(agent) and agent["subnet_id"] for agent in agents[:3]] != [
        agents[0]["subnet_id"]
    ] * 3
    assert agents[3]["subnet_id"] == agents[0]["subnet_id"]
    assert {agent["tags"]["mesaform:managed-by"] for agent in agents} == {"terraform"}
    assert {agent["instance_type"] for agent in agents} == {"m5.large"}
    assert {agent["root_block_device"]["volume_size"] for agent in agents} == {55}
    assert {parse_node_document(agent["user_data"]).lease for agent in agents} == {None}, (
        "the dead man's lease is not for Terraform's"
    )


def test_a_pool_has_a_launch_template_from_which_the_autoscaler_buys_tagged_machines(stacks):
    templates = {
        template["name"]: template
        for template in resources(stacks["agents"], "aws_launch_template")
    }
    assert set(templates) == {"mesaform/drawn/default", "mesaform/drawn/big"}
    template = templates["mesaform/drawn/big"]
    assert template["metadata_options"]["http_tokens"] == "required"
    (disk,) = template["block_device_mappings"]
    assert (disk["device_name"], disk["ebs"]["encrypted"], disk["ebs"]["volume_type"]) == (
        "/dev/sda1",
        "true",
        "gp3",
    )
    document = parse_node_document(base64.b64decode(template["user_data"]))
    assert (document.role, document.pool, document.attributes) == ("agent", "big", {"rack": "r1"})
    assert document.lease == LeaseTerms(1800, 300)
    assert template["instance_initiated_shutdown_behavior"] == "terminate"
    assert {entry["resource_type"] for entry in template["tag_specifications"]} == {
        "instance",
        "volume",
        "network-interface",
    }
    for entry in template["tag_specifications"]:
        assert entry["tags"]["mesaform:cluster"] == "drawn"
        assert entry["tags"]["mesaform:managed-by"] == "autoscaler"
        assert entry["tags"]["mesaform:pool"] == "big"


def test_everything_carries_the_clusters_tag(stacks):
    for stack in stacks.values():
        (provider,) = stack["provider"]["aws"]
        tags = {
            "mesaform:cluster": "drawn",
            "mesaform:region": "us-east-1",
            "mesaform:deployment": DEPLOYMENT["deployment_id"],
        }
        assert provider["default_tags"] == [{"tags": tags}]


def test_the_autoscaler_finds_the_spec_where_the_blueprint_says(stacks, spec):
    (parameter,) = resources(stacks["agents"], "aws_ssm_parameter")
    assert parameter["name"] == names.spec_parameter_name("drawn")
    assert ClusterSpec.model_validate_json(parameter["value"]) == spec
    assert parameter["tier"] == "Standard"


def test_a_spec_above_four_kilobytes_takes_an_advanced_parameter(variants):
    (parameter,) = resources(variants["large"]["agents"], "aws_ssm_parameter")
    assert parameter["tier"] == "Advanced"


def test_agents_may_do_nothing_and_masters_only_what_the_autoscaler_needs(stacks):
    assert resources(stacks["agents"], "aws_iam_role_policy") == []
    (policy,) = resources(stacks["masters"], "aws_iam_role_policy")
    assert {statement["Effect"] for statement in json.loads(policy["policy"])["Statement"]} == {
        "Allow"
    }


def test_on_aws_state_is_in_the_accounts_bucket_with_a_lock_and_encrypted(stacks):
    for name, stack in stacks.items():
        assert stack["terraform"]["backend"]["s3"] == {
            "bucket": "mesaform-111122223333-us-east-1",
            "key": f"_terraform/drawn/{name}.tfstate",
            "region": "us-east-1",
            "encrypt": True,
            "use_lockfile": True,
            "allowed_account_ids": ["111122223333"],
        }


def test_only_the_account_of_the_deployment_is_changed(stacks):
    for stack in stacks.values():
        (provider,) = stack["provider"]["aws"]
        assert provider["allowed_account_ids"] == ["111122223333"]


def test_names_of_roles_have_the_region_because_iam_has_none(stacks):
    for stack, role in (("masters", "master"), ("agents", "agent")):
        for kind in ("aws_iam_role", "aws_iam_instance_profile"):
            (entry,) = resources(stacks[stack], kind)
            assert entry["name"] == f"mesaform-drawn-us-east-1-{role}"
            assert entry["tags"]["mesaform:region"] == "us-east-1"


def test_machines_wait_for_their_role_and_not_for_the_wait_after_their_profile(stacks):
    for stack in ("masters", "agents"):
        (profile,) = resources(stacks[stack], "aws_iam_instance_profile")
        (role,) = resources(stacks[stack], "aws_iam_role")
        assert profile["name"] == role["name"]
        for machine in resources(stacks[stack], "aws_instance"):
            assert machine["iam_instance_profile"] == "${aws_iam_role.role.name}"
    for template in resources(stacks["agents"], "aws_launch_template"):
        assert template["iam_instance_profile"] == {
            "name": "${aws_iam_instance_profile.profile.name}"
        }


def test_the_network_is_known_to_the_others_through_its_state(stacks):
    for name in ("masters", "agents"):
        assert (
            "cross-stack-reference-input-network" in stacks[name]["data"]["terraform_remote_state"]
        )


def test_a_wrong_cluster_file_ends_synthesis_with_its_line_and_exit_code(tmp_path):
    (tmp_path / "cluster.yaml").write_text("name: a\nagent: []\n")
    ended = subprocess.run(
        [sys.executable, "-m", "mesaform_stacks"],
        env={**os.environ, "MESAFORM_CLUSTER_FILE": str(tmp_path / "cluster.yaml")},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert ended.returncode == 2
    assert "cluster.yaml:2: agent: unknown field; nearest: agents" in ended.stderr


def test_only_the_resources_in_use_are_loaded_of_the_provider(tmp_path):
    """The stacks load dozens of modules; the package's own `__init__` would load a thousand."""
    code = (
        "import sys, mesaform_stacks.app\n"
        "from mesaform_stacks import description, generated, provider\n"
        "kinds = description.Resource.__subclasses__()\n"
        "assert all(hasattr(generated.load(one.kind), one.__name__) for one in kinds)\n"
        "print(sum(name.startswith('cdktf_cdktf_provider_aws.') for name in sys.modules))"
    )
    began = time.process_time()
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert int(loaded.stdout) < 100
    assert time.process_time() - began < 60


def test_announcements_come_by_four_rules_into_one_encrypted_queue_that_takes_them_from_nobody_else(
    stacks,
):
    notices = stacks["notices"]
    rules = {
        rule["name"]: json.loads(rule["event_pattern"])
        for rule in resources(notices, "aws_cloudwatch_event_rule")
    }
    assert {name: pattern["detail-type"] for name, pattern in rules.items()} == {
        "mesaform-drawn-interruption": ["EC2 Spot Instance Interruption Warning"],
        "mesaform-drawn-rebalance": ["EC2 Instance Rebalance Recommendation"],
        "mesaform-drawn-state": ["EC2 Instance State-change Notification"],
        "mesaform-drawn-health": ["AWS Health Event"],
    }
    queue = notices["resource"]["aws_sqs_queue"]["queue"]
    (statement,) = json.loads(queue["policy"])["Statement"]
    account = "${data.aws_caller_identity.account.account_id}"
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Action"] == "sqs:SendMessage"
    assert statement["Resource"] == f"arn:aws:sqs:us-east-1:{account}:mesaform-drawn-notices"
    (senders,) = statement["Condition"]["ArnEquals"].values()
    assert list(statement["Condition"]["ArnEquals"]) == ["aws:SourceArn"]
    assert sorted(senders) == sorted(
        f"arn:aws:events:us-east-1:{account}:rule/{name}" for name in rules
    )
    assert {target["arn"] for target in resources(notices, "aws_cloudwatch_event_target")} == {
        "${aws_sqs_queue.queue.arn}"
    }
    assert len(resources(notices, "aws_cloudwatch_event_target")) == len(rules)


def test_what_nobody_can_read_leaves_the_queue_for_the_dead_letters(stacks):
    queues = stacks["notices"]["resource"]["aws_sqs_queue"]
    assert {queue["name"] for queue in queues.values()} == {
        "mesaform-drawn-notices",
        "mesaform-drawn-notices-dead",
    }
    assert all(queue["sqs_managed_sse_enabled"] is True for queue in queues.values())
    assert json.loads(queues["queue"]["redrive_policy"]) == {
        "deadLetterTargetArn": "${aws_sqs_queue.dead.arn}",
        "maxReceiveCount": 10,
    }
    assert "policy" not in queues["dead"]
    assert (
        queues["queue"]["message_retention_seconds"] < queues["dead"]["message_retention_seconds"]
    )
    assert queues["queue"]["visibility_timeout_seconds"] == 10


def test_rules_and_queues_carry_the_clusters_tag(stacks):
    for kind in ("aws_cloudwatch_event_rule", "aws_sqs_queue"):
        assert {
            item["tags"]["mesaform:cluster"] for item in resources(stacks["notices"], kind)
        } == {"drawn"}


def test_announcements_wait_for_no_other_stack(stacks):
    assert "terraform_remote_state" not in stacks["notices"].get("data", {})


@pytest.fixture
def near(variants):
    """The stacks of a local cluster with machines of both architectures."""
    return variants["near"]


def test_each_architecture_of_a_pool_has_a_template_with_its_image(near):
    templates = {
        template["name"]: (
            template["image_id"][-1],
            template["instance_type"],
            template["tags"]["mesaform:architecture"],
            parse_node_document(base64.b64decode(template["user_data"])).attributes,
        )
        for template in resources(near["agents"], "aws_launch_template")
    }
    assert templates == {
        "mesaform/near/default": ("0", "m5.large", "x86_64", {}),
        "mesaform/near/default.arm64": ("a", "m6g.large", "arm64", {"requires_pin": "arch"}),
        "mesaform/near/arm.arm64": ("a", "c6g.large", "arm64", {"requires_pin": "pool"}),
    }


def test_machines_of_terraform_boot_the_image_of_their_types_architecture(near):
    masters = resources(near["masters"], "aws_instance")
    assert {master["ami"] for master in masters} == {"ami-0123456789abcdefa"}
    agents = resources(near["agents"], "aws_instance")
    assert {(agent["instance_type"], agent["ami"][-1]) for agent in agents} == {
        ("m5.large", "0"),
        ("c6g.large", "a"),
    }


def test_on_the_local_cloud_states_are_in_the_folder_and_no_dead_letters_are_waited_for(near):
    for name, stack in near.items():
        path = Path(stack["terraform"]["backend"]["local"]["path"])
        assert path.parts[-4:] == (".mesaform", "clusters", "near", f"{name}.tfstate")
    local = near["notices"]
    (queue,) = resources(local, "aws_sqs_queue")
    assert queue["name"] == "mesaform-near-notices"
    assert "redrive_policy" not in queue
    assert len(resources(local, "aws_cloudwatch_event_rule")) == 4


def test_roles_and_disks_follow_what_the_account_demands(variants):
    stacks = variants["account"]
    for stack in ("masters", "agents"):
        (role,) = resources(stacks[stack], "aws_iam_role")
        assert (role["path"], role["permissions_boundary"]) == ("/team/", BOUNDARY)
        (profile,) = resources(stacks[stack], "aws_iam_instance_profile")
        assert profile["path"] == "/team/"
        for machine in resources(stacks[stack], "aws_instance"):
            assert machine["root_block_device"]["kms_key_id"] == KEY
    for template in resources(stacks["agents"], "aws_launch_template"):
        (disk,) = template["block_device_mappings"]
        assert disk["ebs"]["kms_key_id"] == KEY
    (rights,) = resources(stacks["masters"], "aws_iam_role_policy")
    assert KEY in rights["policy"]
    assert "role/team/mesaform-" in rights["policy"]
