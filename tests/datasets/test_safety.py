"""Paths that must not be opened, and archives that must not be unpacked: an attacker's list."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import socket
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from core.config import load
from core.errors import (
    BudgetError,
    ConfigError,
    DamagedError,
    DataError,
    HalfseenError,
    MissingDataError,
    UnsafeError,
    UnsupportedError,
)
from datasets import safety
from datasets.collect import entries_of
from datasets.content import digest_of
from datasets.converting.prepare import convert
from datasets.index import build_manifest
from datasets.manifest import Manifest
from datasets.opening import Images
from datasets.readers import open_image
from datasets.safety import extract, inside, local


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/vsicurl/http://127.0.0.1/a.tif",
        "/vsizip//data/a.zip/a.tif",
        "//vsimem/a.tif",
        "/VSIMEM/a.tif",
        "http://127.0.0.1/a.tif",
        "https://example.org/a.nii.gz",
        "s3://bucket/a.tif",
        "file:///etc/passwd",
        'NETCDF:"/etc/passwd":a',
        "HDF5:a.h5://x",
        "vrt:///etc/passwd",
        "GTIFF_RAW:a.tif",
        "<VRTDataset rasterXSize='1'/>",
        "  <VRTDataset/>",
        "a.tif\0.png",
        "x" * 300,
    ],
)
def test_text_that_is_no_local_path_is_refused_and_nothing_is_fetched(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    with pytest.raises(UnsafeError, match=r"copy|give"):
        open_image(text)


def test_relative_name_is_no_virtual_path_in_the_root_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    with pytest.raises(UnsafeError, match=r"virtual file systems"):
        local("vsicurl/http://127.0.0.1/a.tif")


def test_pipe_and_device_are_refused_before_anything_waits_on_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    (tmp_path / "zeros.png").symlink_to("/dev/zero")
    for name in ("pipe.nii", "zeros.png"):
        with pytest.raises(UnsafeError, match=rf"{name}: expected a file or folder, got a device, pipe"):
            open_image(tmp_path / name)


def test_odd_names_of_real_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("scan:1.png", "NETCDF:x.png", "vsi.png", "Ünïcödé ☃.png", "a\nb.png"):
        Image.fromarray(np.full((8, 9), 7, np.uint8)).save(tmp_path / name, "png")
        assert open_image(name).shape == (1, 8, 9)


def test_links_are_followed_to_see_whether_they_leave_the_root(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    root.mkdir()
    secret.write_text("secret")
    (root / "out").symlink_to(secret)
    (root / "up").symlink_to("..")
    (root / "a").symlink_to(root / "b")
    (root / "b").symlink_to(root / "a")
    (root / "file").write_text("x")
    (root / "in").symlink_to(root / "file")
    for name in ("file", "in", "not there", "deep/../file"):
        assert inside(root, root / name) == root / name
    for name in ("out", "up/secret", "../secret", "deep/../../secret", "/etc/passwd"):
        with pytest.raises(UnsafeError, match=r"expected a file inside .*root, but it leads to"):
            inside(root, root / name)
    with pytest.raises(DataError, match=r"a: (expected a file inside .* links lead in a circle|cannot be opened)"):
        open_image(inside(root, root / "a"))  # Python 3.13 resolves a circle to itself; then it cannot be opened


# Archives --------------------------------------------------------------------------------------------------------


def _tar(path: Path, *members: tuple[str, bytes, dict[str, object]], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", format=form) as file:
        for name, content, facts in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in facts.items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(content))
    return path


def _zip(path: Path, *members: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content, mode in members:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return path


def _link(kind: bytes, to: str) -> dict[str, object]:
    return {"type": kind, "linkname": to}


CLIMBERS: dict[str, Callable[[Path], Path]] = {
    "tar_parent": lambda p: _tar(p / "a.tar", ("../out.txt", b"x", {})),
    "tar_deep_parent": lambda p: _tar(p / "a.tar.gz", ("a/../../out.txt", b"x", {})),
    "tar_absolute": lambda p: _tar(p / "a.tar", (f"{p}/out.txt", b"x", {})),
    "tar_backslash": lambda p: _tar(p / "a.tar", ("..\\out.txt", b"x", {})),
    "tar_symlink": lambda p: _tar(p / "a.tar", ("l", b"", _link(tarfile.SYMTYPE, "..")), ("l/out.txt", b"x", {})),
    "tar_symlink_inside": lambda p: _tar(p / "a.tar", ("f", b"x", {}), ("l", b"", _link(tarfile.SYMTYPE, "f"))),
    "tar_hardlink": lambda p: _tar(p / "a.tar", ("l", b"", _link(tarfile.LNKTYPE, "../secret"))),
    "tar_device": lambda p: _tar(p / "a.tar", ("d", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5})),
    "tar_pipe": lambda p: _tar(p / "a.tar", ("d", b"", {"type": tarfile.FIFOTYPE})),
    "tar_twice": lambda p: _tar(p / "a.tar", ("f", b"x", {}), ("./f", b"y", {})),
    "tar_file_as_folder": lambda p: _tar(p / "a.tar", ("f", b"x", {}), ("f/g", b"y", {})),
    "tar_long_pax_name": lambda p: _tar(p / "a.tar", ("../" * 60 + "out.txt", b"x", {})),
    "tar_long_gnu_name": lambda p: _tar(p / "a.tar", ("../" * 60 + "out.txt", b"x", {}), form=tarfile.GNU_FORMAT),
    "zip_parent": lambda p: _zip(p / "a.zip", ("../out.txt", b"x", 0o100644)),
    "zip_absolute": lambda p: _zip(p / "a.zip", (f"{p}/out.txt", b"x", 0o100644)),
    "zip_backslash": lambda p: _zip(p / "a.zip", ("a\\..\\..\\out.txt", b"x", 0o100644)),
    "zip_backslash_inside": lambda p: _zip(p / "a.zip", ("a\\b", b"x", 0o100644)),
    "zip_drive": lambda p: _zip(p / "a.zip", ("C:out.txt", b"x", 0o100644)),
    "zip_symlink": lambda p: _zip(p / "a.zip", ("l", b"../secret", stat.S_IFLNK | 0o777)),
    "zip_device": lambda p: _zip(p / "a.zip", ("d", b"", stat.S_IFCHR | 0o666)),
    "zip_newline": lambda p: _zip(p / "a.zip", ("a\nb", b"x", 0o100644)),
    "zip_file_as_folder": lambda p: _zip(p / "a.zip", ("f", b"x", 0o100644), ("f/g", b"y", 0o100644)),
}


@pytest.mark.parametrize("attack", sorted(CLIMBERS))
def test_archive_that_climbs_or_links_is_refused_and_leaves_nothing(attack: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "secret").write_text("secret")
    archive = CLIMBERS[attack](home)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UnsafeError, match=rf"{archive.name}: its member .*(remove it|pack it again)"):
        extract(archive, home / "target")
    assert sorted(tmp_path.rglob("*")) == before
    assert (home / "secret").read_text() == "secret"


def test_bomb_is_refused_by_its_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safety, "_NO_RATIO", 1 << 20)
    zipped = _zip(tmp_path / "a.zip", ("f", bytes(8 << 20), 0o100644))
    tarred = _tar(tmp_path / "a.tar.gz", ("f", bytes(8 << 20), {}))
    for archive in (zipped, tarred):
        assert archive.stat().st_size * 900 < 8 << 20
        with pytest.raises(
            BudgetError, match=rf"{archive.name}: its members hold or declare too many bytes, in all or"
        ):
            extract(archive, tmp_path / "target")
        assert names(tmp_path) == ["a.tar.gz", "a.zip"]
        extract(archive, tmp_path / "target", max_ratio=1100)
        assert (tmp_path / "target/f").stat().st_size == 8 << 20
        shutil.rmtree(tmp_path / "target")


def test_budgets_stop_what_is_declared_and_what_is_held(tmp_path: Path) -> None:
    zipped = _zip(tmp_path / "a.zip", ("f", bytes(5000), 0o100644), ("g", bytes(5000), 0o100644))
    tarred = _tar(tmp_path / "a.tar.gz", ("f", bytes(5000), {}), ("g", bytes(5000), {}))
    for archive in (zipped, tarred):
        with pytest.raises(BudgetError, match=r"too many bytes.*raise max_bytes"):
            extract(archive, tmp_path / "target", max_bytes=9999)
        with pytest.raises(BudgetError, match=r"too many members; raise max_members"):
            extract(archive, tmp_path / "target", max_members=1)
        assert not (tmp_path / "target").exists()
        extract(archive, tmp_path / f"of_{archive.suffix}", max_bytes=10_000, max_members=2)
        assert (tmp_path / f"of_{archive.suffix}" / "g").stat().st_size == 5000


def test_zip_is_refused_by_what_it_declares_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _zip(tmp_path / "a.zip", ("f", bytes(10), 0o100644), ("g", bytes(5000), 0o100644))
    monkeypatch.setattr(Path, "open", _for_reading(Path.open))
    with pytest.raises(BudgetError, match=r"a\.zip: .*too many bytes"):
        extract(archive, tmp_path / "target", max_bytes=1000)


def _for_reading(real: Callable[..., IO[bytes]]) -> Callable[..., IO[bytes]]:
    def open_it(path: Path, mode: str = "r", *more: object) -> IO[bytes]:
        assert "x" not in mode and "w" not in mode, f"{path} was opened for writing"
        return real(path, mode, *more)

    return open_it


def test_zip_that_lies_about_its_size_is_damaged(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", ("f", bytes(5000), 0o100644))
    data = bytearray(archive.read_bytes())
    entry = data.index(b"PK\1\2")
    for declared in (10, 500_000):
        struct.pack_into("<I", data, entry + 24, declared)
        archive.write_bytes(data)
        with pytest.raises(DamagedError, match=r"a\.zip: .*copy it again"):
            extract(archive, tmp_path / "target")
        assert names(tmp_path) == ["a.zip"]


def test_tar_header_that_declares_gigabytes_is_refused_without_taking_them(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    with pytest.raises(BudgetError, match=r"a\.tar\.gz: one of its headers declares 8589934592 bytes"):
        extract(tmp_path / "a.tar.gz", tmp_path / "target")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, bytes], ids=["gz", "bz2", "xz", "plain"])
def test_tar_is_unpacked_whole_or_not_at_all(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    rng = np.random.Generator(np.random.Philox(key=3))
    content = {f"deep/er/{n}": rng.bytes(3000 + 512 * n) for n in range(4)} | {"zeros": bytes(1024), "empty": b""}
    members = [
        ("./", b"", {"type": tarfile.DIRTYPE}),
        *((name, data, {"mode": 0o4777}) for name, data in content.items()),
    ]
    data = pack(_tar(tmp_path / "a.tar", *members).read_bytes())
    archive = tmp_path / "a.any"
    archive.write_bytes(data)
    extract(archive, tmp_path / "good")
    written = {p.relative_to(tmp_path / "good").as_posix(): p for p in (tmp_path / "good").rglob("*") if p.is_file()}
    assert {name: path.read_bytes() for name, path in written.items()} == content
    assert not any(path.stat().st_mode & 0o7111 for path in written.values()), "modes are ours, not the archive's"
    end = data.rstrip(b"\0") if pack is bytes else data
    for cut in (len(end) // 3, len(end) // 2, len(end) - 20 if pack is not bytes else len(end) // 512 * 512):
        archive.write_bytes(data[:cut])
        with pytest.raises(DamagedError, match=r"a\.any: .*copy it again"):
            extract(archive, tmp_path / "bad")
    assert names(tmp_path) == ["a.any", "a.tar", "good"]


def test_damaged_header_within_a_tar_is_not_taken_for_its_end(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", ("f", b"x", {}), ("g", b"y", {}))
    data = bytearray(archive.read_bytes())
    data[data.index(b"g\0")] ^= 1
    archive.write_bytes(data)
    with pytest.raises(DamagedError, match=r"its end is missing"):
        extract(archive, tmp_path / "target")


def test_zip_is_unpacked_whole_or_not_at_all(tmp_path: Path) -> None:
    rng = np.random.Generator(np.random.Philox(key=4))
    content = {"a/b/c": rng.bytes(4000), "d": b""}
    archive = _zip(
        tmp_path / "a.zip", *((name, data, 0o100777) for name, data in content.items()), ("e/", b"", 0o40755)
    )
    extract(archive, tmp_path / "good")
    assert {name: (tmp_path / "good" / name).read_bytes() for name in content} == content
    assert (tmp_path / "good" / "e").is_dir()
    data = bytearray(archive.read_bytes())
    data[200] ^= 1
    archive.write_bytes(data)
    with pytest.raises(DamagedError, match=r"a\.zip: .*copy it again"):
        extract(archive, tmp_path / "bad")
    assert names(tmp_path) == ["a.zip", "good"]


def test_other_and_encrypted_archives_are_unsupported(tmp_path: Path) -> None:
    (tmp_path / "a.rar").write_bytes(b"Rar!\x1a\x07\x00" + bytes(1000))
    archive = _zip(tmp_path / "a.zip", ("f", b"secret", 0o100644))
    data = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + offset] |= 1
    archive.write_bytes(data)
    for name in ("a.rar", "a.zip"):
        with pytest.raises(UnsupportedError, match=rf"{name}: .*unpack it by hand"):
            extract(tmp_path / name, tmp_path / "target")


def test_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", ("f", b"x", 0o100644))
    (tmp_path / "empty").mkdir()
    extract(archive, tmp_path / "empty")
    with pytest.raises(DataError, match=r"a\.zip: expected an empty folder .* name another"):
        extract(archive, tmp_path / "empty")


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_ends_in_a_sentence_and_leaves_nothing(seed: int, tmp_path: Path) -> None:
    rng = np.random.Generator(np.random.Philox(key=seed))
    files = [(f"d{n}/f", rng.bytes(700), {}) for n in range(3)]
    zipped = _zip(tmp_path / "a.zip", *((name, data, 0o100644) for name, data, _ in files)).read_bytes()
    tarred = _tar(tmp_path / "a.tar", *files, form=[tarfile.PAX_FORMAT, tarfile.GNU_FORMAT][seed % 2]).read_bytes()
    for good in (zipped, gzip.compress(tarred), tarred):
        for number in range(40):
            data = bytearray(good)
            for place in rng.integers(0, len(data), rng.integers(1, 4)):
                data[place] = int(rng.integers(256))
            (tmp_path / "b").write_bytes(data)
            target = tmp_path / f"{number}_of_{len(good)}"
            message = ""
            try:
                extract(tmp_path / "b", target, max_bytes=1 << 20)
            except HalfseenError as error:
                message = str(error)
            assert target.exists() == (not message)
            assert not message or f"{tmp_path / 'b'}: " in message
            assert not any(path.is_symlink() for path in target.rglob("*"))
            assert not [name for name in names(tmp_path) if name.startswith(".")]


# Lists and manifests ---------------------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A collection of one image, beside it an image that does not belong to it."""
    for name in ("house", "beside"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((8, 9), 50, np.uint8)).save(tmp_path / name / f"{name}.png")
    return tmp_path / "house"


