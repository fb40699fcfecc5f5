"""What every masker keeps, in 2D and 3D, with and without groups of bands: exact counts, nothing invalid, no batch mates.

A test class gives the fixtures `name` and `entry` and inherits the exam; see tests/contracts/test_maskers.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, cached_property

import pytest
import torch
from torch import Tensor

from core import registry
from core.batch import Batch, valid_tokens
from core.contract import Input
from core.errors import ConfigError
from core.maskers.base import Masker
from core.plan import Guide, Plan
from core.rng import key
from core.shapes import Grid
from core.testing.samples import grouped, ragged_batch
from core.voxel_masks import to_voxels, token_share

ONLY_GROUPED = {"bands"}  # maskers that must refuse an input without groups of bands; no other may
MANY = 64


class MaskerContract:
    """The exam."""

    def test_hides_the_exact_share_of_valid_tokens(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            plan, valid = case.planned, valid_tokens(case.batch, case.grid)
            assert len(valid.sum(1).unique()) > 2
            for sample, count in enumerate(valid.sum(1).tolist()):
                exact = min(math.ceil(round(case.masker.ratio * count, 6)), max(count - 1, 0))
                assert int(plan.hide[sample].sum()) == exact, case.kind

    def test_a_valid_token_is_either_seen_or_hidden_and_an_invalid_one_neither(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            plan, valid = case.planned, valid_tokens(case.batch, case.grid)
            assert plan.see.dtype == plan.hide.dtype == torch.bool
            assert plan.see.device == plan.hide.device == case.batch.image.device
            assert torch.equal(plan.see ^ plan.hide, valid), case.kind
            assert not bool((plan.see & plan.hide).any())

    def test_a_sample_without_data_hides_nothing(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            plan = case.of([3])
            assert not bool((plan.see | plan.hide).any())
            assert plan.voxels is None or not bool(plan.voxels.any())

    def test_the_same_keys_give_the_same_plan(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            assert same(case.planned, case.plan())

    def test_other_keys_give_another_plan(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            if case.masker.hint is None:  # a masker may follow its hint alone
                plans = [replace(case, batch=replace(case.batch, key=case.batch.key + n)).plan().hide for n in range(4)]
                assert not all(torch.equal(plans[0], plan) for plan in plans[1:]), case.kind

    def test_autocast_changes_nothing(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            with torch.autocast("cpu", torch.bfloat16):
                half = case.plan()
            assert same(half, case.planned), case.kind

    def test_batch_mates_change_nothing(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            together = case.planned
            for sample in range(4):
                assert same(case.of([sample]), of_rows(together, [sample])), (case.kind, sample)
            assert same(case.of([2, 0]), of_rows(together, [2, 0])), case.kind

    def test_content_of_missing_voxels_changes_nothing(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            plan, batch = case.planned, case.batch
            for content in (1e4, -1e4):
                other = replace(batch, image=torch.where(batch.valid, batch.image, content))
                assert same(plan, replace(case, batch=other).plan()), (case.kind, content)
            for content in (math.nan, math.inf):  # preparing a batch takes these out, as in every step
                other = replace(batch, image=torch.where(batch.valid, batch.image, content)).normalised()
                assert same(plan, replace(case, batch=other).plan()), (case.kind, content)

    def test_every_token_is_sometimes_seen_and_sometimes_hidden_whatever_its_order(
        self, name: str, entry: Input
    ) -> None:
        """Ties that fall in raster order would show as a corner that is always hidden, or as a slope."""
        for case in cases(name, entry):
            hidden = many(case).plan().hide.float().mean(dim=0)
            assert 0.0 < float(hidden.min()) <= float(hidden.max()) < 1.0, case.kind
            first, last = hidden.unflatten(0, (case.grid.num_groups, -1)).mean(dim=0).chunk(2)
            assert abs(float(first.mean() - last.mean())) < 0.1, case.kind

    def test_a_score_counts_hidden_or_seen_tokens_only(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            plan = case.planned
            for weight in plan.score.values():
                assert weight.shape == plan.hide.shape
                assert bool(torch.isfinite(weight.float()).all())
                assert float(weight.float().min()) >= 0.0
                assert not bool((weight[~(plan.hide | plan.see)] > 0).any())

    def test_hidden_voxels_lie_in_hidden_tokens_and_each_of_these_has_some(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            plan = case.planned
            if plan.voxels is None:
                assert plan.covered is None
                continue
            assert plan.voxels.dtype == torch.bool
            assert plan.voxels.shape[2:] == case.batch.image.shape[2:]
            assert not bool((plan.voxels & ~to_voxels(plan.hide, case.grid, case.batch.bands)).any())
            share = group_share(plan.voxels, case)
            assert torch.equal(share > 0.0, plan.hide)
            assert plan.covered is not None
            assert torch.equal(share, plan.covered)
            assert 0.0 < float(share[plan.hide].mean()) < 1.0

    def test_a_grid_of_one_token_is_refused(self, name: str, entry: Input) -> None:
        for kind in (entry, replace(grouped(entry), groups=(entry.bands,))):
            with pytest.raises(ConfigError, match="expected"):
                made(name).check(Grid.of(entry.patch, entry.patch, kind.groups), entry.spacing)

    def test_only_what_splits_groups_wants_groups(self, name: str, entry: Input) -> None:
        if name not in ONLY_GROUPED:
            made(name).check(entry.grid(), entry.spacing)
            return
        with pytest.raises(ConfigError, match="groups"):
            made(name).check(entry.grid(), entry.spacing)

    @pytest.mark.gpu
    def test_a_gpu_plans_the_same(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            here, there = case.planned, replace(case, batch=case.batch.to(torch.device("cuda")), hint=case.hint.cuda())
            plan = there.plan()
            assert torch.equal(plan.hide.sum(1).cpu(), here.hide.sum(1))
            # transforms and sums differ in their last digits, which may exchange two neighbours in rank
            assert float((plan.hide.cpu() == here.hide).float().mean()) > 0.97


@dataclass(frozen=True)
class Case:
    """A masker on one input.

    Attributes:
        kind: `plain`, or `grouped`: its bands are in groups.
        masker: built with its defaults.
        grid: of the input.
        batch: prepared, with a prior.
        hint: (B, N) positive.
    """

    kind: str
    masker: Masker
    grid: Grid
    batch: Batch
    hint: Tensor

    @cached_property
    def planned(self) -> Plan:
        """The plan of the whole batch, made once."""
        return self.plan()

    def plan(self) -> Plan:
        """Plan the whole batch, half way through the training."""
        return self.masker(self.batch, self.grid, self.batch.rng, Guide(self.hint, torch.tensor(0.5).to(self.hint)))

    def of(self, rows: list[int]) -> Plan:
        """Plan some samples alone."""
        return replace(self, batch=self.batch.take(rows), hint=self.hint[rows]).plan()


def made(name: str) -> Masker:
    """Build any masker of the folder with its defaults."""
    masker: Masker = registry.get("maskers", name)()
    return masker


@cache
def cases(name: str, entry: Input) -> tuple[Case, ...]:
    """Lay a masker over an input as it is and with its bands in groups."""
    found = []
    draw = torch.Generator().manual_seed(1)
    for kind, own in (("plain", entry), ("grouped", grouped(entry))):
        if own.groups or name not in ONLY_GROUPED:
            grid, batch, masker = own.grid(), ragged_batch(own).normalised(), made(name)
            masker.check(grid, own.spacing)
            prior = torch.rand(len(batch), 1, *batch.size, generator=draw)
            hint = torch.rand(len(batch), grid.num_tokens, generator=draw) + 0.1
            found.append(Case(kind, masker, grid, replace(batch, prior=prior), hint))
    return tuple(found)


def many(case: Case) -> Case:
    """Give many different samples, all of them complete."""
    draw = torch.Generator().manual_seed(2)
    batch = case.batch.take([0] * MANY)
    return replace(
        case,
        batch=replace(
            batch,
            image=torch.randn(batch.image.shape, generator=draw),
            prior=torch.rand(MANY, 1, *batch.size, generator=draw),
            key=torch.tensor([key(0, "many", index) for index in range(MANY)]),
        ),
        hint=torch.rand(MANY, case.grid.num_tokens, generator=draw) + 0.1,
    )


def group_share(voxels: Tensor, case: Case) -> Tensor:
    """Measure which share of each token's voxels is hidden, (B, N) float32."""
    if not case.grid.groups:
        return token_share(voxels, case.grid)
    first = [case.batch.bands.index(group[0]) for group in case.grid.groups]
    return torch.cat([token_share(voxels[:, [band]], case.grid.plain) for band in first], dim=1)


def of_rows(plan: Plan, rows: list[int]) -> Plan:
    """Give the plan of some samples."""
    score = {term: weight[rows] for term, weight in plan.score.items()}
    voxels, covered = (None if part is None else part[rows] for part in (plan.voxels, plan.covered))
    return Plan(plan.see[rows], plan.hide[rows], score, voxels, covered)


def same(one: Plan, two: Plan) -> bool:
    """Compare two plans bit by bit."""
    tensors = [(one.see, two.see), (one.hide, two.hide)]
    tensors += [(weight, two.score[term]) for term, weight in one.score.items()]
    for a, b in ((one.voxels, two.voxels), (one.covered, two.covered)):
        if (a is None) != (b is None):
            return False
        if a is not None and b is not None:
            tensors.append((a, b))
    return one.score.keys() == two.score.keys() and all(torch.equal(a, b) for a, b in tensors)
