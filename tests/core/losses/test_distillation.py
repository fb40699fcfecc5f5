"""Self-distillation's arithmetic on numbers that can be checked by hand; parity is in tests/parity/test_ibot.py."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import start_processes

from core.losses.distillation import Centre, distilled, per_image, sharpened, warmed

ZERO = torch.zeros(())


def test_centring_takes_the_running_mean_away_before_sharpening():
    logits = torch.tensor([[2.0, 1.0]])
    even = sharpened(logits, logits[0], 0.04)
    torch.testing.assert_close(even, torch.tensor([[0.5, 0.5]]))
    sharp = sharpened(logits, torch.zeros(2), 0.5)
    assert float(sharp[0, 0]) == pytest.approx(1 / (1 + math.exp(-2)))


def test_cross_entropy_of_an_even_guess_is_the_log_of_the_prototypes():
    distribution = torch.tensor([[0.7, 0.2, 0.1, 0.0]])
    assert float(distilled(torch.zeros(1, 4), distribution, 0.1)) == pytest.approx(math.log(4))
    guess = torch.tensor([[0.3, 0.0, 0.0, 0.0]])
    expected = -(0.7 * 3 - math.log(math.exp(3) + 3))
    assert float(distilled(guess, distribution, 0.1)) == pytest.approx(expected, rel=1e-5)


def test_each_image_counts_the_same_however_much_is_hidden():
    hide = torch.tensor([[True, True, True, False], [False, True, False, False], [False] * 4])
    weight = per_image(hide)
    assert weight.sum(1).tolist() == pytest.approx([1.0, 1.0, 0.0])
    assert float(weight[0, 0]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.04), (0.05, 0.055), (0.1, 0.07), (1.0, 0.07)])
def test_temperature_rises_over_its_share_of_training(progress, expected):
    assert float(warmed(torch.tensor(progress), 0.04, 0.07, 0.1)) == pytest.approx(expected)


def test_without_a_rise_the_temperature_is_the_last():
    assert float(warmed(torch.tensor(0.5), 0.04, 0.07, 0.0)) == pytest.approx(0.07)


def test_centre_moves_when_the_step_is_made_and_not_before():
    centre = Centre(2, 0.9)
    centre.note(torch.tensor([6.0, 3.0]), torch.tensor(3), ZERO)
    assert centre.value.tolist() == [0.0, 0.0]
    centre.update()
    assert centre.value.tolist() == pytest.approx([0.2, 0.1])
    centre.update()  # nothing new was noted
    assert centre.value.tolist() == pytest.approx([0.2, 0.1])


def test_slices_of_a_step_are_averaged_by_their_tokens():
    centre = Centre(1, 0.0)
    centre.note(torch.tensor([10.0]), torch.tensor(1), ZERO)
    centre.note(torch.tensor([2.0]), torch.tensor(2), ZERO)
    centre.update()
    assert float(centre.value) == pytest.approx(4.0)


def test_notes_of_a_step_that_was_not_made_are_dropped():
    centre = Centre(1, 0.0)
    centre.note(torch.tensor([torch.nan]), torch.tensor(1), ZERO)
    centre.note(torch.tensor([5.0]), torch.tensor(1), ZERO + 0.1)
    centre.update()
    assert float(centre.value) == 5.0


def test_a_batch_without_tokens_moves_nothing():
    centre = Centre(1, 0.5)
    centre.value.fill_(3.0)
    centre.note(torch.zeros(1), torch.tensor(0), ZERO)
    centre.update()
    assert float(centre.value) == 3.0


def test_the_checkpoint_holds_the_centre_and_no_notes():
    centre = Centre(2, 0.9)
    centre.note(torch.ones(2), torch.tensor(1), ZERO)
    assert list(centre.state_dict()) == ["value"]


@pytest.mark.slow
def test_ranks_form_one_mean(tmp_path: Path):
    start_processes(_rank, (str(tmp_path),), nprocs=2, start_method="forkserver")
    values = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert torch.equal(values[0], values[1])
    assert float(values[0]) == pytest.approx(0.1 * (1.0 + 20.0) / 6)


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    centre = Centre(1, 0.9)
    centre.note(torch.tensor([(1.0, 20.0)[rank]]), torch.tensor((1, 5)[rank]), ZERO)
    centre.update()
    torch.save(centre.value, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()
