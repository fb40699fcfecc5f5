"""What can be wrong with an image or a collection: a code for machines, a severity, one sentence, and what to do.

An image is judged by its facts and statistics, here; a collection in `judge`. Nothing here reads a file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from core.errors import HalfseenError, MissingDataError
from datasets.image import LazyImage
from datasets.statistics import Statistics

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that whoever owns the data should know.

    Attributes:
        code: a short word for machines.
        severity: `error` must be mended before anyone trains on it, `warning` should be looked at, `note` is good to know.
        file: the image that it is about, or the one that shows it best; relative to its root where it has one.
        text: one sentence; it holds nothing of an image's header text.
    """

    code: str
    severity: Severity
    file: str
    text: str


@dataclass(frozen=True)
class Kind:
    """One kind of finding: how grave it is unless an option says otherwise, its title, and what to do about it."""

    severity: Severity
    title: str
    cure: str


KINDS: dict[str, Kind] = {
    "unreadable": Kind(
        "error",
        "cannot be read",
        "Do what its sentence says; copy damaged files again from their source, and leave out what is no image (--exclude).",
    ),
    "outside": Kind(
        "error", "leads out of its folder", "Put lists and links into a folder that holds all, or allow it: --allow-outside."
    ),
    "no_data": Kind("error", "holds no measured voxel", "Remove it, or mend its nodata value."),
    "changed": Kind("error", "is no longer what the manifest says", "Restore the file, or check the collection anew."),
    "missing": Kind("error", "is listed and not on disk", "Restore the file, or mend the list or manifest."),
    "duplicate_across_splits": Kind(
        "error", "is in training and held-out data at once", "Keep one copy: scores on the other would be too good."
    ),
    "duplicate_across_groups": Kind(
        "error", "is in two groups", "Keep one copy, or correct the group (patient, scene, slide) of one."
    ),
    "unlisted": Kind(
        "warning",
        "lies in the folder, but not in its manifest",
        "Remove manifest.parquet and check the folder again to take it in.",
    ),
    "linked_folder": Kind("warning", "is a link to a folder, which is not searched", "Name it beside PATH to take it in."),
    "label_like": Kind("warning", "looks like labels of other images", "Leave it out, if it is."),
    "divided_group": Kind("error", "its group is in two splits", "Move all images of the group into one split."),
    "missing_label": Kind("error", "has no label", "Complete the list, or leave those rows out."),
    "missing_chunks": Kind(
        "warning", "has chunks that were never written", "If the store was copied, copy it again; else nothing is lost."
    ),
    "duplicate": Kind("warning", "is a copy of another image", "Keep one of them."),
    "nonfinite": Kind("warning", "holds NaN or infinity", "They count as not measured; make sure that they are meant."),
    "constant": Kind("warning", "has one value everywhere", "Look at it; remove it if it is blank."),
    "mostly_constant": Kind("note", "is nearly all one value", "Look at some; blank images teach nothing."),
    "sparse": Kind("warning", "is mostly not measured", "Crop it to its content, or expect few samples from it."),
    "suspected_nodata": Kind(
        "warning", "seems to hold a fill value", "Declare that value as nodata in the file, or it is trained on."
    ),
    "huge_values": Kind("warning", "holds values beyond 16 million", "Look for fill values or a wrong unit."),
    "anisotropic": Kind("note", "has voxels that are far from cubes", "Choose a patch shape that follows the spacing."),
    "slow_access": Kind("note", "is slow to read in windows", "Convert, unless it is a photograph that is read whole anyway."),
    "no_crs": Kind("warning", "has no coordinate reference system", "Assign it, if the images' places matter."),
    "geographic_crs": Kind("note", "is in degrees, not metres", "Project it, if pixels should have one size."),
    "unnamed_bands": Kind(
        "note", "does not name its bands", "Name them: --options 'geotiff.bands=[red,green,...]', or in the file."
    ),
    "header_text": Kind(
        "warning", "may say who was imaged in its header", "Have it de-identified; convert leaves header text behind."
    ),
    "burned_in": Kind("warning", "has text burned into its pixels", "Have it de-identified, or leave it out."),
    "burned_in_unknown": Kind(
        "warning", "may have text burned into its pixels", "Look at it: no header can promise that there is none."
    ),
    "uneven_spacing": Kind("warning", "has slices at uneven distances", "Ask whether slices are missing."),
    "other_series": Kind("warning", "lies with slices of another series", "Give each series a folder of its own."),
    "first_volume": Kind("warning", "holds more volumes than are read", "Choose them by the reader's option."),
    "wrong_axis": Kind("warning", "has coordinates that cannot be", "Mend its geotransform: x and y may be exchanged."),
    "no_transform": Kind("warning", "does not say where its pixels are", "Mend its georeference."),
    "control_points": Kind("warning", "is not on a map's grid", "Warp it to a map first."),
    "nodata_out_of_range": Kind("warning", "has a nodata value that no voxel can have", "Mend the value in the file."),
    "v2_and_v3": Kind("warning", "has metadata of two Zarr versions", "Delete the one that is out of date."),
    "no_spacing": Kind("note", "does not say how large its voxels are", "Nothing to do, if sizes in voxels will do."),
    "no_geometry": Kind("note", "has a format without voxel sizes", "Nothing to do, if sizes in voxels will do."),
    "mixed_dtype": Kind("warning", "voxel types differ", "Convert to one type, or make sure that values mean the same."),
    "mixed_bands": Kind("warning", "bands differ", "Separate the images, or name the bands that all have."),
    "mixed_spacing": Kind("note", "voxel sizes differ", "Resample on conversion (--spacing), if a model assumes one size."),
    "mixed_values": Kind("note", "values have very different scales", "Normalise per image, or ask what the values mean."),
    "mixed_units": Kind("warning", "spacing is in different units", "Separate the images by kind."),
    "mixed_crs": Kind("note", "coordinate reference systems differ", "Nothing to do, unless scenes are to be joined."),
}  # fmt: skip

