"""Which images are trained on, choose the best check, and are scored: a list's own split, and what that leaves open by chance.

A split that was published is kept. What it does not name is dealt out of its training images, whole groups at a time; a list
without a column `split` leaves everything open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import ConfigError, DataError
from core.finetune import Split
from core.rng import key
from datasets import Manifest

PARTS: tuple[Split, ...] = ("train", "validation", "test")
WORDS: dict[str, Split] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}
"""What the words of published splits mean."""
DEALT, NONE = "dealt", "none"


@dataclass(frozen=True, kw_only=True)
class Own:
    """The split that a list itself gives.

    Attributes:
        split: of each row that is left; of no row where the list gives none.
        said: one sentence that says what was found, empty where there was nothing.
    """

    split: tuple[Split, ...] = ()
    said: str = ""

    def missing(self, part: Split) -> bool:
        """Whether a part is not named by the list, and is dealt."""
        return part not in self.split

    def shares(self, validation: float, test: float) -> tuple[float, float]:
        """Give the shares of validation and test that are dealt: those that are asked for, or 0 of what the list names."""
        return validation * self.missing("validation"), test * self.missing("test")

    def tested(self, what: str) -> str:
        """Call what is scored: `test images`, or, where the list says which those are, `the list's test images`."""
        return what if self.missing("test") else f"the list's {what}"


def meanings(given: Sequence[str]) -> dict[str, Split | None] | None:
    """Read the option `split`: what words mean, None = left out; None of all = no word counts, everything is dealt.

    Raises:
        ConfigError: something else than `dealt`, or `word=part` for a part of train, validation, test and none.
    """
    if tuple(given) == (DEALT,):
        return None
    found: dict[str, Split | None] = {**WORDS}
    for entry in given:
        word, _, part = (text.strip() for text in str(entry).rpartition("="))
        if not word or part not in (*PARTS, NONE):
            raise ConfigError(
                f"option 'split': expected {DEALT}, or word=part with a part of {', '.join(PARTS)} or {NONE}, such as "
                f"test_gt=test, got '{entry}'."
            )
        found[word] = next((each for each in PARTS if each == part), None)
    return found


def own_split(manifest: Manifest, given: Sequence[str]) -> tuple[Manifest, Own]:
    """Read what the column `split` of the data says, and leave out the rows that belong to no part.

    Args:
        manifest: the collection.
        given: the option `split`.

    Raises:
        ConfigError: the option names a word that does not occur, or there is no column.
        DataError: images without a split beside others with one, an unknown word, or nothing to train on.
    """
    said, known = manifest.column("split"), meanings(given)
    if not any(said):
        if given:
            raise ConfigError(f"--split={','.join(given)} has no effect: the data has no column `split`; leave it out.")
        return manifest, Own()
    if known is None:
        return manifest, Own(
            said="the list's own column `split` is left aside (--split=dealt): parts are dealt by group"
        )
    words = Counter(said)
    _check(manifest, said, words, known, given)
    kept = [row for row, word in enumerate(said) if known[word] is not None]
    split = tuple(part for word in said if (part := known[word]) is not None)
    if "train" not in split:
        found = ", ".join(f"'{word}' ({count:,})" for word, count in words.items())
        raise DataError(
            f"expected images of the split 'train' to learn from, the list has {found} only: say what they mean, such as "
            "--split=all=train, or leave that column aside with --split=dealt."
        )
    left = manifest if len(kept) == len(said) else manifest.take(np.array(kept))
    return left, Own(split=split, said=_said(words, known))


def dealt(groups: Sequence[str], own: Own, validation: float, test: float, seed: int) -> list[Split]:
    """Give the part of each row: the list's own, and what that leaves open as a pure function of each group's name and the seed.

    Args:
        groups: of each row.
        own: what the list says.
        validation: share of the groups that is wanted, where the list names no validation.
        test: likewise.
        seed: of the draws.
    """
    validation, test = own.shares(validation, test)
    names: dict[str, Split] = {}
    for group in set(groups):
        draw = (key(seed, "finetune split", group) + (1 << 63)) / (1 << 64)
        names[group] = "test" if draw < test else "validation" if draw < test + validation else "train"
    open_: Split = "train"
    given = own.split or (open_,) * len(groups)
    return [names[group] if part == "train" else part for group, part in zip(groups, given, strict=True)]


def copies_between(digests: Sequence[str], split: Sequence[Split]) -> list[str]:
    """Say how many images of one part are in another one too, byte for byte."""
    where: dict[str, set[Split]] = {}
    for digest, part in zip(digests, split, strict=True):
        where.setdefault(digest, set()).add(part)
    copied = sum(len(where[digest]) > 1 for digest in digests)
    if not copied:
        return []
    return [
        f"{copied:,} of {len(digests):,} images are in several parts, byte for byte: the model may be scored on what it has "
        "learnt. Join their groups, or leave the copies out."
    ]


def _check(
    manifest: Manifest,
    said: Sequence[str | None],
    words: Counter[str],
    known: dict[str, Split | None],
    given: Sequence[str],
) -> None:
    """Refuse rows whose part is not known, and options that say what no row has."""
    cure = "or leave that column aside with --split=dealt."
    if None in said:
        first = manifest.path(said.index(None))
        raise DataError(
            f"expected a split for every image, but {said.count(None):,} of {len(said):,} have none, the first is {first}: "
            f"complete the column `split`, {cure}"
        )
    unknown = [word for word in words if word not in known]
    if unknown:
        found = ", ".join(f"'{word}' ({words[word]:,} images)" for word in unknown)
        meant = " ".join(f"{word}=test" for word in unknown)
        raise DataError(
            f"expected the splits {', '.join(WORDS)}, got {found}, the first is {manifest.path(said.index(unknown[0]))}: say "
            f"what is meant, such as --split {meant}, with a part of {', '.join(PARTS)} or {NONE}, which leaves them out, {cure}"
        )
    for entry in given:
        word = str(entry).rpartition("=")[0].strip()
        if word not in words:
            raise ConfigError(
                f"--split={entry} has no effect: no image is of the split '{word}', the list has {', '.join(words)}."
            )


def _said(words: Counter[str], known: dict[str, Split | None]) -> str:
    """Say what each word of a list is taken for, and what is dealt."""
    told = []
    for part in PARTS:
        found = [(word, count) for word, count in words.items() if known[word] == part]
        other = [word for word, _ in found if word != part]
        named = f" ({', '.join(other)})" if other else ""
        count = sum(number for _, number in found)
        told.append(f"{part}{named} {count:,} images" if found else f"{part} dealt out of train")
    left = sum(count for word, count in words.items() if known[word] is None)
    told += [f"{left:,} left out"] if left else []
    return f"the list's own column `split` is used: {', '.join(told)}"
