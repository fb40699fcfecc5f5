"""Ranks within parts, ties either way."""

from __future__ import annotations

import torch

from core.maskers._rank import either_way, ranked_within
from tests.core.maskers.inputs import streams


def test_ranked_within_ranks_each_part_by_itself():
    score, part = torch.rand(4, 60), torch.randint(3, (4, 60))
    counted = torch.rand(4, 60) < 0.8
    rank, size = ranked_within(score, part, counted, 3)
    for row in range(4):
        for number in range(3):
            own = counted[row] & (part[row] == number)
            assert int(size[row, number]) == int(own.sum())
            assert torch.equal(rank[row][own], score[row][own].argsort().argsort())


def test_ties_fall_either_way_and_nothing_else_moves():
    score = torch.rand(200, 30)
    assert torch.equal(either_way(score, streams(200)).argsort(1), score.argsort(1))
    ties = either_way(torch.zeros(200, 30), streams(200)).argsort(1)
    forward = ties[:, 0] == 0
    assert 0.4 < float(forward.float().mean()) < 0.6
    assert torch.equal(ties[~forward][0], torch.arange(29, -1, -1))
