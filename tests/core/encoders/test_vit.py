"""One encoder for every rank and band set: shared blocks, visible-only computation, validity, refused inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.errors import BandError, ConfigError, DataError
from core.plan import Plan
from core.testing.samples import SCENE, VOLUME, encoder_spec, ragged_batch
from tests.parity.fixture import make_batch, make_input


def test_one_encoder_reads_photographs_volumes_and_fourteen_bands_through_the_same_blocks():
    inputs = (
        make_input("photograph", 3, (16, 16), (224, 224)),
        make_input("volume", 1, (16, 16, 16), (32, 64, 32)),
        replace(make_input("toa", 14, (8, 8), (64, 64)), bands=tuple(f"modis{i}" for i in range(14))),
    )
    encoder = ViTSpec(contract=Contract(inputs=inputs), width=48, depth=2, heads=4).build()
    used: list[int] = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda module, *_: used.append(id(module)))
    for entry in inputs:
        used.clear()
        batch, _ = encoder.prepare(make_batch(torch.randn(2, len(entry.bands), *entry.size), entry))
        assert encoder.features(batch, "mean").shape == (2, 48)
        assert used == [id(block) for block in encoder.blocks]
    own = {name.split(".")[1] for name, _ in encoder.named_parameters() if name.startswith("stems")}
    assert own == {entry.name for entry in inputs}


@pytest.mark.parametrize("entry", [SCENE, VOLUME])
def test_hidden_tokens_cost_nothing(entry):
    encoder = encoder_spec().build()
    batch, _ = encoder.prepare(ragged_batch(entry).take([0]))
    tokens = batch.grid(entry.patch).num_tokens
    see = torch.zeros(1, tokens, dtype=torch.bool)
    see[:, : tokens // 4] = True
    costs = []
    for plan in (None, Plan(see=see, hide=~see)):
        with FlopCounterMode(display=False) as counter:
            encoder(batch, plan)
        costs.append(counter.get_total_flops())
    assert costs[1] < 0.36 * costs[0]  # a quarter of the tokens, and the class token


def test_no_prefix_and_everything_missing_stays_finite():
    encoder = replace(encoder_spec(), class_token=False).build()
    batch, _ = encoder.prepare(ragged_batch(SCENE))
    features = encoder.features(batch, "mean")
    assert bool(torch.isfinite(features).all())
    assert bool((features[3] == 0).all())
    with pytest.raises(ConfigError, match="class token for pool='cls'"):
        encoder.features(batch, "cls")
    with pytest.raises(ConfigError, match="class token for attention"):
        encoder(batch, attention=True)


@pytest.mark.parametrize("entry", [SCENE, VOLUME])
def test_pools_average_and_spread_over_valid_tokens_only(entry):
    encoder = encoder_spec().build()
    batch, _ = encoder.prepare(ragged_batch(entry))
    tokens = encoder(batch)
    for sample in (0, 1, 2):
        own = tokens.value[sample, tokens.ok[sample]]
        expected = torch.cat([own.mean(0), own.std(0, correction=0)])
        torch.testing.assert_close(encoder.features(batch, "mean_std")[sample], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder.features(batch, "mean")[sample], own.mean(0), rtol=1e-4, atol=1e-5)
    encoder.features(batch, "mean_std").sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in encoder.parameters() if p.grad is not None)


def test_two_passes_in_evaluation_are_identical():
    encoder = replace(encoder_spec(), drop_path=0.5).build()
    batch, _ = encoder.prepare(ragged_batch(SCENE))
    encoder.train()
    assert not torch.equal(encoder.features(batch, "cls"), encoder.features(batch, "cls"))
    encoder.eval()
    assert torch.equal(encoder.features(batch, "cls"), encoder.features(batch, "cls"))


def test_a_frozen_table_is_not_trained_and_not_constant():
    spec = replace(encoder_spec(), tables={"scene": (4, 6)})
    assert not spec.build().tables["scene"].requires_grad
    assert replace(spec, train_tables=True).build().tables["scene"].requires_grad
    rows = spec.build().tables["scene"][0, 1:]
    assert float(torch.cdist(rows, rows).fill_diagonal_(1e9).min()) > 1e-3


def test_what_the_encoder_does_not_read_is_refused():
    encoder = encoder_spec().build()
    batch = ragged_batch(VOLUME)
    with pytest.raises(BandError, match=r"3D with bands \('t1',\)"):
        encoder.prepare(replace(batch, bands=("t1",)))
    with pytest.raises(DataError, match="spacing in mm, got px"):
        encoder.prepare(replace(batch, unit="px"))
    with pytest.raises(ConfigError, match="even width that the heads divide"):
        replace(encoder_spec(), heads=5)


def test_a_superset_of_bands_is_selected_by_name():
    encoder = encoder_spec().build()
    batch = ragged_batch(SCENE).take([0, 1])
    more = {
        name: torch.cat([getattr(batch, name)[:, :1], getattr(batch, name)], 1)
        for name in ("image", "valid", "offset", "scale")
    }
    wider = replace(batch, bands=("coastal", *batch.bands), **more)
    assert torch.equal(
        encoder.features(encoder.prepare(wider)[0], "mean"), encoder.features(encoder.prepare(batch)[0], "mean")
    )