@pytest.mark.parametrize("form", ["absolute", "parent", "link"])
def test_list_that_names_a_file_outside_its_folder_is_refused_unless_allowed(form: str, house: Path) -> None:
    outside = house.parent / "beside/beside.png"
    names = {"absolute": str(outside), "parent": "../beside/beside.png", "link": "link.png"}
    (house / "link.png").symlink_to(outside)
    (house / "labels.csv").write_text(f"file\n{names[form]}\n")
    with pytest.raises(UnsafeError, match=r"beside\.png.*allow_outside=True"):
        build_manifest([house / "labels.csv"])
    assert len(build_manifest([house / "labels.csv"], allow_outside=True)) == 1


def test_folder_that_links_to_an_image_outside_is_refused_unless_allowed(house: Path) -> None:
    (house / "link.png").symlink_to(house.parent / "beside/beside.png")
    with pytest.raises(UnsafeError, match=r"link\.png: expected a file inside .*allow"):
        build_manifest([house])


def test_manifest_that_was_made_to_name_a_file_outside_is_refused(house: Path) -> None:
    manifest = build_manifest([house])
    named = pa.array([str(house.parent / "beside/beside.png")])
    table = manifest.table.set_column(manifest.table.column_names.index("file"), "file", named)
    with pytest.raises(UnsafeError, match=r"beside\.png: expected a file inside .*allow"):
        entries_of(Manifest(table))[0].safe()


