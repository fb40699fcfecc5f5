"""What every test gets: repeatable torch, the checkout's own packages, and the shared data where it exists."""

from __future__ import annotations

import multiprocessing
import runpy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.programs import Server

ROOT = Path(__file__).resolve().parent.parent
# Children that are started by forkserver, as loader workers are, fork from a server that has imported torch and no more.
multiprocessing.set_forkserver_preload(["torch"])


@pytest.fixture(autouse=True)
def _repeatable_torch() -> None:
    """Refuse operations without a deterministic kernel, and start every test from one seed of torch's own generator."""
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Give the folder of real images and reference numbers, `../shared` seen from the checkout, or skip."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip(
            "needs the real images and reference numbers of ../shared, beside the checkout; there are none here"
        )
    return path


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample set small enough for tests: 30 photographs and 10 volumes."""
    from datasets import sample_set

    return sample_set(tmp_path_factory.mktemp("samples") / "set", photographs=30, volumes=10)


@pytest.fixture(scope="session")
def trained(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps over both kinds; tests that change it copy it."""
    from core.cli import Options
    from core.config import override
    from domains.retina.pretrain import run, tiny

    out = tmp_path_factory.mktemp("runs") / "both"
    few = {"how.validate_every": 2, "how.save_every": 2, "optim.warmup_steps": 1, "steps": 4}
    few |= {
        "data.streams.0.turns": 1,
        "data.streams.0.batch_size": 4,
        "data.streams.1.batch_size": 4,
        "data.paths": [str(samples)],
    }
    config = override(tiny(), few)
    return run(config, Options(out=out, preset="tiny"))


@pytest.fixture(scope="session")
def warm() -> Iterator[Server]:
    """Starts programs in processes of their own that have torch already."""
    server = Server()
    yield server
    server.close()


@dataclass(frozen=True)
class Outcome:
    """How a verb ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The last line on standard error."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `python -m domains.<domain>.<name> <words>`."""

    def type_it(domain: str, name: str, *words: object) -> Outcome:
        module = f"domains.{domain}.{name}"
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setattr(sys, "argv", [name, *(str(word) for word in words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        shown = capsys.readouterr()
        return Outcome(int(left.value.code or 0), shown.out, shown.err)

    return type_it


@pytest.fixture
def verb(typed: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Run `python -m domains.retina.<name> <words>`."""
    return partial(typed, "retina")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none, with a reason, also under `-m gpu`."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch sees none"))
