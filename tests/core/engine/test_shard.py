"""Shared-out recipes in one process, which makes a group by itself: every method, and the format of the checkpoints."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from core import registry
from core.checkpoint import DIGESTS, checkpoints, is_sharded, verify
from core.engine import shard, sharded_checkpoint
from core.engine.config import How
from core.engine.distributed import World
from core.engine.optim import decay_groups
from core.engine.step import Precision
from core.errors import CheckpointError, ConfigError, RunFolderError
from core.recipes.base import Recipe
from core.testing.samples import INPUTS, ragged_batch, recipe_spec
from tests.core.engine.stub import ALONE, StubRecipeSpec, batch_of, pretrain

FP32 = Precision("fp32", torch.device("cpu"))
ENTRY = next(iter(INPUTS.values()))


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A group of this process alone; weights are shared out as among many, though it gets all parts."""
    file = tmp_path_factory.mktemp("group") / "store"
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield ALONE
    distributed.destroy_process_group()


def built(name: str) -> Recipe:
    torch.manual_seed(0)
    return recipe_spec(name).build().train()


def step(recipe: Recipe, precision: Precision = FP32) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    batch = ragged_batch(ENTRY)
    torch.manual_seed(7)
    with precision.autocast():
        loss = recipe(batch, batch.rng).loss
    loss.backward()
    return loss.detach(), {n: shard.whole(p.grad) for n, p in recipe.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", [name for name in registry.names("recipes") if name != "dbot"])
def test_every_recipe_gives_the_same_numbers_in_parts(name: str, group: World) -> None:
    plain, apart = built(name), built(name)
    names = list(apart.state_dict())
    shard.shard(apart, group)
    assert shard.is_sharded(apart)
    assert not shard.is_sharded(plain)
    assert list(apart.state_dict()) == names
    (loss, gradients), (theirs, other) = step(plain), step(apart)
    assert torch.equal(loss, theirs)
    assert gradients.keys() == other.keys()
    assert all(torch.equal(gradients[n], other[n]) for n in gradients)
    with torch.no_grad():
        for recipe in (plain, apart):
            for parameter in recipe.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.1 * parameter.grad)
            recipe.progress.fill_(0.3)
            recipe.updated()
    kept, have = plain.kept().state_dict(), shard.whole_weights(apart, apart.kept(), group)
    assert have.keys() == kept.keys()
    assert all(torch.equal(kept[n], have[n]) for n in kept)


@pytest.mark.parametrize("name", ["simmim", "ibot", "spark"])
def test_bf16_gives_the_same_numbers_in_parts(name: str, group: World) -> None:
    plain, apart = built(name), built(name)
    shard.shard(apart, group)
    precision = Precision("bf16", group.device, keep_casts=False)
    (loss, gradients), (theirs, other) = step(plain, precision), step(apart, precision)
    assert torch.equal(loss, theirs)
    assert all(torch.equal(gradients[n], other[n]) for n in gradients)
    kept, _ = step(built(name), replace(precision, keep_casts=True))
    assert torch.equal(loss, kept)


def test_blocks_but_the_last_are_put_together_one_at_a_time(group: World) -> None:
    recipe = built("mae")
    shard.shard(recipe, group)
    for blocks in shard.block_lists(recipe):
        alone = [type(block).__name__.startswith("FSDP") for block in blocks]
        assert alone == [True] * (len(alone) - 1) + [False]


def test_a_recipe_of_one_block_learns_too_and_is_known_after_an_evaluation(group: World) -> None:
    """All its weights stand whole for the whole step, and after an evaluation until the next one."""
    torch.manual_seed(0)
    plain = StubRecipeSpec().build().train()
    apart = copy.deepcopy(plain)
    shard.shard(apart, group)
    results = []
    for recipe in (plain, apart):
        batch = batch_of("photograph", [1, 2, 3, 4])
        with torch.no_grad():
            recipe(batch, batch.rng)
        assert shard.is_sharded(recipe) == (recipe is apart)
        torch.manual_seed(1)
        recipe(batch, batch.rng).loss.backward()
        results.append({n: shard.whole(p.grad) for n, p in recipe.named_parameters() if p.grad is not None})
    assert all(hasattr(p, "full_tensor") for p in apart.parameters()), "the backward pass has not ended for the root"
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[0][n], results[1][n]) for n in results[0])
    with torch.no_grad():
        recipe(batch, batch.rng)
    whole = shard.whole_weights(apart, apart.kept(), group)
    assert all(torch.equal(value, whole[name]) for name, value in plain.kept().state_dict().items())


@pytest.mark.parametrize("name", ["mae", "latent_mim"])
def test_what_an_evaluation_left_whole_is_collected_as_it_is_after_an_update(name: str, group: World) -> None:
    """torch takes apart what it is asked to list; without that, an export would hold the weights of the evaluation."""
    recipe = built(name)
    shard.shard(recipe, group)
    parts = dict(recipe.named_parameters())
    batch = ragged_batch(ENTRY)
    with torch.no_grad():
        recipe(batch, batch.rng)
        assert not all(hasattr(value, "full_tensor") for value in recipe.parameters()), "nothing was left whole"
        for value in parts.values():
            value.fill_(3.0)
    collected = shard.whole_weights(recipe, recipe.kept(), group)
    learnt = collected.keys() & {key for key, _ in recipe.kept().named_parameters()}
    assert learnt
    assert all(bool((collected[key] == 3.0).all()) for key in learnt)


