from __future__ import annotations

import pytest
import torch

from core.errors import ConfigError
from core.heads.regress import Regress


def test_answers_in_units_of_the_labels() -> None:
    head = Regress(centre=(10.0, -2.0), spread=(4.0, 0.5), init_std=0.3).build(7)
    features = torch.randn(5, 7)
    plain = features @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(features), plain * torch.tensor([4.0, 0.5]) + torch.tensor([10.0, -2.0]))


def test_a_fresh_head_guesses_the_mean_of_the_labels() -> None:
    head = Regress(centre=(300.0,), spread=(20.0,)).build(64)
    torch.testing.assert_close(head(torch.randn(6, 64)), torch.full((6, 1), 300.0), atol=0.05, rtol=0)


def test_centre_and_spread_are_of_the_spec_and_not_of_the_weights() -> None:
    assert sorted(Regress(centre=(3.0,), spread=(2.0,)).build(4).state_dict()) == ["linear.bias", "linear.weight"]


@pytest.mark.parametrize("given", [{"centre": ()}, {"spread": (0.0,)}, {"centre": (1.0, 2.0)}, {"init_std": -1.0}])
def test_numbers_that_do_not_fit_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="expected a centre and a spread above 0"):
        Regress(**given)  # type: ignore[arg-type]
