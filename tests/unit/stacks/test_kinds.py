"""Every kind of resource and block that stacks describe has a class in pulumi-aws."""

from __future__ import annotations

from mesaform_stacks import provider
from mesaform_stacks.description import Block, Resource, divide_cidr, encode_base64
from mesaform_stacks.pulumi import kinds


def names_of(base: type) -> set[str]:
    """Names of the subclasses of `base` in the list of kinds."""
    values = [value for value in vars(provider).values() if isinstance(value, type)]
    return {value.__name__ for value in values if issubclass(value, base) and value is not base}


def test_pulumi_has_a_class_for_every_kind_and_block():
    assert names_of(Resource) - kinds.CLASSES.keys() - kinds.FUNCTIONS.keys() == set()
    assert names_of(Block) - kinds.BLOCKS.keys() == set()


def test_a_text_without_references_is_encoded_at_once():
    assert encode_base64("text") == "dGV4dA=="
    reference = "${mesaform:network/vpc.id}"
    assert encode_base64(reference).arguments == (reference,)
    assert divide_cidr(reference, 8, 2).arguments == (reference, 8, 2)
