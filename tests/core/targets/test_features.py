"""Features of a teacher: norms by hand, over what counts alone, laid where they belong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import start_processes

from core.encoders.base import Tokens
from core.errors import ConfigError
from core.plan import visible_index
from core.shapes import Grid
from core.targets._features import Features, beside, last_levels, normalised, on_grid, places
from core.testing.samples import encoder_spec

GRID = Grid((2, 3), (8, 8))
COUNTED = torch.tensor([[True, True, False, True, True, True], [False, True, True, False, False, False]])


def features(seed: int = 0) -> torch.Tensor:
    """Two samples of six tokens of four numbers, spread and shifted."""
    return torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(seed)) * 3.0 + 1.0


def test_layer_normalises_each_token_alone():
    value = torch.tensor([[[1.0, 3.0], [5.0, 5.0]]])
    found = normalised(value, torch.ones(1, 2, dtype=torch.bool), "layer")
    torch.testing.assert_close(found, torch.tensor([[[-1.0, 1.0], [0.0, 0.0]]]), atol=1e-5, rtol=0)


def test_centre_and_whiten_by_hand():
    value = torch.tensor([[[1.0, 0.0], [3.0, 4.0]], [[5.0, 8.0], [100.0, -100.0]]])
    counted = torch.tensor([[True, True], [True, False]])
    centred = normalised(value, counted, "centre")
    assert centred.tolist() == [[[-2.0, -4.0], [0.0, 0.0]], [[2.0, 4.0], [0.0, 0.0]]]
    spread = torch.tensor([8.0 / 3.0, 32.0 / 3.0]).sqrt()
    torch.testing.assert_close(normalised(value, counted, "whiten"), centred / spread)


@pytest.mark.parametrize("how", ["none", "layer", "centre", "whiten"])
@pytest.mark.parametrize("content", [1e4, float("nan"), float("inf")])
def test_what_does_not_count_is_never_read(how, content):
    value = features()
    filled = torch.where(COUNTED[..., None], value, content)
    found = normalised(filled, COUNTED, how)
    assert torch.equal(found, normalised(value, COUNTED, how))
    assert bool((found[~COUNTED] == 0.0).all())
    assert bool((found[COUNTED] != 0.0).all())


def test_nothing_counted_gives_zero():
    nothing = torch.zeros(2, 6, dtype=torch.bool)
    assert all(bool((normalised(features(), nothing, how) == 0.0).all()) for how in ("layer", "centre", "whiten"))


def tokens(value: torch.Tensor, ok: torch.Tensor | None = None, full_grid: bool = True, **levels: Tokens) -> Tokens:
    numbered = {int(name[1:]): level for name, level in levels.items()}
    return Tokens(value, ok, value.new_zeros(len(value), 1, value.shape[2]), GRID, full_grid, numbered)


def test_stages_are_normalised_before_they_are_averaged():
    one, two = features(1), features(2) * 100.0
    seen = tokens(features(3), COUNTED, l1=tokens(one, COUNTED), l2=tokens(two, COUNTED))
    value, counted = Features(last=2)(seen, COUNTED)
    expected = (normalised(one, COUNTED, "layer") + normalised(two, COUNTED, "layer")) / 2.0
    torch.testing.assert_close(value, expected)
    assert torch.equal(counted, COUNTED)


def test_left_out_tokens_find_their_places_again():
    full = features()
    index, real = visible_index(COUNTED)
    short = full.gather(1, index[..., None].expand(-1, -1, 4))
    value, counted = on_grid(tokens(short, real, full_grid=False), COUNTED)
    assert torch.equal(counted, COUNTED)
    assert torch.equal(value[COUNTED], full[COUNTED])
    assert bool((value[~COUNTED] == 0.0).all())


def test_tokens_find_their_places_beside_a_sample_that_saw_everything():
    full, see = features(), torch.tensor([[True] * 6, [False, True] * 3])
    index, real = visible_index(see)
    value, counted = on_grid(tokens(full.gather(1, index[..., None].expand(-1, -1, 4)), real, full_grid=False), see)
    assert torch.equal(counted, see)
    assert torch.equal(value, torch.where(see[..., None], full, 0.0))


def test_features_stand_beside_the_students_tokens():
    full, counted = features(), COUNTED.clone()
    counted[0, 4] = False  # the student sees a token that the teacher cannot
    index, _ = visible_index(COUNTED)
    value, pairs = beside(full, counted, places(tokens(features(5)[:, :5], full_grid=False), COUNTED))
    assert torch.equal(value, full.gather(1, index[..., None].expand(-1, -1, 4)))
    assert pairs.tolist() == [[True, True, True, False, True], [True, True, False, False, False]]
    everywhere = torch.ones_like(COUNTED)
    value, pairs = beside(full, everywhere, places(tokens(features(5)), COUNTED))  # a student that kept every token
    assert torch.equal(value, full)
    assert torch.equal(pairs, COUNTED)


def test_last_stages_are_named_or_refused():
    encoder = encoder_spec().build()
    assert Features(last=2).levels(encoder) == (1, 2)
    with pytest.raises(ConfigError, match="expected at most 2 stages, those of ViT, got 3"):
        Features(last=3).levels(encoder)
    with pytest.raises(ConfigError, match="at least one stage"):
        Features(last=0)
    encoder.abilities = frozenset({"drop"})
    with pytest.raises(ConfigError, match="gives the tokens of inner stages, got ViT"):
        last_levels(encoder, 1)


def test_stages_that_differ_are_refused():
    encoder = encoder_spec().build()
    encoder.level_grid = lambda level, grid: Grid(grid.tokens, grid.patch) if level == 1 else GRID
    with pytest.raises(ConfigError, match="the last 2 of ViT differ"):
        last_levels(encoder, 2)


@pytest.mark.slow
def test_two_ranks_share_their_means(tmp_path: Path):
    start_processes(_rank, (str(tmp_path),), nprocs=2, start_method="forkserver")
    for how in ("centre", "whiten"):
        joined = normalised(features(), COUNTED, how)
        parts = [torch.load(tmp_path / f"{how}.{rank}.pt") for rank in (0, 1)]
        torch.testing.assert_close(torch.cat(parts), joined, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(parts[0], normalised(features()[:1], COUNTED[:1], how), atol=1e-3)


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for how in ("centre", "whiten"):
        found = normalised(features()[rank : rank + 1], COUNTED[rank : rank + 1], how)
        torch.save(found, Path(folder) / f"{how}.{rank}.pt")
    distributed.destroy_process_group()
