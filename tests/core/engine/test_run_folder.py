"""Who may write a run folder, and what is refused with which sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from core import config as tree
from core.engine.config import How, Optim, Pretrain, run_id
from core.engine.run_folder import check, open_run
from core.errors import ConfigError, RunFolderError
from tests.core.engine.stub import ALONE, pretrain, train


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with open_run(tmp_path / "run", pretrain(), world=ALONE) as folder:
        return folder.path


def test_new_run_records_config_and_environment(run: Path) -> None:
    stored = tree.load(run / "config.yaml")
    assert stored == tree.to_dict(pretrain())
    facts = json.loads((run / "env.json").read_text())
    assert {"halfseen", "commit", "python", "packages", "cores", "threads", "device", "started"} <= facts.keys()
    assert {"torch", "timm", "numpy"} <= facts["packages"].keys()


def test_parents_are_made(tmp_path: Path) -> None:
    with open_run(tmp_path / "a/b/run", pretrain(), world=ALONE) as folder:
        assert folder.path.is_dir()


def test_existing_run_is_refused_with_three_cures(run: Path) -> None:
    with pytest.raises(RunFolderError, match="exists: continue that run with --resume, delete it with --overwrite, or"):
        check(run, pretrain())


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    check(tmp_path, pretrain())
    assert list(tmp_path.iterdir()) == []


def test_overwrite_deletes_a_run_and_nothing_of_it_stays(run: Path) -> None:
    (run / "figures").mkdir()
    (run / "figures/old.png").write_text("x")
    with open_run(run, pretrain(), world=ALONE, overwrite=True):
        assert {p.name for p in run.iterdir()} == {"config.yaml", "env.json", "lock"}


def test_overwrite_does_not_delete_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "config.yaml").write_text("a: 1")
    with pytest.raises(
        RunFolderError, match=r"does not look like a run folder \(no env\.json, lock\) and is not deleted"
    ):
        check(tmp_path, pretrain(), overwrite=True)
    assert (tmp_path / "thesis.txt").exists()


def test_overwrite_does_not_follow_links(run: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("x")
    (run / "link").symlink_to(tmp_path / "precious")
    with open_run(run, pretrain(), world=ALONE, overwrite=True):
        pass
    assert (tmp_path / "precious/file").exists()


def test_interrupted_overwrite_can_be_taken_up(run: Path) -> None:
    (run / "config.yaml").unlink()
    with open_run(run, pretrain(), world=ALONE, overwrite=True):
        pass


def test_resume_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"expected a run to continue in .*nothing, found none"):
        check(tmp_path / "nothing", pretrain(), resume=True)


def test_resume_and_overwrite_contradict(run: Path) -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        check(run, pretrain(), resume=True, overwrite=True)


def test_resume_with_other_options_lists_them(run: Path) -> None:
    other = pretrain(seed=4, optim=Optim(lr=0.5, warmup_steps=2, clip_norm=1.0))
    with pytest.raises(ConfigError, match=r"differ \(run -> now\): optim\.lr: 0\.01 -> 0\.5; seed: 0 -> 4: leave them"):
        check(run, other, resume=True)


def test_resume_with_another_how_is_allowed(run: Path) -> None:
    check(run, pretrain(how=How(device="cpu", workers=3)), resume=True)


def test_run_id_depends_on_what_and_not_on_how() -> None:
    assert run_id(pretrain()) == run_id(pretrain(how=How(workers=4)))
    assert run_id(pretrain()) != run_id(pretrain(seed=1))


def test_second_writer_is_refused_by_name_of_the_first(run: Path) -> None:
    with (
        open_run(run, pretrain(), world=ALONE, resume=True),
        pytest.raises(RunFolderError, match=rf"is being written by process {os.getpid()} on \S+: wait for it"),
        open_run(run, pretrain(), world=ALONE, resume=True),
    ):
        pass
    with open_run(run, pretrain(), world=ALONE, resume=True):
        pass


def test_running_run_is_not_overwritten(run: Path) -> None:
    with open_run(run, pretrain(), world=ALONE, resume=True):
        with (
            pytest.raises(RunFolderError, match="is being written by"),
            open_run(run, pretrain(), world=ALONE, overwrite=True),
        ):
            pass
        assert (run / "config.yaml").exists()


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(RunFolderError, match="is a file: choose another --out"):
        check(tmp_path / "run", pretrain())


def test_folder_that_refuses_writing_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permission bits do not stop root, so the refusal is the system's own, from below a file."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match=r"expected to write .*file/run, but .*file refuses: Not a directory"):
        check(tmp_path / "file/run", pretrain())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_remains_of_a_killed_writer_are_removed(run: Path) -> None:
    (run / ".step_000002.tmp-abcd").mkdir()
    (run / ".step_000002.tmp-abcd/model.safetensors").write_text("half")
    (run / ".last.tmp-abcd").write_text("half")
    with open_run(run, pretrain(), world=ALONE, resume=True):
        assert not [p for p in run.iterdir() if p.name.startswith(".")]


def test_changed_environment_is_noted_on_resume(run: Path) -> None:
    facts = json.loads((run / "env.json").read_text())
    facts["packages"]["torch"] = "1.0"
    (run / "env.json").write_text(json.dumps(facts))
    with open_run(run, pretrain(), world=ALONE, resume=True) as folder:
        assert len(folder.drift) == 1
        assert folder.drift[0].startswith("packages.torch: 1.0 -> ")


def test_config_yaml_is_itself_a_config(tmp_path: Path) -> None:
    from core.recipes.mae import Mae
    from tests.core.cli.presets import tiny

    with open_run(tmp_path / "run", tiny(), world=ALONE) as folder:
        again = tree.from_dict(Pretrain, tree.load(folder.path / "config.yaml"))
    assert again == tiny()
    assert isinstance(again.recipe, Mae)


def test_failed_run_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_run(tmp_path / "run", pretrain(), world=ALONE):
        raise ZeroDivisionError
    train(tmp_path / "run", pretrain(), resume=True)
