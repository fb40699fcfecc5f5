from __future__ import annotations

from domains.verbs.features import copies_in_other_groups


def test_copies_in_other_groups_are_counted_and_those_within_one_are_not() -> None:
    assert copies_in_other_groups(["a", "b", "a", "b", "c"], ["p1", "p2", "p1", "p2", "p3"]) == []
    (note,) = copies_in_other_groups(["a", "b", "a", "b", "c"], ["p1", "p2", "p3", "p2", "p3"])
    assert note.startswith("2 of these 5 images are in several groups, byte for byte")
