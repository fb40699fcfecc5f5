"""Where results go is looked at before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.cli import Options
from core.errors import RunFolderError
from domains.satellite.embed import Embed, check_ending
from domains.satellite.outputs import refuse_existing
from domains.satellite.scenes import Reading


def test_a_folder_that_cannot_be_written_into_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "maps"
    with pytest.raises(
        RunFolderError, match=r"expected to write .*file/maps, but .*file refuses: Not a directory: choose another"
    ):
        refuse_existing([tmp_path / "a.tif", out / "a.tif"], Options(out=out))
    config = Embed(encoder="runs/none", reading=Reading(data=("scene.tif",)))
    with pytest.raises(RunFolderError, match="choose another --out"):
        check_ending(config, Options(out=out / "tiles.parquet"))


def test_folders_are_tried_without_a_trace_and_files_are_kept(tmp_path: Path) -> None:
    refuse_existing([tmp_path / "new" / "a.tif"], Options(out=tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.tif").write_text("old")
    with pytest.raises(RunFolderError, match=r"a\.tif exists: replace it with --overwrite"):
        refuse_existing([tmp_path / "a.tif"], Options(out=tmp_path / "a.tif"))
    refuse_existing([tmp_path / "a.tif"], Options(out=tmp_path / "a.tif", overwrite=True))
    assert (tmp_path / "a.tif").read_text() == "old"