_FLAG = Kind("note", "is unusual, and was accepted", "Read the sentence, and decide whether you accept it too.")

_FAR = 5.0  # ratio of spacings
_SPARSE, _BLANK = 0.5, 0.98  # shares
_HUGE = float(1 << 24)  # beyond, float32 cannot tell whole numbers apart
_SLOW = 4.0  # voxels decoded per voxel wanted
_TILE = {2: 512, 3: 96}  # a typical training window


def kind_of(code: str) -> Kind:
    """Describe a code; a reader's own flag that nothing is known of is a note."""
    return KINDS.get(code, _FLAG)


def finding(code: str, file: str, text: str, severity: Severity | None = None) -> Finding:
    """Make a finding with the severity that its code has."""
    return Finding(code, severity or kind_of(code).severity, file, text)


def unreadable(error: BaseException, file: str, path: Path) -> Finding:
    """Describe an image that could not be read; the error's class says in what way."""
    if isinstance(error, MissingDataError) and not path.exists():  # else it is a library, or a part of a store
        return finding("missing", file, f"expected it at {path}.")
    text = str(error).replace(f"{path}: ", "", 1).replace(str(path), file)
    if not isinstance(error, HalfseenError):
        text += " (a fault of the reader that halfseen should have named; please report it)"
    return finding("unreadable", file, f"{type(error).__name__}: {text}")


def judge_image(image: LazyImage, statistics: Sequence[Statistics], file: str, reader: str) -> list[Finding]:
    """Say what is unusual about one image, given the statistics of each band."""
    found = [finding(flag.code, file, flag.text.replace(f"{image.path}: ", "", 1)) for flag in image.flags]
    valid = sum(band.valid for band in statistics)
    share = valid / max(1, sum(band.count for band in statistics))
    if not valid:
        found.append(finding("no_data", file, "expected measured voxels, but none of them is: all are nodata or NaN."))
    elif share < _SPARSE and not any(entry.code == "sparse" for entry in found):
        found.append(finding("sparse", file, f"{100 * share:.2g} % of its voxels are measured."))
    found += _nonfinite(image, statistics, file)
    if valid:
        found += _flatness(image, statistics, file)
        found += _range(image, statistics, file)
    steps = image.spacing.values
    if image.ndim == 3 and max(steps) > _FAR * min(steps) and not any(e.code == "anisotropic" for e in found):
        text = f"spacing {_times(steps)} {image.spacing.unit}: {max(steps) / min(steps):.2g} to 1."
        found.append(finding("anisotropic", file, text))
    return found + _access(image, file, reader)