def test_a_teacher_that_starts_anew_is_refused_when_the_config_is_made() -> None:
    from tests.core.engine.test_restart import RECIPES

    with pytest.raises(ConfigError, match=r"option 'how\.shard': expected none with the teacher 'random_start'"):
        replace(pretrain(), recipe=RECIPES["dbot"], how=How(shard="full"))


def test_groups_made_before_keep_their_settings_and_get_the_parts(group: World) -> None:
    recipe = built("mae")
    before = decay_groups(recipe.named_parameters(), 0.05)
    shard.shard(recipe, group)
    after = shard.renewed(before, recipe)
    assert [{k: v for k, v in g.items() if k != "params"} for g in after] == [
        {k: v for k, v in g.items() if k != "params"} for g in before
    ]
    assert {id(p) for g in after for p in g["params"]} == {id(p) for p in recipe.parameters() if p.requires_grad}


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture
def network(group: World) -> nn.Module:
    return shared(3)


def shared(width: int) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    network = nn.Linear(width, 2)
    fully_shard(network, mesh=init_device_mesh("cpu", (1,)))
    return network


def save(run: Path, network: nn.Module, step: int = 4) -> Path:
    tensors = {f"model/{name}": value for name, value in network.state_dict().items()}
    return sharded_checkpoint.save(run, step, tensors, {"note": 1}, ALONE)


def test_what_is_saved_in_parts_is_read_into_parts_and_into_whole_tensors(network: nn.Module, tmp_path: Path) -> None:
    folder = save(tmp_path, network)
    assert folder.name == "step_000004"
    assert verify(folder) is None
    assert is_sharded(folder)
    assert json.loads((folder / "state.json").read_text())["note"] == 1
    assert (tmp_path / "last").read_text() == "step_000004\n"
    fresh = shared(3)
    sharded_checkpoint.read(folder, {f"model/{n}": v for n, v in fresh.state_dict().items()})
    whole = {f"model/{n}": torch.zeros(v.shape) for n, v in fresh.state_dict().items()}
    sharded_checkpoint.read(folder, whole)
    for name, value in network.state_dict().items():
        assert torch.equal(shard.whole(fresh.state_dict()[name]), shard.whole(value))
        assert torch.equal(whole[f"model/{name}"], shard.whole(value))


def test_two_checkpoints_are_kept(network: nn.Module, tmp_path: Path) -> None:
    for step_ in (2, 4, 6):
        save(tmp_path, network, step_)
    assert [folder.name for folder in checkpoints(tmp_path)] == ["step_000006", "step_000004"]


def test_all_that_does_not_fit_is_listed_and_nothing_is_touched(network: nn.Module, tmp_path: Path) -> None:
    folder = save(tmp_path, network)
    into = {"model/weight": torch.zeros(2, 4), "model/scale": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        sharded_checkpoint.read(folder, into)
    for part in (
        "missing: model/scale",
        "unexpected: model/bias",
        "reshaped: model/weight is (2, 3) there and (2, 4) here",
    ):
        assert part in str(caught.value)
    assert not into["model/weight"].any()


def test_a_disk_that_refuses_loses_nothing(network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemWriter

    save(tmp_path, network, 2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileSystemWriter, "write_data", full)
    with pytest.raises(RunFolderError, match=r"step_000004 could not be written: rank 0: .*No space left on device"):
        save(tmp_path, network, 4)
    assert {entry.name for entry in tmp_path.iterdir()} == {"last", "step_000002"}
    assert verify(tmp_path / "step_000002") is None


def test_ranks_without_a_common_disk_are_told(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded_checkpoint, "_write", lambda *_: (None, {"__0_0.distcp": "a", "__1_0.distcp": "b"}))
    with pytest.raises(
        RunFolderError, match="rank 0 does not see __0_0.distcp, __1_0.distcp; all ranks must write to one"
    ):
        save(tmp_path, network)
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_refused_before_anything_is_written(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr("core.checkpoint.shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(RunFolderError, match=r"2\.2 times a checkpoint, got 0 MB"):
        save(tmp_path, network)
    assert list(tmp_path.iterdir()) == []


def test_the_description_of_parts_runs_no_code(network: nn.Module, tmp_path: Path) -> None:
    folder = save(tmp_path, network)
    (folder / ".metadata").write_bytes(b"cos\nsystem\n(S'touch made-by-unpickling'\ntR.")
    with pytest.raises(CheckpointError, match=r"expected what describes a sharded checkpoint, got: 'os\.system'"):
        sharded_checkpoint.stored_shapes(folder)
    for content in (b"", b"\x80", pickle.dumps({"a": 1})):
        (folder / ".metadata").write_bytes(content)
        with pytest.raises(CheckpointError, match="expected what describes a sharded checkpoint"):
            sharded_checkpoint.stored_shapes(folder)
    assert (folder / DIGESTS).is_file()
    assert "the bytes of .metadata are not those" in str(verify(folder))
