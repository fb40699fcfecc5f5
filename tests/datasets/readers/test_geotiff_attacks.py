"""Tricks by which GDAL would read another file or call the network: none may show a byte of the canary, or connect.

Each trick is first shown to work against GDAL without a lead where that can be shown, so that the test would notice if it
attacked nothing.
"""

from __future__ import annotations

import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile

from core.errors import DataError, HalfseenError, UnsafeError
from datasets.readers import open_image
from datasets.readers.geotiff import GeoTiff

SIDE = 16
CANARY = bytes([201 + n % 7 for n in range(SIDE * SIDE)])


class Network:
    """A server on this machine that counts who connects; GDAL calls it in C, where Python's socket cannot be denied."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.calls = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            self.calls += 1
            connection.close()


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network()
    yield network
    network.server.close()


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "canary.bin").write_bytes(CANARY)
    return folder / "canary.bin"


def raw_vrt(target: str) -> str:
    """A VRT whose pixels are the bytes of any file."""
    return (
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><VRTRasterBand dataType="Byte" band="1" '
        f'subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="0">{target}</SourceFilename><ImageOffset>0'
        f"</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>{SIDE}</LineOffset></VRTRasterBand></VRTDataset>"
    )


def source_vrt(target: str) -> str:
    return (
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{target}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )


def scene(path: Path, *, metadata: str = "") -> Path:
    """Write a small harmless scene, with any text as its GDAL metadata."""
    tags = [(42112, "s", 0, metadata, True)] if metadata else []
    tifffile.imwrite(path, np.full((2 * SIDE, 2 * SIDE), 7, np.float32), extratags=[(42113, "s", 0, "0", True), *tags])
    return path


def plain_gdal(path: str) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return bytes(file.read().astype(np.uint8).tobytes())


def vrt(folder: Path, canary: Path, network: Network) -> str:
    (folder / "a.vrt").write_text(raw_vrt(str(canary)))
    return str(folder / "a.vrt")


def renamed(folder: Path, canary: Path, network: Network) -> str:
    (folder / "a.tif").write_text(raw_vrt(str(canary)))
    return str(folder / "a.tif")


def text(folder: Path, canary: Path, network: Network) -> str:
    return raw_vrt(str(canary))


def recursive(folder: Path, canary: Path, network: Network) -> str:
    (folder / "inner.vrt").write_text(raw_vrt(str(canary)))
    (folder / "outer.tif").write_text(source_vrt(str(folder / "inner.vrt")))
    return str(folder / "outer.tif")


def endless(folder: Path, canary: Path, network: Network) -> str:
    (folder / "a.tif").write_text(source_vrt(str(folder / "a.tif")))
    return str(folder / "a.tif")


def vsicurl(folder: Path, canary: Path, network: Network) -> str:
    return f"/vsicurl/http://127.0.0.1:{network.port}/a.tif"


def slashes(folder: Path, canary: Path, network: Network) -> str:
    return f"//vsicurl/http://127.0.0.1:{network.port}/a.tif"


def url(folder: Path, canary: Path, network: Network) -> str:
    return f"http://127.0.0.1:{network.port}/a.tif"


def vsizip_of_vrt(folder: Path, canary: Path, network: Network) -> str:
    import zipfile

    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a.vrt", raw_vrt(str(canary)))
    return f"/vsizip/{folder}/a.zip/a.vrt"


def netcdf(folder: Path, canary: Path, network: Network) -> str:
    return f'NETCDF:"{canary}":a'


def gtiff_raw(folder: Path, canary: Path, network: Network) -> str:
    return f"GTIFF_RAW:{scene(folder / 'a.tif')}"


def vrt_over_http(folder: Path, canary: Path, network: Network) -> str:
    (folder / "a.tif").write_text(source_vrt(f"/vsicurl/http://127.0.0.1:{network.port}/a.tif"))
    return str(folder / "a.tif")


Trick = Callable[[Path, Path, Network], str]
REFUSED: tuple[Trick, ...] = (
    vrt, renamed, text, recursive, endless, vsicurl, slashes, url, vsizip_of_vrt, netcdf, gtiff_raw, vrt_over_http,
)  # fmt: skip
SHOWS_THE_CANARY: tuple[Trick, ...] = (vrt, renamed, text, recursive, vsizip_of_vrt)
CALLS: tuple[Trick, ...] = (vsicurl, url, vrt_over_http)


@pytest.mark.parametrize("trick", REFUSED, ids=lambda trick: trick.__name__)
@pytest.mark.parametrize("readers", [(), (GeoTiff(),), (GeoTiff(sidecars=True, jp2=True),)], ids=["all", "one", "open"])
def test_trick_is_refused(
    trick: Trick, readers: tuple[GeoTiff, ...], tmp_path: Path, canary: Path, network: Network,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = trick(tmp_path, canary, network)
    monkeypatch.setattr(socket, "socket", _denied)
    with pytest.raises(HalfseenError) as caught:
        open_image(path, *readers).read()
    assert CANARY[:8] not in str(caught.value).encode("latin-1", "replace")
    assert network.calls == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("trick", SHOWS_THE_CANARY, ids=lambda trick: trick.__name__)
def test_trick_works_against_gdal_without_a_lead(trick: Trick, tmp_path: Path, canary: Path, network: Network) -> None:
    assert plain_gdal(trick(tmp_path, canary, network)) == CANARY


@pytest.mark.parametrize("trick", CALLS, ids=lambda trick: trick.__name__)
def test_call_works_against_gdal_without_a_lead(trick: Trick, tmp_path: Path, canary: Path, network: Network) -> None:
    with rasterio.Env(GDAL_HTTP_MAX_RETRY=0, GDAL_HTTP_TIMEOUT=5), pytest.raises(rasterio.errors.RasterioError):
        plain_gdal(trick(tmp_path, canary, network))
    assert network.calls > 0


def _denied(*_: object, **__: object) -> None:
    raise AssertionError("a socket was opened")


# --- files that are scenes, and refer to others -----------------------------------------------------------------------


def overviews_elsewhere(target: str) -> str:
    return f'<GDALMetadata><Item name="OVERVIEW_FILE" domain="OVERVIEWS">{target}</Item></GDALMetadata>'


def test_overview_of_another_file_is_refused(tmp_path: Path, canary: Path, network: Network) -> None:
    (tmp_path / "evil.vrt").write_text(raw_vrt(str(canary)))
    path = scene(tmp_path / "a.tif", metadata=overviews_elsewhere(str(tmp_path / "evil.vrt")))
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path, overview_level=0) as file:
        assert file.read().astype(np.uint8).tobytes() == CANARY  # without a lead
    for reader in (GeoTiff(), GeoTiff(level=1), GeoTiff(sidecars=True)):
        with pytest.raises(DataError, match=r"a\.tif") as caught:
            open_image(path, reader)
        assert isinstance(caught.value, UnsafeError) or reader.level == 1
    scene(tmp_path / "b.tif", metadata=overviews_elsewhere(f"/vsicurl/http://127.0.0.1:{network.port}/a.tif"))
    with pytest.raises(UnsafeError, match=r"b\.tif: its metadata names another file"):
        open_image(tmp_path / "b.tif")
    assert network.calls == 0


def test_overview_named_beside_the_file_is_refused_too(tmp_path: Path, canary: Path) -> None:
    (tmp_path / "evil.vrt").write_text(raw_vrt(str(canary)))
    path = scene(tmp_path / "a.tif")
    (tmp_path / "a.tif.aux.xml").write_text(
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{tmp_path}/evil.vrt</MDI></Metadata></PAMDataset>'
    )
    assert np.array_equal(open_image(path).read(), np.full((1, 2 * SIDE, 2 * SIDE), 7, np.float32))
    with pytest.raises(UnsafeError, match=r"a\.tif: its metadata names another file"):
        open_image(path, GeoTiff(sidecars=True))


@pytest.mark.parametrize("ending", [".msk", ".ovr"])
def test_mask_or_overview_that_is_a_vrt_is_not_read(ending: str, tmp_path: Path, canary: Path) -> None:
    path = scene(tmp_path / "a.tif")
    (tmp_path / f"a.tif{ending}").write_text(raw_vrt(str(canary)))
    image = open_image(path)
    voxels, valid = image.read_valid()
    assert (image.levels, bool(valid.all()), set(np.unique(voxels))) == (((2 * SIDE, 2 * SIDE),), True, {7.0})
    with pytest.raises(UnsafeError, match=rf"a\.tif\{ending}: expected a TIFF"):
        open_image(path, GeoTiff(sidecars=True))


def test_a_relative_path_from_the_root_folder_is_no_virtual_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    with pytest.raises(HalfseenError):
        open_image("vsicurl/http:/127.0.0.1/a.tif")
    with pytest.raises(UnsafeError):
        GeoTiff().open(Path("/vsicurl/http:/127.0.0.1/a.tif"))
