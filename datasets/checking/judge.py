"""What is wrong with a collection as a whole: copies across splits, divided groups, images that differ from the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from datasets.assembling import divided_groups
from datasets.checking.findings import Finding, finding
from datasets.checking.labels import look_like_labels
from datasets.manifest import Manifest

_SAME = 1.05  # ratio of spacings that is rounding, not a difference
_SCALES = 100.0  # ratio of standard deviations


def names_of(roots: Sequence[Path], files: Sequence[str]) -> list[str]:
    """How images are called in findings: by their file, with the name of its root where there are several."""
    if len(set(roots)) == 1:
        return list(files)
    return [f"{root.name}/{file}" for root, file in zip(roots, files, strict=True)]


def judge_collection(
    manifest: Manifest, names: Sequence[str], *, label: str | None = None, require_crs: bool = False
) -> list[Finding]:
    """Compare the images of a collection with each other; `names` are what they are called in findings."""
    found = [*_copies(manifest, names), *_divided(manifest, names)]
    found += [finding("label_like", names[row], text) for row, text in look_like_labels(manifest)]
    for ndim in (2, 3):
        rows = manifest.rows(ndim=ndim)
        if len(rows) > 1:
            found += _mixtures(manifest.take(rows), [names[row] for row in rows], ndim)
    if label is not None:
        missing = np.flatnonzero(manifest.table[label].is_null().to_numpy()).tolist()
        found += [finding("missing_label", names[row], f"expected a '{label}', got none.") for row in missing]
    if require_crs:
        lacking = manifest.rows(ndim=2, crs=None)
        text = "expected a coordinate reference system (--require-crs), got none."
        found += [finding("no_crs", names[row], text, "error") for row in lacking]
    return found


def _copies(manifest: Manifest, names: Sequence[str]) -> Iterator[Finding]:
    """Images whose files, or whose decoded voxels, are equal; each set of copies is one finding."""
    told: set[frozenset[int]] = set()
    flat = np.array([low == high for low, high in zip(manifest.column("low"), manifest.column("high"), strict=True)])
    for column, what in (("digest", "the same file"), ("voxel_digest", "the same voxels in another file")):
        codes, values = manifest.codes(column)
        several = np.flatnonzero(np.bincount(codes[codes >= 0], minlength=len(values)) > 1)
        if not len(several):
            continue
        order = np.argsort(codes, kind="stable")
        for code in several:
            low, high = np.searchsorted(codes[order], [code, code + 1])
            rows = order[low:high]
            key = frozenset(rows.tolist())
            if key in told or (column == "voxel_digest" and flat[rows[0]]):  # blank images are alike, not copies
                continue
            told.add(key)
            yield _copy(manifest, names, rows, what)


def _copy(manifest: Manifest, names: Sequence[str], rows: np.ndarray, what: str) -> Finding:
    others = ", ".join(names[row] for row in rows[1:6]) + (f" and {len(rows) - 6} more" if len(rows) > 6 else "")
    text = f"{what} as {others}"
    for column, code in (("split", "duplicate_across_splits"), ("group", "duplicate_across_groups")):
        values = [manifest.table[column][int(row)].as_py() for row in rows]
        if len(set(values)) > 1 and not (column == "group" and _ungrouped(manifest, rows, values)):
            said = "" if column == "group" else f" ({column}: {', '.join(map(str, values[:6]))})"
            return finding(code, names[rows[0]], f"{text}{said}.")
    return finding("duplicate", names[rows[0]], f"{text}.")


def _ungrouped(manifest: Manifest, rows: np.ndarray, groups: Sequence[str]) -> bool:
    """Whether images are their own groups only because nobody named any."""
    files = [manifest.table["file"][int(row)].as_py() for row in rows]
    return all(file.startswith(group) or group.endswith(file) for file, group in zip(files, groups, strict=True))


def _divided(manifest: Manifest, names: Sequence[str]) -> Iterator[Finding]:
    for group, text in divided_groups(manifest).items():
        row = int(manifest.rows(group=group)[0])
        yield finding("divided_group", names[row], text)


def _mixtures(manifest: Manifest, names: Sequence[str], ndim: int) -> Iterator[Finding]:
    """Facts in which some images of one rank differ from most."""
    columns: dict[str, tuple[str, Callable[[str], str]]] = {
        "dtype": ("mixed_dtype", lambda value: value),
        "bands": ("mixed_bands", _listed),
        "unit": ("mixed_units", lambda value: value),
        "crs": ("mixed_crs", lambda value: value[:40]),
    }
    for column, (code, show) in columns.items():
        values = ["none" if value is None else show(value) for value in manifest.column(column)]
        counts = {value: values.count(value) for value in dict.fromkeys(values)} if len(set(values)) <= 50 else {}
        if len(set(values)) > 1:
            ranked = sorted(counts.items(), key=lambda entry: -entry[1]) or [(values[0], values.count(values[0]))]
            odd = next(row for row, value in enumerate(values) if value != ranked[0][0])
            listed = "; ".join(f"{value} ({number})" for value, number in ranked[:6])
            more = f" and {len(set(values)) - 6} more" if len(set(values)) > 6 else ""
            yield finding(code, names[odd], f"the {len(manifest)} {ndim}D images have {listed}{more}.")
    yield from _spacings(manifest, names, ndim)
    yield from _scales(manifest, names, ndim)


def _spacings(manifest: Manifest, names: Sequence[str], ndim: int) -> Iterator[Finding]:
    if len(set(manifest.column("unit"))) > 1 or manifest.column("unit")[0] == "px":
        return
    spacing = np.array(manifest.column("spacing"), dtype=np.float64)
    low, high = spacing.min(axis=0), spacing.max(axis=0)
    if (high > _SAME * low).any():
        middle = np.median(spacing, axis=0)
        odd = int(np.abs(np.log(spacing / middle)).max(axis=1).argmax())
        ranges = " x ".join(f"{a:.4g}" if a == b else f"{a:.4g}-{b:.4g}" for a, b in zip(low, high, strict=True))
        text = f"the {len(manifest)} {ndim}D images have {ranges} {manifest.column('unit')[0]}."
        yield finding("mixed_spacing", names[odd], text, "warning" if (high > 2 * low).any() else None)


def _scales(manifest: Manifest, names: Sequence[str], ndim: int) -> Iterator[Finding]:
    spread = np.array([max(entry or [0.0]) for entry in manifest.column("std")])
    if not np.isfinite(spread).all() or not (spread > 0).any():
        return
    low, high = spread[spread > 0].min(), spread.max()
    if high > _SCALES * low:
        text = f"standard deviations of the {len(manifest)} {ndim}D images run from {low:.3g} to {high:.3g}."
        yield finding("mixed_values", names[int(spread.argmax())], text)


def _listed(bands: Sequence[str]) -> str:
    return f"{len(bands)} band{'s' * (len(bands) != 1)}: {', '.join(bands[:4])}{', ...' * (len(bands) > 4)}"