def access_factor(image: LazyImage) -> float:
    """Estimate how many voxels are decoded for each voxel of a random training window (512^2 or 96^3)."""
    wanted = [min(n, _TILE[image.ndim]) for n in image.size]
    touched = [min(n, chunk + want - 1) for n, chunk, want in zip(image.size, image.chunks, wanted, strict=True)]
    return math.prod(touched) / math.prod(wanted)


def _nonfinite(image: LazyImage, statistics: Sequence[Statistics], file: str) -> list[Finding]:
    meant = [image.nodata is not None and image.nodata[row] != image.nodata[row] for row in range(len(statistics))]
    number = sum(band.nonfinite for band, nan in zip(statistics, meant, strict=True) if not nan)
    if not number:
        return []
    share = number / sum(band.count for band in statistics)
    return [finding("nonfinite", file, f"{number:,} voxels ({100 * share:.2g} %) are NaN or infinite.")]


def _flatness(image: LazyImage, statistics: Sequence[Statistics], file: str) -> list[Finding]:
    names = [name for name, band in zip(image.bands, statistics, strict=True) if band.valid and band.low == band.high]
    if names:
        which = "every band" if len(names) == len(image.bands) else f"band {', '.join(names[:5])}"
        values = sorted({band.low for band in statistics if band.valid and band.low == band.high})
        return [finding("constant", file, f"{which} is {', '.join(f'{value:g}' for value in values[:5])} everywhere.")]
    most = min(band.mode_share for band in statistics if band.valid)
    if most > _BLANK:
        return [finding("mostly_constant", file, f"{100 * most:.3g} % of its voxels have one value.")]
    return []


def _range(image: LazyImage, statistics: Sequence[Statistics], file: str) -> list[Finding]:
    found = []
    top = max(max(abs(band.low), abs(band.high)) for band in statistics if band.valid)
    if image.dtype.kind == "f" and top > _HUGE:
        found.append(finding("huge_values", file, f"its values reach {top:.3g}."))
    fills = [(name, fill) for name, band in zip(image.bands, statistics, strict=True) if (fill := _fill(band))]
    if fills:
        names = ", ".join(name for name, _ in fills[:5])
        value, share = fills[0][1]
        text = f"{100 * share:.2g} % of the voxels of {names} are exactly {value:g}, far from all others."
        found.append(finding("suspected_nodata", file, text))
    return found


def _fill(band: Statistics) -> tuple[float, float] | None:
    """The value that looks like a fill: at an end of the range, common, and far from everything else; and its share."""
    if not band.whole or np.dtype(band.dtype).itemsize != 2 or len(band.bins) < 3:
        return None
    bins, counts = band.bins, band.counts
    for end, next_to, other in ((-1, -2, 0), (0, 1, -1)):
        gap = abs(int(bins[end]) - int(bins[next_to]))
        rest = abs(int(bins[next_to]) - int(bins[other]))
        share = int(counts[end]) / band.valid
        if share > 0.005 and gap > max(rest / 4, 100):
            return (band.high if end == -1 else band.low), share
    return None


def _access(image: LazyImage, file: str, reader: str) -> list[Finding]:
    factor = access_factor(image)
    if factor < _SLOW:
        return []
    if not image.windowed:
        why = "gz: convert first" if image.path.suffix.lower() == ".gz" else "whole-image coding: convert first"
    elif reader == "geotiff" and image.chunks[-1] == image.size[-1] and image.chunks[-2] < _TILE[2] // 4:
        why = "strips: convert first"
    elif reader == "nifti":  # mapped: rows are read, not planes
        return []
    else:
        why = "large chunks: convert first"
    window = _times([min(n, _TILE[image.ndim]) for n in image.size])
    return [
        finding("slow_access", file, f"{why}: about {factor:.0f} voxels are decoded for each of a {window} window.")
    ]


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
