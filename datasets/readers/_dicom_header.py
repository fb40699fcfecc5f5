"""Headers of DICOM files: what voxels and geometry need, checked against each other and against the file's length.

Words of a file (modality, unit, ...) are compared with lists of known words; a word that is on none counts as absent.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import DamagedError, MissingDataError, UnsupportedError
from datasets.readers._dicom_elements import FrameItem, Groups, Item, parse, transfer_syntax

Triple = tuple[float, float, float]

PLAIN = {"1.2.840.10008.1.2": "<", "1.2.840.10008.1.2.1": "<", "1.2.840.10008.1.2.2": ">"}
_MODALITIES = frozenset(
    "CR CT DX ES GM IO IVOCT MG MR NM OCT OP OPT OT PT PX RF RG RTDOSE RTIMAGE SC SEG SM US XA XC".split()
)
_UNITS = {"HU": "HU", "BQML": "Bq/mL", "CNTS": "counts", "GML": "g/mL", "OD": "optical density / 1000"}
_COLOURS = frozenset(
    "MONOCHROME1|MONOCHROME2|PALETTE COLOR|RGB|YBR_FULL|YBR_FULL_422|YBR_PARTIAL_420|YBR_ICT|YBR_RCT".split("|")
)


@dataclass(frozen=True)
class Frame:
    """One plane of pixels: where it is in the patient (LPS, mm) and value = slope * stored + intercept."""

    position: Triple | None
    rows_and_columns: tuple[float, ...] | None
    slope: float
    intercept: float


@dataclass(frozen=True)
class Pixels:
    """How the pixels of one file are stored; files of one volume agree in all of it but `syntax`.

    Attributes:
        rows: see columns.
        columns: of a frame.
        samples: 1 or 3 per pixel.
        allocated: bits that a sample takes.
        stored: bits of it that carry the value.
        high: number of the highest of them.
        signed: two's complement.
        colours: photometric interpretation.
    """

    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    high: int
    signed: bool
    colours: str


@dataclass(frozen=True)
class Header:
    """What is taken from a file.

    Attributes:
        path: the file.
        syntax: transfer syntax.
        series: what tells series apart; for comparing, never for showing.
        modality: a known one, or "".
        pixels: how they are stored.
        frames: at least one.
        offset: where the pixels begin in the file.
        spacing: (down, right) in mm in the patient, or None.
        detector: the same at the detector or scanner glass, or None.
        thickness: distance to the next slice in mm as the header has it, or None.
        padding: lowest and highest stored value that mean "no pixel", or None.
        burned_in: whether the file says that text is burned into its pixels.
        unit: of the values, if it is a known one.
    """

    path: Path
    syntax: str
    series: str
    modality: str
    pixels: Pixels
    frames: tuple[Frame, ...]
    offset: int
    spacing: tuple[float, float] | None
    detector: tuple[float, float] | None
    thickness: float | None
    padding: tuple[int, int] | None
    burned_in: bool
    unit: str | None


def is_dicom(path: Path) -> bool:
    """Say whether a file begins with a preamble and DICM."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_header(path: Path) -> Header:
    """Read what precedes the pixels of a file, and check that the pixels are all there.

    Raises:
        DamagedError: the header or the file ends early or contradicts itself.
        UnsupportedError: it is a kind of pixels that is not read, or none at all.
    """
    syntax = transfer_syntax(path)
    data, offset, length = parse(path)
    item = Item(path, data)
    _check_class(path, item)
    pixels = _pixels(path, item)
    count = int((item.numbers("NumberOfFrames") or (1.0,))[0])
    if not 1 <= count <= 1_000_000:
        raise DamagedError(f"{path}: expected 1 or more frames, its header says {count}; copy or export it again.")
    _check_syntax(path, syntax)
    if offset is None:
        raise DamagedError(f"{path}: its header describes an image, but it holds no pixels; copy or export it again.")
    _check_length(path, syntax, pixels, count, offset, length)
    groups = Groups(item)
    if groups.each and len(groups.each) != count:
        raise DamagedError(
            f"{path}: expected {count} frames, its header describes {len(groups.each)}; export it again."
        )
    first = groups.frame(0)
    thickness = first.numbers("SpacingBetweenSlices") or first.numbers("SliceThickness")
    detector = item.numbers("ImagerPixelSpacing") or item.numbers("NominalScannedPixelSpacing")
    modality = item.word("Modality", _MODALITIES)
    return Header(
        path=path,
        syntax=syntax,
        series=item.text("SeriesInstanceUID"),
        modality=modality,
        pixels=pixels,
        frames=tuple(_frames(item, groups, count)),
        offset=offset,
        spacing=_pair(path, "PixelSpacing", first.numbers("PixelSpacing")),
        detector=_pair(path, "ImagerPixelSpacing", detector),
        thickness=abs(thickness[0]) if thickness else None,
        padding=_padding(item, pixels),
        burned_in=item.text("BurnedInAnnotation") == "YES",
        unit=_unit(first, item, modality),
    )


