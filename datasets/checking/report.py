"""What a check found, ready to be shown: the facts of a collection in a few lines, and findings grouped by kind.

`report_table` shows it in a terminal, `report_page` as a page to be sent; the JSON is here. No label that could name a
person is listed: values of text columns appear only where a few of them are shared by many images.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from datasets.checking.findings import SEVERITIES, Finding, Severity, kind_of
from datasets.manifest import Manifest

FORMAT = "check 1"

_FEW = 12  # values of a label that are listed
_SHARED = 2  # images per value, on average, from which on a text is a class and not a name


@dataclass(frozen=True)
class Section:
    """A headed list of facts: (name, text)."""

    title: str
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Group:
    """All findings of one code and severity."""

    code: str
    severity: Severity
    title: str
    cure: str
    files: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of a check.

    Attributes:
        paths: what was checked.
        made: when.
        task: `check`, or `verify` against a manifest.
        images: how many were looked at.
        read: how many could be read.
        bytes: of those on disk.
        seconds: that it took.
        sections: what is there.
        findings: what is unusual, gravest first.
    """

    paths: tuple[str, ...]
    made: datetime
    task: str
    images: int
    read: int
    bytes: int
    seconds: float
    sections: tuple[Section, ...]
    findings: tuple[Finding, ...]

    @property
    def groups(self) -> list[Group]:
        """The findings by code, gravest and most frequent first."""
        found: dict[tuple[Severity, str], list[Finding]] = {}
        for entry in self.findings:
            found.setdefault((entry.severity, entry.code), []).append(entry)
        groups = [
            Group(
                code, severity, kind_of(code).title, kind_of(code).cure, len({e.file for e in entries}), tuple(entries)
            )
            for (severity, code), entries in found.items()
        ]
        return sorted(groups, key=lambda group: (SEVERITIES.index(group.severity), -len(group.findings), group.code))

    def count(self, severity: Severity) -> int:
        """Number of findings of a severity."""
        return sum(entry.severity == severity for entry in self.findings)

    @property
    def verdict(self) -> str:
        """One sentence: whether the collection may be used."""
        errors, warnings, notes = (self.count(severity) for severity in SEVERITIES)
        what = f"{self.images:,} image{'s' * (self.images != 1)}"
        if errors:
            rest = f"{_number(warnings, 'warning')}, {_number(notes, 'note')}"
            return f"{what}: {_number(errors, 'error')} to mend before use, {rest}."
        if self.task == "verify":
            return f"{what}: every file is, byte for byte, what the manifest says."
        look = f"{_number(warnings, 'warning')}{' to look at' if warnings else ''}, {_number(notes, 'note')}"
        rest = look if warnings or notes else "nothing unusual"
        return f"{what}, every one decoded to its last voxel: no error, {rest}."

    def to_json(self) -> str:
        """Everything as JSON; keys are stable within `halfseen: check 1`."""
        content: dict[str, Any] = {
            "halfseen": FORMAT,
            "task": self.task,
            "paths": list(self.paths),
            "made": self.made.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
            "images": self.images,
            "read": self.read,
            "bytes": self.bytes,
            "verdict": self.verdict,
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "summary": {section.title: dict(section.lines) for section in self.sections},
            "findings": [asdict(entry) for entry in self.findings],
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def sections_of(manifest: Manifest, group: str | None = None) -> tuple[Section, ...]:
    """Sum up a collection: each rank of image, then groups, splits and labels. `group` is the list's column of groups."""
    found = []
    for ndim, title in ((2, "2D images"), (3, "3D images")):
        rows = manifest.rows(ndim=ndim)
        if len(rows):
            found.append(Section(title, tuple(_kind(manifest.take(rows)))))
    return (*found, Section("Collection", tuple(_collection(manifest, group))))


def size_text(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:  # what three digits would round to a thousand is one of the next unit
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"


def _kind(manifest: Manifest) -> list[tuple[str, str]]:
    shapes = np.array([shape[1:] for shape in manifest.column("shape")])
    lines = [("images", f"{len(manifest):,}"), ("format", _counted(manifest.column("reader")))]
    lines += [("on disk", size_text(sum(manifest.column("bytes")))), ("size", f"{_ranges(shapes)} voxels")]
    lines.append(("voxel type", _counted(manifest.column("dtype"))))
    lines.append(("bands", _counted([_bands(bands) for bands in manifest.column("bands")], "; ")))
    units = manifest.column("unit")
    known = [s for s, unit in zip(manifest.column("spacing"), units, strict=True) if unit != "px"]
    for unit in dict.fromkeys(unit for unit in units if unit != "px"):
        spacing = np.array([s for s, u in zip(manifest.column("spacing"), units, strict=True) if u == unit])
        lines.append(("spacing", f"{_ranges(spacing)} {unit}"))
    if not known:
        lines.append(("spacing", "not stated in the files"))
    crs = [value[:40] for value in manifest.column("crs") if value is not None]
    if crs:
        lines.append(
            ("reference system", _counted(crs) + (f", none ({len(manifest) - len(crs)})" * (len(crs) < len(manifest))))
        )
    lines.append(("values", _values(manifest)))
    return lines


def _values(manifest: Manifest) -> str:
    low = [v for row in manifest.column("low") for v in row or () if v is not None and math.isfinite(v)]
    high = [v for row in manifest.column("high") for v in row or () if v is not None and math.isfinite(v)]
    share = [v for row in manifest.column("valid_share") for v in row or () if v is not None]
    if not low or not share:
        return "not known"
    return f"{min(low):.5g} to {max(high):.5g}; {100 * float(np.mean(share)):.3g} % measured (least {100 * min(share):.3g} %)"


def _collection(manifest: Manifest, group: str | None) -> list[tuple[str, str]]:
    codes, names = manifest.codes("group")
    per = np.bincount(codes, minlength=len(names))
    span = f"{per.min()} to {per.max()}" if per.min() < per.max() else f"{per.max()}"
    apart = f"{span} images each" if per.max() > 1 else "one image each"
    lines = [("groups", f"{len(names):,}, {apart}")]
    splits = Counter("none" if value is None else value for value in manifest.column("split"))
    lines.append(("splits", ", ".join(f"{name} ({number:,})" for name, number in splits.most_common())))
    return lines + [(f"label {name}", _label(manifest, name, group)) for name in manifest.label_names]


def _label(manifest: Manifest, name: str, group: str | None) -> str:
    values = manifest.column(name)
    given = [value for value in values if value is not None]
    missing = f", missing for {len(values) - len(given):,}" if len(given) < len(values) else ""
    if not given:
        return "missing for all"
    counts = Counter(given)
    if isinstance(given[0], float) or (isinstance(given[0], int) and len(counts) > _FEW):
        return f"{min(given):g} to {max(given):g}{missing}"
    if len(counts) <= _FEW and name != group and len(given) >= _SHARED * len(counts):
        listed = sorted(counts.items(), key=lambda entry: (isinstance(entry[0], str), entry[0]))
        return ", ".join(f"{value} ({number:,})" for value, number in listed) + missing
    return f"{len(counts):,} different values{missing}"


def _bands(bands: Sequence[str]) -> str:
    shown = ", ".join(bands) if len(bands) <= 8 else f"{', '.join(bands[:3])}, ..., {bands[-1]}"
    return f"{len(bands)}: {shown}"


def _counted(values: Sequence[str | None], between: str = ", ") -> str:
    counts = Counter("not known" if value is None else value for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    shown = between.join(f"{value} ({number:,})" for value, number in counts.most_common(6))
    return shown + (f" and {len(counts) - 6} more" if len(counts) > 6 else "")


def _ranges(values: np.ndarray) -> str:
    pairs = zip(values.min(axis=0).tolist(), values.max(axis=0).tolist(), strict=True)
    return " x ".join(f"{low:.4g}" if low == high else f"{low:.4g}-{high:.4g}" for low, high in pairs)


def _number(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}" if number else f"no {what}"
