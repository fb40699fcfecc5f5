"""Bands go by name: in whatever order a file holds them every output is the same to the bit, and what has no name is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from core import load_encoder
from core.batch import Batch
from core.contract import Contract, Normalisation
from core.encoders.base import EncoderSpec
from core.encoders.cards.satvision import satvision_input
from core.encoders.convnet import ConvNetSpec
from core.encoders.load import Encoder
from core.encoders.swinv2 import SwinV2Spec
from core.encoders.vit import ViTSpec
from core.errors import BandError
from core.preprocess import prepare
from core.weights import Placement

TOA = replace(satvision_input(), size=(32, 32))
GROUPED = replace(TOA, groups=(TOA.bands[:5], TOA.bands[5:9], TOA.bands[9:]))
WARM = [at for at, band in enumerate(TOA.described) if band.unit == "K"]
PERMUTATIONS = 200


def swin() -> EncoderSpec:
    return SwinV2Spec(contract=Contract(inputs=(TOA,)), width=16, depths=(1, 1), heads=(2, 2), window=(4, 4))


def grouped_vit() -> EncoderSpec:
    return ViTSpec(contract=Contract(inputs=(GROUPED,)), width=16, depth=1, heads=2, tables={"toa": (8, 8)})


def convnet() -> EncoderSpec:
    return ConvNetSpec(contract=Contract(inputs=(TOA,)), widths=(8, 16), depths=(1, 1))


def encoder_of(spec: EncoderSpec) -> Encoder:
    torch.manual_seed(3)
    return Encoder(spec.build(), pool="mean", report=Placement(())).eval()


def scene(seed: int = 0) -> np.ndarray:
    """Draw percent reflectance and temperatures, (14, 32, 32); a corner is no data in one band and an edge in all."""
    values = np.random.default_rng(seed).uniform(0.0, 80.0, (14, 32, 32)).astype(np.float32)
    values[WARM] += 205.0
    values[3, :5, :9] = np.nan
    values[:, :, 30:] = np.nan
    return values


def orders() -> list[list[int]]:
    random = np.random.default_rng(11)
    return [random.permutation(14).tolist() for _ in range(PERMUTATIONS)]


def named(order: list[int]) -> tuple[str, ...]:
    return tuple(TOA.bands[at] for at in order)


@pytest.mark.parametrize(
    "make", [swin, pytest.param(grouped_vit, marks=pytest.mark.slow), pytest.param(convnet, marks=pytest.mark.slow)]
)
def test_200_orders_of_an_array_give_the_same_vector_tokens_and_map(make: Callable[[], EncoderSpec]) -> None:
    encoder, image = encoder_of(make()), scene()
    with torch.no_grad():
        ready = encoder.preprocess(image, bands=TOA.bands)
        vector, tokens, places = encoder(ready), encoder.tokens(ready), encoder.feature_map(ready)
        assert bool(vector.abs().sum() > 0)
        for number, order in enumerate(orders()):
            again = encoder.preprocess(image[order], bands=named(order))
            assert torch.equal(again.image, ready.image)
            assert torch.equal(again.valid, ready.valid)
            assert torch.equal(encoder(again), vector)
            if number < 10:  # an order that changes nothing by itself would prove nothing
                misnamed = replace(ready, image=ready.image[:, order], valid=ready.valid[:, order])
                assert not torch.equal(encoder(misnamed), vector)
        assert torch.equal(encoder.tokens(again), tokens)
        assert torch.equal(encoder.feature_map(again), places)


def test_200_orders_of_a_batch_with_its_own_value_space_give_the_same_vectors() -> None:
    encoder = encoder_of(swin())
    ready = prepare(scene(), TOA.bands, TOA)
    number = torch.arange(2)
    batch = Batch(
        image=torch.from_numpy(np.stack([ready.image, ready.image[:, ::-1].copy()])),
        valid=torch.from_numpy(np.stack([ready.valid, ready.valid[:, ::-1].copy()])),
        bands=TOA.bands,
        spacing=torch.full((2, 2), 1000.0),
        unit="m",
        offset=torch.from_numpy(ready.offset).expand(2, -1),
        scale=torch.from_numpy(ready.scale).expand(2, -1),
        key=number,
        index=number,
        row=number,
    )
    with torch.no_grad():
        vectors = encoder(batch)
        for order in orders():
            assert torch.equal(encoder(batch.aligned(named(order))), vectors)


def test_more_bands_than_the_encoder_reads_change_nothing_wherever_they_stand() -> None:
    encoder, image = encoder_of(swin()), scene()
    names, more = (*TOA.bands, "B20", "B99"), np.concatenate([image, image[:2] * -5e6])
    with torch.no_grad():
        vector = encoder(encoder.preprocess(image, bands=TOA.bands))
        for order in (np.random.default_rng(seed).permutation(16).tolist() for seed in range(20)):
            again = encoder.preprocess(more[order], bands=tuple(names[at] for at in order))
            assert torch.equal(encoder(again), vector)


def test_other_names_of_the_same_bands_give_the_same_vector() -> None:
    entry = replace(TOA, sensor="sentinel2_l1c", bands=("B04", "B08"), normalisation=Normalisation(method="per_image"))
    spec = SwinV2Spec(contract=Contract(inputs=(entry,)), width=16, depths=(1, 1), heads=(2, 2), window=(4, 4))
    encoder, image = encoder_of(spec), np.random.default_rng(0).uniform(0, 0.5, (3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        ready = encoder.preprocess(image, bands=("B04", "B08", "B02"))
        vector = encoder(ready)
        assert torch.equal(encoder(encoder.preprocess(image[[1, 2, 0]], bands=("B8", "B2", "B4"))), vector)
        renamed = replace(ready, bands=("B8", "B4"), image=ready.image[:, [1, 0]], valid=ready.valid[:, [1, 0]])
        assert torch.equal(encoder(renamed), vector)


@pytest.mark.parametrize("count", [1, 13, 15])
def test_a_wrong_number_of_bands_is_refused(count: int) -> None:
    encoder, image = encoder_of(swin()), np.resize(scene(), (count, 32, 32))
    with pytest.raises(BandError, match=rf"one name for each of {count} channels, got 14 names"):
        encoder.preprocess(image, bands=TOA.bands)
    with pytest.raises(BandError, match=rf"expected .*'B33'\).* got 2D with {count} channels"):
        encoder(torch.zeros(1, count, 32, 32))


def test_unnamed_and_misnamed_and_doubled_bands_are_refused() -> None:
    encoder, image = encoder_of(swin()), scene()
    with pytest.raises(BandError, match="name"):
        encoder.preprocess(image)
    plain = tuple(f"band{at + 1}" for at in range(14))
    with pytest.raises(BandError, match=r"this encoder reads .*'B01'.* got 2D with bands \('band1'"):
        encoder.preprocess(image, bands=plain)
    with pytest.raises(BandError, match="each band once"):
        encoder.preprocess(np.concatenate([image, image[:1]]), bands=(*TOA.bands, "B01"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: _cool(v, 273.15), "B21 has median -?[0-9.]+ .*brightness temperature in K.*Celsius"),
        (lambda v: _bright(v, 0.01), "B01, B02, B03, B06, B07, B26 lie between .* multiply by 100"),
        (lambda v: _bright(v, 100.0), "B01 has median [0-9.]+ .*reflectance in percent.*counts"),
        (lambda v: v * 1000.0, "B01 has median [0-9.e+]+ .*13 more.*reflectance in percent"),
    ],
)
def test_wrong_units_are_refused_with_the_band_the_number_and_the_unit(change: Any, words: str) -> None:
    with pytest.raises(BandError, match=words):
        encoder_of(swin()).preprocess(change(scene()), bands=TOA.bands)


@pytest.mark.slow
def test_a_published_encoder_refuses_too_and_takes_any_order() -> None:
    encoder = load_encoder("fgmae-s2-vits16", weights=None)
    (entry,) = encoder.contract.inputs
    assert len(entry.bands) == 13
    image = np.random.default_rng(0).uniform(0.0, 0.6, (13, 224, 224)).astype(np.float32)
    order = np.random.default_rng(5).permutation(13).tolist()
    with torch.no_grad():
        vector = encoder(encoder.preprocess(image, bands=entry.bands))
        again = encoder(encoder.preprocess(image[order], bands=tuple(entry.bands[at] for at in order)))
    assert torch.equal(vector, again)
    with pytest.raises(BandError, match="B01 has median [0-9.]+ .*reflectance in 0..1.*10000"):
        encoder.preprocess(image * 10_000, bands=entry.bands)


def _cool(values: np.ndarray, degrees: float) -> np.ndarray:
    values[WARM] -= degrees
    return values


def _bright(values: np.ndarray, factor: float) -> np.ndarray:
    cold = [at for at in range(14) if at not in WARM]
    values[cold] *= factor
    return values