def is_slice(path: Path) -> bool:
    """Say whether a file is one slice at a known position, cheaply: of a file that cannot be read, True.

    Without pydicom it cannot be told, and True leads to the sentence that says what to install.
    """
    try:
        transfer_syntax(path)
        data, _, _ = parse(path)
    except (DamagedError, MissingDataError):
        return True
    item = Item(path, data)
    frames = item.text("NumberOfFrames") or "1"
    return bool(item.text("ImagePositionPatient") and item.text("ImageOrientationPatient")) and frames == "1"


def _check_syntax(path: Path, syntax: str) -> None:
    """Refuse a transfer syntax that is not decoded here.

    Raises:
        UnsupportedError: the message names the syntax and the plugin that would decode it.
    """
    if syntax in PLAIN:
        return
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    uid = UID(syntax)
    name = uid.name if uid.is_transfer_syntax else "an unknown transfer syntax"
    try:
        decoder = get_decoder(uid)
        ready, missing = decoder.is_available, decoder.missing_dependencies
    except NotImplementedError:
        ready, missing = False, []
    if ready and not uid.is_deflated:
        return
    cure = (
        f"install one of its plugins ({'; '.join(missing)})" if missing else "convert it to Explicit VR Little Endian"
    )
    raise UnsupportedError(f"{path}: its pixels are coded as {name}, which cannot be decoded here; {cure}.")


def _frames(top: Item, groups: Groups, count: int) -> Iterator[Frame]:
    offsets = top.numbers("GridFrameOffsetVector")
    dose = top.numbers("DoseGridScaling")
    for number in range(count):
        item = groups.frame(number)
        place, turn = item.numbers("ImagePositionPatient"), item.numbers("ImageOrientationPatient")
        if (turn is not None and len(turn) != 6) or (place is not None and len(place) != 3):
            raise DamagedError(f"{top.path}: its position or orientation has the wrong length; export it again.")
        if count > 1 and not groups.each:
            place = _along(place, turn, offsets, number, count)
        slope = (dose or item.numbers("RescaleSlope") or (1.0,))[0]
        intercept = (item.numbers("RescaleIntercept") or (0.0,))[0]
        if slope == 0:
            raise DamagedError(f"{top.path}: its RescaleSlope is 0, all values would be one; mend the header.")
        position = None if place is None else (place[0], place[1], place[2])
        yield Frame(position, turn, slope, intercept)