def test_a_row_that_leads_out_of_its_root_later_is_not_opened(house: Path) -> None:
    opened = Images(build_manifest([house]))
    assert opened.open(0).shape == (1, 8, 9)
    (house / "house.png").replace(house.parent / "gone.png")
    (house / "house.png").symlink_to(house.parent / "gone.png")  # the same bytes, size and time
    with pytest.raises(
        UnsafeError, match=r"house\.png: expected a file inside .*gone\.png; copy it into that folder\.$"
    ):
        Images(opened.manifest).open(0)


def test_a_root_that_is_a_link_holds_what_lies_in_it(house: Path) -> None:
    (house.parent / "link").symlink_to(house, target_is_directory=True)
    path = house.parent / "link" / "house.png"
    assert inside(house.parent / "link", path) == path
    assert inside(house.parent / "link", house / "house.png") == house / "house.png"


@pytest.mark.parametrize("url", ["http://127.0.0.1/a.png", "s3://bucket/a.png", "/vsicurl/http://127.0.0.1/a.png"])
def test_url_in_a_list_is_no_path(url: str, house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a socket was opened"))
    (house / "labels.csv").write_text(f"file\n{url}\n")
    with pytest.raises(DataError, match=r"labels\.csv|a\.png: expected a"):
        build_manifest([house / "labels.csv"])
    with pytest.raises(UnsafeError, match=r"a\.png: expected a plain local path"):
        build_manifest([url])


# Texts that other formats would run ------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['touch canary']", "!!python/name:os.system", "!x 1"])
def test_yaml_object_is_refused_and_not_made(tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(f"seed: {tag}\n")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load(tmp_path / "config.yaml")
    assert names(tmp_path) == ["config.yaml"]


def test_archive_that_is_not_there_and_a_place_that_cannot_be_made_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"expected an archive, but .*none\.zip does not exist"):
        extract(tmp_path / "none.zip", tmp_path / "out")
    (tmp_path / "file").write_text("x")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(DataError, match=r"a\.zip: cannot be unpacked into .*out"):
        extract(tmp_path / "a.zip", tmp_path / "file" / "out")


def test_conversion_of_a_manifest_that_leads_outside_is_refused_unless_allowed(house: Path, tmp_path: Path) -> None:
    manifest = build_manifest([house])
    named = pa.array(["../beside/beside.png"])
    table = manifest.table.set_column(manifest.table.column_names.index("file"), "file", named)
    Manifest(table).with_column("digest", [digest_of(house.parent / "beside/beside.png")]).write(tmp_path / "m.parquet")
    with pytest.raises(UnsafeError, match=r"beside\.png: expected a file inside .*allow"):
        convert([tmp_path / "m.parquet"], tmp_path / "out")
    assert not (tmp_path / "out" / "images").exists()
