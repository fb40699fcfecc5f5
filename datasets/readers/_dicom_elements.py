"""Elements of DICOM files as raw bytes, from a white list of tags; no text of a file leaves here unasked.

They are parsed here rather than by pydicom's value classes: those repeat a value that they do not like in a warning, a log
or an error, and a value may be a patient's name.
"""

from __future__ import annotations

import math
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from core.errors import DamagedError, MissingDataError

if TYPE_CHECKING:
    from pydicom import Dataset

_PIXELS = (0x7FE0, 0x0010)
_TAGS = {
    "SOPClassUID": 0x00080016,
    "Modality": 0x00080060,
    "SliceThickness": 0x00180050,
    "SpacingBetweenSlices": 0x00180088,
    "ImagerPixelSpacing": 0x00181164,
    "NominalScannedPixelSpacing": 0x00182010,
    "SeriesInstanceUID": 0x0020000E,
    "ImagePositionPatient": 0x00200032,
    "ImageOrientationPatient": 0x00200037,
    "SamplesPerPixel": 0x00280002,
    "PhotometricInterpretation": 0x00280004,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelSpacing": 0x00280030,
    "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101,
    "HighBit": 0x00280102,
    "PixelRepresentation": 0x00280103,
    "PixelPaddingValue": 0x00280120,
    "PixelPaddingRangeLimit": 0x00280121,
    "BurnedInAnnotation": 0x00280301,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
    "RescaleType": 0x00281054,
    "ModalityLUTSequence": 0x00283000,
    "Units": 0x00541001,
    "GridFrameOffsetVector": 0x3004000C,
    "DoseGridScaling": 0x3004000E,
    "SharedFunctionalGroupsSequence": 0x52009229,
    "PerFrameFunctionalGroupsSequence": 0x52009230,
}
# The functional group that holds an element in an enhanced multi-frame file.
_GROUPS = {
    "ImagePositionPatient": 0x00209113,
    "ImageOrientationPatient": 0x00209116,
    "PixelSpacing": 0x00289110,
    "SliceThickness": 0x00289110,
    "SpacingBetweenSlices": 0x00289110,
    "RescaleIntercept": 0x00289145,
    "RescaleSlope": 0x00289145,
    "RescaleType": 0x00289145,
}


def pydicom_or_cure() -> Any:
    """Import pydicom.

    Raises:
        MissingDataError: it is not installed.
    """
    try:
        import pydicom
    except ImportError:
        raise MissingDataError("Reading DICOM needs pydicom: pip install 'halfseen[dicom]'.") from None
    return pydicom


def transfer_syntax(path: Path) -> str:
    """The transfer syntax, read before pydicom sees the file: of a damaged one pydicom writes the text to its log."""
    with path.open("rb") as file:
        file.seek(132)
        while len(head := file.read(8)) == 8 and head[:2] == b"\x02\x00":
            _, element, kind, length = struct.unpack("<HH2sH", head)
            if kind in (b"OB", b"UN", b"UT", b"SQ", b"OW"):
                length = int.from_bytes(file.read(4), "little")
            value = file.read(min(length, 64)) if element == 0x0010 else b""
            if re.fullmatch(rb"[0-9.]{1,64}\0*", value):
                return value.rstrip(b"\0").decode()
            if element == 0x0010:
                break
            file.seek(length, os.SEEK_CUR)
    raise DamagedError(f"{path}: its header names no transfer syntax (how pixels are coded); copy or export it again.")


def parse(path: Path) -> tuple[Dataset, int | None, int]:
    """The listed elements, where the pixels begin (None: nowhere), and how many bytes they take (-1: in fragments)."""
    pydicom = pydicom_or_cure()
    broken = f"{path}: expected a whole DICOM header, but it is damaged; copy or export it again."
    try:
        with path.open("rb") as file:
            data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS.values()))
            encoding = data.original_encoding
            offset, length = _element(file, implicit=bool(encoding[0]), order="<" if encoding[1] else ">")
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read ({error.strerror}); copy it again.") from None
    except Exception:  # pydicom raises what it likes, with values of the file in the text: neither goes further
        raise DamagedError(broken) from None
    return data, offset, length


def _element(file: BinaryIO, *, implicit: bool, order: str) -> tuple[int | None, int]:
    """Parse the head of the element at the file's position, where pydicom stopped."""
    head = file.read(12)
    if len(head) < 8 or struct.unpack(order + "HH", head[:4]) != _PIXELS:
        return None, 0
    if implicit:
        file.seek(-(len(head) - 8), os.SEEK_CUR)
        length = struct.unpack(order + "I", head[4:8])[0]
    else:
        length = struct.unpack(order + "I", head[8:12])[0] if len(head) == 12 else 0
    return file.tell(), -1 if length == 0xFFFFFFFF else length


@dataclass(frozen=True)
class Item:
    """Elements of one data set, as raw bytes."""

    path: Path
    data: Dataset

    def raw(self, name: str) -> tuple[bytes, bool]:
        tag = _TAGS[name]
        if tag not in self.data:
            return b"", True
        element = self.data.get_item(tag)
        value = getattr(element, "value", b"")
        return (value, getattr(element, "is_little_endian", True)) if isinstance(value, bytes) else (b"", True)

    def text(self, name: str) -> str:
        return self.raw(name)[0].decode("ascii", errors="ignore").strip(" \0")

    def word(self, name: str, known: frozenset[str]) -> str:
        found = self.text(name)
        return found if found in known else ""

    def whole(self, name: str, *, signed: bool = False) -> int | None:
        value, little = self.raw(name)
        if not value:
            return None
        if len(value) < 2:
            raise DamagedError(f"{self.path}: its {name} is damaged; copy or export it again.")
        code = ("<" if little else ">") + ("h" if signed else "H")
        return int(struct.unpack(code, value[:2])[0])

    def numbers(self, name: str) -> tuple[float, ...] | None:
        text = self.text(name)
        if not text:
            return None
        try:
            values = tuple(float(part) for part in text.split("\\"))
        except ValueError:
            values = (math.nan,)
        if not all(math.isfinite(value) for value in values):
            raise DamagedError(f"{self.path}: its {name} is not finite numbers; mend the header or export it again.")
        return values

    def sequence(self, name: str) -> list[Item]:
        return self.items(_TAGS[name])

    def items(self, tag: int) -> list[Item]:
        if tag not in self.data:
            return []
        try:
            return [Item(self.path, entry) for entry in self.data[tag].value]
        except Exception:  # as in `parse`
            raise DamagedError(f"{self.path}: a sequence of its header is damaged; export it again.") from None


class Groups:
    """Elements of a frame wherever an enhanced or a plain file keeps them: per frame, shared, or at the top."""

    def __init__(self, top: Item) -> None:
        self.top = top
        self.shared = top.sequence("SharedFunctionalGroupsSequence")[:1]
        self.each = top.sequence("PerFrameFunctionalGroupsSequence")

    def frame(self, number: int) -> FrameItem:
        own = self.each[number : number + 1]
        return FrameItem((*own, *self.shared), self.top)


@dataclass(frozen=True)
class FrameItem:
    groups: tuple[Item, ...]
    top: Item

    def holder(self, name: str) -> Item:
        for group in self.groups:
            for item in group.items(_GROUPS[name]):
                if item.text(name):
                    return item
        return self.top

    def numbers(self, name: str) -> tuple[float, ...] | None:
        return self.holder(name).numbers(name)

    def text(self, name: str) -> str:
        return self.holder(name).text(name)