def _along(
    place: tuple[float, ...] | None,
    turn: tuple[float, ...] | None,
    offsets: tuple[float, ...] | None,
    number: int,
    count: int,
) -> tuple[float, ...] | None:
    """The position of a frame of a dose grid: its first one's, and offsets along the normal."""
    if place is None or turn is None or offsets is None or len(offsets) != count:
        return None
    (a, b, c), (d, e, f) = turn[:3], turn[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    step = offsets[number] - offsets[0]
    return tuple(p + step * n for p, n in zip(place, normal, strict=True))


def _check_class(path: Path, item: Item) -> None:
    if item.text("SOPClassUID") == "1.2.840.10008.1.3.10":
        raise UnsupportedError(
            f"{path}: is the directory of a DICOM medium, not an image; give the files that it lists."
        )
    if item.whole("Rows") is None:
        raise UnsupportedError(f"{path}: expected a DICOM image, got an object without pixels (a report, plan, ...); "
                               "remove it from the images.")  # fmt: skip
    if item.text("Modality") == "SM":
        raise UnsupportedError(f"{path}: is a whole slide in DICOM, which is not read; convert it to a pyramidal TIFF.")
    if item.sequence("ModalityLUTSequence"):
        raise UnsupportedError(f"{path}: its values go through a table (Modality LUT), which is not read; export it with "
                               "the table applied.")  # fmt: skip


def _pixels(path: Path, item: Item) -> Pixels:
    names = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    values = {name: item.whole(name) for name in names}
    if values["SamplesPerPixel"] is None:
        values["SamplesPerPixel"] = 1
    absent = [name for name, value in values.items() if value is None]
    rows, columns, samples, allocated, stored, high, signed = (value or 0 for value in values.values())
    if (
        absent
        or rows < 1
        or columns < 1
        or not 0 < stored <= allocated
        or not stored - 1 <= high < allocated
        or signed > 1
    ):
        said = f"lacks {', '.join(absent)}" if absent else f"says {values}"
        raise DamagedError(f"{path}: expected a header that describes pixels, but it {said}; copy or export it again.")
    colours = item.word("PhotometricInterpretation", _COLOURS)
    if allocated == 1:
        raise UnsupportedError(f"{path}: expected an image, got 1 bit per pixel; annotations are no images, keep them in "
                               "another folder.")  # fmt: skip
    gray = samples == 1 and colours.startswith("MONOCHROME") and allocated in (8, 16, 32)
    if not gray and not (samples == 3 and allocated == 8 and colours.startswith(("RGB", "YBR"))):
        raise UnsupportedError(
            f"{path}: expected gray pixels of 8, 16 or 32 bits or 8-bit colours, got {samples} samples of {allocated} bits, "
            f"{colours or 'of an unknown kind'}; convert it."
        )
    return Pixels(rows, columns, samples, allocated, stored, high, bool(signed), colours)


def _check_length(path: Path, syntax: str, pixels: Pixels, count: int, offset: int, length: int) -> None:
    have = path.stat().st_size
    if syntax not in PLAIN:
        if length >= 0:
            raise DamagedError(f"{path}: its pixels are compressed by name but not in fact; export it again.")
        _check_fragments(path, offset, count)
        return
    samples = pixels.samples if pixels.colours != "YBR_FULL_422" else 2
    expected = count * pixels.rows * pixels.columns * samples * pixels.allocated // 8
    if length not in (expected, expected + expected % 2):
        raise DamagedError(
            f"{path}: its header describes {expected} bytes of pixels, but {length} are there; copy or export it again."
        )
    if offset + expected > have:
        raise DamagedError(
            f"{path}: expected {expected} bytes of pixels, but the file ends after {max(0, have - offset)}; copy it again."
        )


def _check_fragments(path: Path, offset: int, count: int) -> None:
    """Walk over the items of compressed pixels: all inside the file, at least one per frame, and a proper end."""
    have, position, number = path.stat().st_size, offset, 0
    with path.open("rb") as file:
        while True:
            file.seek(position)
            head = file.read(8)
            tag, size = struct.unpack("<II", head) if len(head) == 8 else (0, 0)
            if tag == 0xE0DDFFFE:
                break
            position += 8 + size
            number += 1
            if tag != 0xE000FFFE or position > have:
                raise DamagedError(f"{path}: its compressed pixels are truncated or damaged; copy or export it again.")
    if number - 1 < count:  # the first item is the table of offsets
        raise DamagedError(f"{path}: expected {count} compressed frames, got {number - 1}; copy or export it again.")


def _pair(path: Path, name: str, values: tuple[float, ...] | None) -> tuple[float, float] | None:
    if values is None:
        return None
    if len(values) != 2 or min(values) <= 0:
        raise DamagedError(f"{path}: expected two positive numbers as {name}, got {len(values)} or negative; mend it.")
    return values[0], values[1]


def _padding(item: Item, pixels: Pixels) -> tuple[int, int] | None:
    value = item.whole("PixelPaddingValue", signed=pixels.signed)
    limit = item.whole("PixelPaddingRangeLimit", signed=pixels.signed)
    if value is None or pixels.allocated > 16:
        return None
    other = value if limit is None else limit
    return min(value, other), max(value, other)


def _unit(first: FrameItem, item: Item, modality: str) -> str | None:
    said = _UNITS.get(item.text("Units")) or _UNITS.get(first.text("RescaleType"))
    return "HU" if said is None and modality == "CT" else said
