"""Names of resources of different clusters differ."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesaform.topology.names import launch_template_name

NAMES = st.from_regex(r"[a-z](-?[a-z0-9]){0,6}", fullmatch=True)
ARCHITECTURES = st.sampled_from(["x86_64", "arm64"])


@given(st.tuples(NAMES, NAMES, ARCHITECTURES), st.tuples(NAMES, NAMES, ARCHITECTURES))
def test_launch_templates_of_different_clusters_never_have_one_name(one, other):
    is_same = launch_template_name(*one) == launch_template_name(*other)
    assert not is_same or one[0] == other[0]


def test_a_cluster_whose_name_continues_another_s_has_templates_of_its_own():
    assert launch_template_name("bugs", "x-default") != launch_template_name("bugs-x", "default")
