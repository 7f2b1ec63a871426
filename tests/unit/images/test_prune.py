"""Old images are removed, except the newest of each architecture and those in use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesaform_images.prune import MIN_AGE_S, BakedImage, superfluous

NOW = 1_800_000_000.0

IMAGES = st.lists(
    st.builds(
        BakedImage,
        st.uuids().map(lambda value: f"ami-{value.hex[:17]}"),
        st.sampled_from(["x86_64", "arm64"]),
        st.integers(0, 30 * 86400).map(lambda age_s: NOW - age_s),
    ),
    max_size=12,
    unique_by=lambda image: image.image_id,
)


@given(IMAGES, st.integers(1, 4), st.data())
def test_only_old_unused_images_beyond_the_newest_are_removed(
    images: list[BakedImage], keep: int, data: st.DataObject
) -> None:
    in_use = set(data.draw(st.lists(st.sampled_from([i.image_id for i in images] or ["none"]))))
    removed = set(superfluous(images, in_use, keep, NOW))
    assert not removed & in_use
    for architecture in ("x86_64", "arm64"):
        own = [image for image in images if image.architecture == architecture]
        kept = [image for image in own if image.image_id not in removed]
        assert len(kept) >= min(keep, len(own))
        for image in own:
            newer = [other for other in own if other.created_at > image.created_at]
            if image.image_id in removed:
                assert len(newer) + sum(o.created_at == image.created_at for o in own) > keep
                assert NOW - image.created_at >= MIN_AGE_S
            elif image.image_id not in in_use and NOW - image.created_at >= MIN_AGE_S:
                assert len(newer) < keep, "it should have gone"


def test_removal_is_idempotent() -> None:
    images = [BakedImage(f"ami-{n}", "x86_64", NOW - n * 86400) for n in range(1, 7)]
    removed = superfluous(images, {"ami-5"}, 2, NOW)
    assert sorted(removed) == ["ami-3", "ami-4", "ami-6"]
    rest = [image for image in images if image.image_id not in removed]
    assert superfluous(rest, {"ami-5"}, 2, NOW) == []
