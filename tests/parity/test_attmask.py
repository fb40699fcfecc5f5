"""The attention masker against gkakogeorgiou/attmask: high, low, hints, and the share of images that is masked."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from core.maskers.attention import AttentionGuided
from core.plan import Guide
from tests.parity.fixture import Fixture, make_batch, make_input

pytestmark = pytest.mark.parity


@dataclass
class Given:
    """Random numbers from the fixture in place of ours, by the name of their use."""

    draws: dict[str, Tensor]
    stream: str = ""

    def split(self, stream: str) -> Given:
        return Given(self.draws, stream)

    def uniform(self, *shape: int) -> Tensor:
        return self.draws.get(self.stream, torch.rand(6, *shape))


@pytest.fixture
def reference(parity):
    return Fixture(parity / "attmask")


def _hidden(reference: Fixture, **options) -> Tensor:
    entry = make_input("image", 1, (2, 2), (14, 14))
    batch = make_batch(torch.zeros(6, 1, 14, 14), entry)
    # the reference reveals the first of `hint_idx` that lie in the top set; ours those with the highest draw
    reveal = torch.zeros(6, 49).scatter_(1, reference.io["in.hint_idx"], torch.linspace(1, 0, 49).expand(6, -1))
    rng = Given({"attention applied": reference.io["in.rand"], "attention reveal": reveal})
    masker = AttentionGuided(count="floor", **options)
    plan = masker(batch, batch.grid((2, 2)), rng, Guide(hint=reference.io["in.attention"]))
    assert torch.equal(plan.see, ~plan.hide)
    return plan.hide


@pytest.mark.parametrize("mode", ["high", "low"])
def test_high_and_low(reference, mode):
    ratio = reference.config["masking_ratio"]
    assert torch.equal(_hidden(reference, mode=mode, ratio=ratio), reference.io[f"out.attmask_{mode}_all"])
    half = _hidden(reference, mode=mode, ratio=ratio, applied=reference.config["masking_prob"])
    assert torch.equal(half, reference.io[f"out.attmask_{mode}"])
    assert half.any(dim=1).sum() == 5


def test_hints(reference):
    ours = _hidden(reference, mode="hint", ratio=0.5, reveal=0.1, top=0.2)
    assert torch.equal(ours, reference.io["out.attmask_hint"])
    assert ours.sum(dim=1).tolist() == [20] * 6
