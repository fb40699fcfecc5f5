"""Dataclasses to trees and back: what comes back equal, what is coerced, and what each mistake is told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from core import config, registry
from core.config import Typed
from core.errors import ConfigError, MissingDataError
from core.maskers.base import Masker
from core.maskers.random import Random
from core.targets.base import Target
from core.targets.pixels import Pixels
from core.teachers.base import TeacherSpec


@dataclass(frozen=True, kw_only=True)
class Part:
    size: tuple[int, int] = (4, 6)
    mode: Literal["keep", "drop"] = "keep"


@dataclass(frozen=True, kw_only=True)
class Settings:
    name: str
    rate: float = 0.5
    count: int = 3
    fast: bool = False
    limit: float | None = None
    names: tuple[str, ...] = ()
    shares: dict[str, float] = field(default_factory=dict)
    flips: dict[str, tuple[bool, ...]] = field(default_factory=dict)
    parts: tuple[Part, ...] = (Part(),)
    maybe: Part | None = None
    masker: Masker = field(default_factory=Random)
    target: Target = field(default_factory=Pixels)
    place: Path = Path("runs")


FULL = Settings(
    name="on",
    rate=3e-7,
    limit=2.0,
    names=("a", "b"),
    shares={"x": 0.25},
    parts=(Part(size=(1, 2)), Part(mode="drop")),
    maybe=Part(),
    masker=Random(ratio=0.6),
)


@pytest.mark.parametrize("settings", [Settings(name="a"), FULL], ids=["defaults", "everything set"])
def test_tree_and_yaml_give_back_the_same_object(settings: Settings, tmp_path: Path) -> None:
    tree = config.to_dict(settings)
    assert config.from_dict(Settings, tree) == settings
    (tmp_path / "config.yaml").write_text(config.dump(tree))
    assert config.from_dict(Settings, config.load(tmp_path / "config.yaml")) == settings


def test_part_is_written_under_its_file_name() -> None:
    assert config.to_dict(FULL)["masker"] == {"kind": "random", "ratio": 0.6}


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("rate", "3e-4", 3e-4),
        ("rate", "2", 2.0),
        ("count", "1e3", 1000),
        ("name", "on", "on"),
        ("name", "12", "12"),
        ("fast", "true", True),
        ("limit", "none", None),
        ("limit", "7", 7.0),
        ("names", "[x, y]", ("x", "y")),
        ("names", "x,y", ("x", "y")),
        ("names", "one", ("one",)),
        ("names", "of=[x,y],z", ("of=[x,y]", "z")),
        ("names", "[]", ()),
        ("parts.0.size", "[16,16]", (16, 16)),
        ("parts.0.mode", "drop", "drop"),
        ("maybe.mode", "drop", "drop"),
        ("masker.ratio", ".25", 0.25),
        ("target.normalise", "none", "none"),
        ("place", "a/b", Path("a/b")),
    ],
)
def test_typed_text_becomes_the_options_type(option: str, text: str, value: object) -> None:
    found: Any = config.override(Settings(name="a"), {option: Typed(text)})
    for piece in option.split("."):
        found = found[int(piece)] if piece.isdigit() else getattr(found, piece)
    assert found == value
    assert type(found) is type(value)


def test_override_leaves_everything_else() -> None:
    assert config.override(FULL, {"rate": Typed("1")}) == replace(FULL, rate=1.0)


def test_part_is_replaced_by_name_and_keeps_what_follows_it() -> None:
    changed = config.override(Settings(name="a"), {"target.kernel": Typed("5"), "target": Typed("gradient")})
    assert type(changed.target).__name__ == "Gradient"
    assert config.to_dict(changed)["target"]["kernel"] == 5


@dataclass(frozen=True, kw_only=True)
class Choices:
    masker: Masker | None = field(default_factory=Random)
    sized: Part | None = Part()
    normalise: Literal["none", "per_patch"] = "per_patch"


@pytest.mark.parametrize("text", ["none", "None", "null", "~"])
def test_an_optional_part_can_be_set_to_none_and_back(text: str) -> None:
    without = config.override(Choices(), {"masker": Typed(text), "sized": Typed(text)})
    assert without == Choices(masker=None, sized=None)
    assert config.override(without, {"masker": Typed("random"), "masker.ratio": Typed("0.3")}).masker == Random(
        ratio=0.3
    )
    assert config.override(Choices(), {"normalise": Typed("none")}).normalise == "none"


def test_a_part_that_is_needed_cannot_be_none() -> None:
    with pytest.raises(ConfigError, match="option 'masker': no masker is called 'none'"):
        config.override(Settings(name="a"), {"masker": Typed("none")})


def test_naming_the_part_that_is_there_changes_nothing() -> None:
    assert config.override(FULL, {"masker": Typed("random")}) == FULL


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("rat", "1", "no option is called 'rat': did you mean 'rate'?"),
        ("masker.ratoi", "1", "no option is called 'masker.ratoi': did you mean 'masker.ratio'?"),
        ("ratio", "1", "no option is called 'ratio': did you mean 'masker.ratio'?"),
        ("zzz", "1", "no option is called 'zzz': --help lists them all."),
        ("parts.3.size", "1", "no option is called 'parts.3.size': 'parts' has 1 entries, counted from 0."),
        ("rate.x", "1", "no option is called 'rate.x': 'rate' is a single value."),
        ("shares.y", "1", "no option is called 'shares.y': give the whole table: --shares='{y: 1.0}'"),
        ("shares.y", "much", "no option is called 'shares.y': none are known."),
        ("shares.y.z", "1", "no option is called 'shares.y.z': none are known."),
        (
            "flips.scene",
            "true,no",
            "no option is called 'flips.scene': give the whole table: --flips='{scene: [true, false]}'",
        ),
        ("rate", "fast", "option 'rate': expected a finite number, got 'fast'."),
        ("rate", "nan", "option 'rate': expected a finite number, got 'nan'."),
        ("rate", ".nan", "option 'rate': expected a finite number, got nan."),
        ("count", "2.5", "option 'count': expected a whole number, got 2.5."),
        ("count", "true", "option 'count': expected a whole number, got True."),
        ("fast", "1", "option 'fast': expected true or false, got 1."),
        ("parts.0.size", "[1,2,3]", "option 'parts.0.size': expected 2 values, got [1, 2, 3]."),
        ("parts.0.mode", "kep", "option 'parts.0.mode': expected one of keep, drop, got 'kep'."),
        ("masker", "rnadom", "option 'masker': no masker is called 'rnadom': did you mean 'random'?"),
        ("parts", "3", "option 'parts.0': expected the options of Part, got 3."),
    ],
)
def test_mistake_is_told_in_one_sentence(option: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.override(Settings(name="a"), {option: Typed(text)})
    assert str(caught.value) == message


def test_an_entry_that_a_table_lacks_is_shown_beside_those_it_has() -> None:
    message = "no option is called 'shares.xx': did you mean 'shares.x'? Or give the whole table: --shares='{x: 0.25, xx: 2.0}'"
    with pytest.raises(ConfigError) as caught:
        config.override(FULL, {"shares.xx": Typed("2")})
    assert str(caught.value) == message
    shown = Typed(message.rpartition("=")[2].strip("'"))
    assert config.override(FULL, {"shares": shown}).shares == {"x": 0.25, "xx": 2.0}


@dataclass(frozen=True, kw_only=True)
class Exact:
    masker: Random = Random()


@dataclass(frozen=True, kw_only=True)
class Needs:
    teacher: TeacherSpec
    masker: Random
    size: int


def test_another_part_than_the_one_that_is_needed_is_told_by_names_that_can_be_typed() -> None:
    with pytest.raises(ConfigError) as caught:
        config.override(Exact(), {"masker": Typed("cells")})
    assert str(caught.value) == "option 'masker': expected the masker 'random', got 'cells'."


def test_a_part_that_is_missing_is_cured_by_one_of_its_names() -> None:
    with pytest.raises(ConfigError) as caught:
        config.from_dict(Needs, {"size": 3}, path="recipe")
    assert str(caught.value) == (
        "expected a value for 'recipe.teacher', 'recipe.masker': there is no default; "
        f"give it, as in --recipe.teacher=NAME, one of {', '.join(registry.names('teachers'))}; "
        "give it, as in --recipe.masker=NAME, one of random; or start from a preset that does."
    )
    with pytest.raises(ConfigError, match=r"'size': there is no default; give it, or start from a preset that does\."):
        config.from_dict(Needs, {"teacher": "itself", "masker": "random"})


def test_option_without_a_value_is_true_or_an_error() -> None:
    assert config.override(FULL, {"fast": config.FLAG}).fast is True
    with pytest.raises(ConfigError, match=r"option 'rate' needs a value, as in --rate=VALUE"):
        config.override(FULL, {"rate": config.FLAG})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "expected a value for 'name': there is no default"),
        ({"name": 3}, "option 'name': expected text, got 3."),
        ({"name": "a", "masker": {"ratio": 0.5}}, "option 'masker': expected the name of one of maskers under 'kind'"),
        ({"name": "a", "masker": {"kind": "random", "share": 1}}, "no option is called 'masker.share'"),
        ({"name": "a", "parts": [{"mode": "keep"}, {"sise": [1, 1]}]}, "'parts.1.sise': did you mean 'parts.1.size'?"),
        ({"name": "a", "shares": [1]}, "option 'shares': expected a mapping from names to values, got [1]."),
    ],
)
def test_wrong_tree_names_the_place(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.from_dict(Settings, tree)
    assert message in str(caught.value)


def test_checks_of_a_part_see_all_overrides_together() -> None:
    """Each alone would be refused: mean and std must agree in length."""
    from core.contract import Normalisation

    fixed = Normalisation(method="fixed", mean=(0.5,), std=(1.0,))
    changed = config.override(fixed, {"mean": Typed("0,0"), "std": Typed("1,1")})
    assert (changed.mean, changed.std) == ((0.0, 0.0), (1.0, 1.0))


def test_merge_lays_options_over_and_replaces_lists_tables_and_other_parts() -> None:
    base = config.to_dict(FULL)
    merged = config.merge(Settings, base, {"rate": 1, "masker": {"ratio": 0.5}, "names": ["z"], "shares": {}})
    assert merged == replace(FULL, rate=1.0, masker=Random(ratio=0.5), names=("z",), shares={})
    other = config.merge(Settings, base, {"target": {"kind": "gradient"}})
    assert config.to_dict(other)["target"]["kind"] == "gradient"
    assert config.merge(Settings, base, base) == FULL


def test_leaves_lists_every_option_once_with_its_value() -> None:
    found = config.leaves(FULL)
    assert found["parts.1.mode"] == "drop"
    assert found["masker"] == "random"
    assert found["masker.ratio"] == 0.6
    assert found["shares.x"] == 0.25
    assert found["names"] == ["a", "b"]


def test_digest_depends_on_values_and_not_on_order() -> None:
    tree = config.to_dict(FULL)
    backwards = dict(reversed(tree.items()))
    assert config.digest(tree) == config.digest(backwards) == config.digest(FULL)
    assert len(config.digest(FULL)) == 16
    assert config.digest(replace(FULL, count=4)) != config.digest(FULL)


def test_differences_name_each_leaf() -> None:
    other = replace(FULL, rate=1.0, parts=(Part(size=(1, 9)), Part(mode="drop")))
    assert config.differences(config.to_dict(FULL), config.to_dict(other)) == [
        "parts.0.size: [1, 2] -> [1, 9]",
        "rate: 3e-07 -> 1.0",
    ]


def test_yaml_that_builds_objects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match=r"evil\.yaml: expected plain YAML"):
        config.load(path)


@pytest.mark.parametrize("text", ["- 1\n- 2", "just text", "", "a: [1", "\x00"])
def test_yaml_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml: expected"):
        config.load(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no\.yaml does not exist"):
        config.load(tmp_path / "no.yaml")
