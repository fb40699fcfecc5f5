"""Codes of a fitted codebook: clusters are found, missing values take no part, and a wrong file is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from core.errors import ConfigError
from core.losses import cross_entropy, masked_mean
from core.shapes import unpatchify
from core.targets._kmeans import kmeans, reseeded
from core.targets.codebook import Codebook, fit_codebook
from core.targets.pixels import Pixels
from tests.parity.fixture import make_batch, make_input

ENTRY = make_input("texture", 1, (4, 4), (16, 16))


def _prototypes():
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    return torch.stack([torch.zeros(4, 4), y, x, 3 - y + x]).flatten(1)


def _batches(count=4, noise=0.05):
    """Images whose patches are one of four prototypes plus noise; and which."""
    draw = torch.Generator().manual_seed(0)
    which = torch.randint(4, (count, 2, 16), generator=draw)
    patches = _prototypes()[which] + noise * torch.randn(count, 2, 16, 16, generator=draw)
    return [make_batch(unpatchify(p, ENTRY.grid()), ENTRY) for p in patches], which


def _stored(tmp_path, batches, entry=ENTRY, **options):
    path = tmp_path / "codes.safetensors"
    save_file(fit_codebook(batches, entry, **({"size": 4, "seed": 0} | options)), path)
    return str(path)


def test_clusters_are_found_and_codes_name_them(tmp_path):
    batches, which = _batches()
    target = Codebook(path=_stored(tmp_path, batches))
    assert target.num_values(ENTRY) == 4
    codes = torch.stack([target(batch, ENTRY.grid())[0][..., 0] for batch in batches]).to(torch.int64)
    names = [codes[which == prototype].unique() for prototype in range(4)]
    assert [len(name) for name in names] == [1] * 4
    assert torch.cat(names).unique().tolist() == [0, 1, 2, 3]
    drawn = target.picture(codes[0][..., None].float(), batches[0], ENTRY.grid())
    torch.testing.assert_close(drawn, batches[0].image, atol=0.3, rtol=0.0)


def test_a_seed_gives_the_same_book_and_another_seed_another():
    batches, _ = _batches(noise=1.0)
    one, two, other = (fit_codebook(batches, ENTRY, size=6, seed=seed, passes=3) for seed in (0, 0, 1))
    (key,) = one
    assert torch.equal(one[key], two[key])
    assert not torch.equal(one[key], other[key])


def test_more_passes_serve_the_patches_better():
    batches, _ = _batches(noise=1.0)

    def misfit(passes):
        (book,) = fit_codebook(batches, ENTRY, size=6, seed=0, passes=passes).values()
        patches = torch.cat([Pixels(normalise="none")(b, ENTRY.grid())[0].flatten(0, 1) for b in batches])
        return float(torch.cdist(patches, book).amin(1).square().sum())

    assert misfit(10) < misfit(1)


def test_missing_values_neither_move_a_centroid_nor_choose_a_code(tmp_path):
    batches, which = _batches()
    for number, batch in enumerate(batches):
        hole = torch.rand(batch.valid.shape, generator=torch.Generator().manual_seed(number)) < 0.3
        batch.valid[hole] = False
        batch.image[hole] = math.nan
    path = _stored(tmp_path, batches)
    target = Codebook(path=path)
    found = torch.stack([target(batch.normalised(), ENTRY.grid())[0][..., 0] for batch in batches])
    most = [found[which == p].mode().values for p in range(4)]
    assert len({float(m) for m in most}) == 4
    right = torch.stack([(found == m) & (which == p) for p, m in enumerate(most)]).any(0)
    assert float(right.float().mean()) > 0.97


def test_a_token_of_which_too_little_is_known_has_no_weight(tmp_path):
    batches, _ = _batches()
    target = Codebook(path=_stored(tmp_path, batches))
    batch = batches[0]
    batch.valid[0, 0, :4, :3] = False  # 4 of 16 values are left
    batch.valid[0, 0, :4, 4:6] = False  # 8 of 16
    _, weight = target(batch, ENTRY.grid())
    assert weight[0, :2, 0].tolist() == [False, True]


def test_cross_entropy_reads_the_codes(tmp_path):
    batches, _ = _batches()
    target = Codebook(path=_stored(tmp_path, batches))
    code, weight = target(batches[0], ENTRY.grid())
    sure = torch.nn.functional.one_hot(code[..., 0].to(torch.int64), 4) * 50.0
    assert float(masked_mean(cross_entropy(sure, code), weight)) < 1e-6
    blind = masked_mean(cross_entropy(torch.zeros(2, 16, 4), code), weight)
    assert float(blind) == pytest.approx(math.log(4))


def test_a_book_of_other_vectors_bands_or_patches_is_refused(tmp_path):
    path = _stored(tmp_path, _batches()[0])
    for target, entry in (
        (Codebook(path=path, of=Pixels()), ENTRY),
        (Codebook(path=path), replace(ENTRY, bands=("other",))),
        (Codebook(path=path), replace(ENTRY, patch=(8, 8))),
    ):
        with pytest.raises(ConfigError, match="fit one for this input"):
            target.num_values(entry)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    path = str(tmp_path / "absent.safetensors")
    with pytest.raises(ConfigError) as refused:
        Codebook(path=path).num_values(ENTRY)
    assert str(refused.value) == f"expected a codebook that `fit_codebook` made, got '{path}', which is no file."


def test_a_file_that_is_no_codebook_is_refused(tmp_path):
    path = tmp_path / "note.safetensors"
    path.write_text("no tensors")
    with pytest.raises(ConfigError, match="expected a codebook that `fit_codebook` made, but .*whole safetensors file"):
        Codebook(path=str(path)).num_values(ENTRY)


def test_fewer_patches_than_codes_are_refused():
    same = make_batch(torch.ones(2, 1, 16, 16), ENTRY)
    with pytest.raises(ConfigError, match="expected at least 3 different vectors to cluster, got 1"):
        fit_codebook([same], ENTRY, size=3, seed=0)
    with pytest.raises(ConfigError, match="expected two codes or more"):
        fit_codebook([same], ENTRY, size=1, seed=0)


def test_a_centroid_without_rows_goes_where_the_others_fit_worst():
    pool = torch.tensor([[0.0, 0.0], [0.1, 9.0], [5.0, 5.0], [7.0, -9.0]])
    known = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    centroids = torch.tensor([[0.0, 0.0], [5.0, 5.0], [99.0, 99.0]])
    moved = reseeded(centroids, torch.tensor([2.0, 2.0, 0.0]), pool, known)
    assert moved.tolist() == [[0.0, 0.0], [5.0, 5.0], [7.0, 5.0]]  # the missing value is filled from the nearest
    assert torch.equal(reseeded(centroids, torch.ones(3), pool, known), centroids)


def test_a_centroid_that_loses_its_rows_moves_while_fitting():
    """Two outliers are there while seeds are chosen and never again: the centroid at one goes to the worse one."""
    rows = torch.tensor([[0.0], [0.1], [5.0], [5.1], [70.0], [90.0]])
    calls = iter(range(9))

    def stream():
        kept = rows if next(calls) == 0 else rows[:4]
        yield kept, torch.ones_like(kept, dtype=torch.bool)

    book = kmeans(stream, 3, passes=1, draw=torch.Generator().manual_seed(19), pool=6)
    assert sorted(round(c, 3) for c in book[:, 0].tolist()) == [0.05, 5.05, 90.0]


def test_codes_do_not_depend_on_autocast(tmp_path):
    """In bfloat16 products of nearly equal patches would be confused."""
    image = 10.0 + 0.1 * torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = make_batch(image, ENTRY)
    target = Codebook(path=_stored(tmp_path, [batch], size=32))
    code, _ = target(batch, ENTRY.grid())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again, _ = target(batch, ENTRY.grid())
    assert torch.equal(code, again)
    assert len(code.unique()) > 20
