"""An adapted encoder gives what the original gives for the spectrum that it is made to see."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.batch import Batch
from core.contract import Contract, Input, Normalisation
from core.encoders._adapt import Adapted, adapt
from core.encoders.base import EncoderSpec
from core.encoders.swinv2 import SwinV2Spec
from core.encoders.vit import ViTSpec
from core.errors import BandError, ConfigError
from core.pos_embed import PositionRule
from core.sensors import get_sensor
from core.weights import place

SENTINEL = ("B02", "B03", "B04", "B08", "B11", "B12")


def optical(bands: tuple[str, ...] = SENTINEL, sensor: str = "sentinel2_l1c", **options) -> Input:
    count = len(bands)
    space = Normalisation(
        method="fixed",
        mean=tuple(0.1 + 0.02 * i for i in range(count)),
        std=tuple(0.05 + 0.01 * i for i in range(count)),
        full_scale=False,
    )
    facts = dict(name="scene", bands=bands, patch=(4, 4), size=(16, 16), spacing=(10.0, 10.0), unit="m", sensor=sensor)
    return Input(**(facts | dict(normalisation=space) | options))


def swin(entry: Input) -> SwinV2Spec:
    return SwinV2Spec(contract=Contract(inputs=(entry,)), width=8, depths=(1, 1), heads=(2, 2), window=(4, 4))


def vit(entry: Input, **options) -> ViTSpec:
    return ViTSpec(contract=Contract(inputs=(entry,)), width=16, depth=1, heads=2, **options)


def weights_of(spec: EncoderSpec) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = spec.build().state_dict()
    return {key: torch.randn_like(value) * 0.2 if value.is_floating_point() else value for key, value in state.items()}


def encode(spec: EncoderSpec, weights: dict[str, Tensor], image: Tensor) -> Tensor:
    """Encode raw values (B, C, Y, X) by the contract of the encoder."""
    backbone = spec.build().eval()
    place(backbone, weights, source="a test")
    (entry,) = spec.contract.inputs
    number = torch.arange(len(image))
    space, zeros = entry.normalisation, torch.zeros(len(image), len(entry.bands))
    batch = Batch(
        image=image,
        valid=torch.ones_like(image, dtype=torch.bool),
        bands=entry.bands,
        spacing=torch.tensor(entry.spacing).expand(len(image), -1),
        unit=entry.unit,
        offset=zeros + torch.tensor(space.mean) if space.mean else zeros,
        scale=1.0 / torch.tensor(space.std).expand(len(image), -1) if space.std else zeros + 1.0,
        key=number,
        index=number,
        row=number,
    )
    with torch.no_grad():
        tokens: Tensor = backbone(backbone.prepare(batch)[0]).value
    return tokens


def to(spec: EncoderSpec, bands: tuple[str, ...], method: str, sensor: str = "", weights=None) -> Adapted:
    return adapt(spec, weights or weights_of(spec), entry="scene", bands=bands, method=method, sensor=sensor)


def scene(bands: int, low: float = 0.0, high: float = 0.6) -> Tensor:
    return torch.rand(2, bands, 16, 16, generator=torch.Generator().manual_seed(1)) * (high - low) + low


@pytest.mark.parametrize("make", [swin, vit], ids=["swinv2", "vit"])
def test_a_subset_reads_the_others_as_zero_of_the_value_space(make) -> None:
    spec, bands = make(optical()), ("B12", "B04", "B02")
    weights, image = weights_of(spec), scene(3)
    adapted = to(spec, bands, "subset", weights=weights)
    entry = adapted.spec.contract.inputs[0]
    space = optical().normalisation
    assert (entry.bands, entry.sensor, entry.normalisation.mean) == (bands, "sentinel2_l1c", (0.2, 0.14, 0.1))
    whole = torch.tensor(space.mean)[None, :, None, None].repeat(2, 1, 16, 16)
    whole[:, [5, 2, 0]] = image
    torch.testing.assert_close(encode(adapted.spec, adapted.weights, image), encode(spec, weights, whole))
    assert "3 bands (B12, B04, B02) in place of 6, adapted by 'subset'" in adapted.notes[0]
    assert adapted.notes[1] == (
        "of the encoder's bands these read nothing and count as 0 of its value space: "
        "B03 as 0.12 reflectance, B08 as 0.16 reflectance, B11 as 0.18 reflectance"
    )


def test_a_subset_copies_numbers_bit_by_bit_in_the_files_own_type() -> None:
    spec = swin(optical())
    weights = {key: value.to(torch.bfloat16) for key, value in weights_of(spec).items()}
    key = "stems.scene.embed.weight"
    adapted = to(spec, ("B04", "B02"), "subset", weights=weights)
    assert adapted.weights[key].dtype == torch.bfloat16
    assert torch.equal(adapted.weights[key], weights[key][:, [2, 0]])
    assert all(torch.equal(value, weights[name]) for name, value in adapted.weights.items() if name != key)
    assert weights[key].shape[1] == 6, "the given weights were changed"


def test_another_order_of_the_same_bands_is_no_change() -> None:
    spec = swin(optical())
    weights = weights_of(spec)
    adapted = to(spec, SENTINEL[::-1], "subset", weights=weights)
    assert adapted.notes == ()
    assert adapted.spec is spec
    assert all(adapted.weights[key] is value for key, value in weights.items())


def test_other_names_of_the_encoders_bands_are_its_own() -> None:
    adapted = to(swin(optical()), ("B4", "B2"), "subset")
    assert adapted.spec.contract.inputs[0].bands == ("B04", "B02")
    assert to(swin(optical()), ("B2", "B3", "B4", "B8", "B11", "B12"), "subset").notes == ()


def test_nearest_bands_of_another_sensor_and_unit_give_the_same_vectors() -> None:
    spec = swin(optical())
    weights = weights_of(spec)
    wanted = ("B03", "B01", "B02", "B06", "B07")  # MODIS: blue, red, near and short-wave infrared
    adapted = to(spec, wanted, "nearest", sensor="modis_toa14", weights=weights)
    percent = scene(5, 0.0, 60.0)
    seen = torch.tensor(optical().normalisation.mean)[None, :, None, None].repeat(2, 1, 16, 16)
    for row, column in {0: 0, 2: 1, 3: 2, 4: 3, 5: 4}.items():
        seen[:, row] = percent[:, column] / 100
    torch.testing.assert_close(
        encode(adapted.spec, adapted.weights, percent), encode(spec, weights, seen), rtol=1e-4, atol=1e-5
    )
    assert "B02 (492.4 nm) reads B03 (469 nm)" in adapted.notes[1]
    assert adapted.notes[2].endswith("value space: B03 as 0.12 reflectance")  # MODIS-14 has no green
    assert adapted.spec.contract.inputs[0].sensor == "modis_toa14"


def test_wavelengths_are_interpolated_exactly_in_physical_values() -> None:
    spec = vit(optical())
    weights, wanted = weights_of(spec), ("B1", "B2", "B3", "B4", "B5", "B7")
    adapted = to(spec, wanted, "wavelength", sensor="landsat7", weights=weights)
    image, seen = scene(6), torch.empty(2, 6, 16, 16)
    have, want = get_sensor("sentinel2_l1c"), get_sensor("landsat7")
    centres = torch.tensor([want.find(band).centre_nm for band in wanted])
    for row, band in enumerate(SENTINEL):
        at = have.find(band).centre_nm
        second = int((centres < at).sum().clamp(1, 5))
        share = float(((at - centres[second - 1]) / (centres[second] - centres[second - 1])).clamp(0, 1))
        seen[:, row] = (1 - share) * image[:, second - 1] + share * image[:, second]
    torch.testing.assert_close(
        encode(adapted.spec, adapted.weights, image), encode(spec, weights, seen), rtol=1e-4, atol=1e-5
    )
    assert "B11 (1613.7 nm) reads 0.04 B4 (835 nm) + 0.96 B5 (1650 nm)" in adapted.notes[1]


def test_thermal_bands_are_never_mixed_with_reflective_ones() -> None:
    modis = get_sensor("modis_toa14")
    space = Normalisation(method="fixed", mean=(0.0,) * 14, std=(1.0,) * 14, full_scale=False)
    spec = swin(optical(modis.names, "modis_toa14", normalisation=space))
    weights = weights_of(spec)
    key = "stems.scene.embed.weight"
    adapted = to(spec, get_sensor("abi").names, "wavelength", sensor="abi", weights=weights)
    kernel = adapted.weights[key]
    abi = [band.unit for band in get_sensor("abi").bands]
    only_warm = {name: value.clone() for name, value in weights.items()}
    only_warm[key][:, [at for at, band in enumerate(modis.bands) if band.unit != "K"]] = 0.0
    warm = to(spec, get_sensor("abi").names, "wavelength", sensor="abi", weights=only_warm).weights[key]
    assert not warm[:, [at for at, unit in enumerate(abi) if unit != "K"]].any()
    assert torch.equal(warm[:, 6:], kernel[:, 6:])
    plain = to(spec, SENTINEL, "nearest", sensor="sentinel2_l2a", weights=weights)
    assert "value space: B21 as 0 K, B26 as 0 percent reflectance, B27 as 0 K" in plain.notes[-2]
    assert "B03 are read with weight 0" in plain.notes[-1]


def test_a_warm_band_at_the_edge_is_not_interpolated_with_sunlight() -> None:
    space = Normalisation(method="fixed", mean=(0.0,) * 2, std=(1.0,) * 2, full_scale=False)
    spec = swin(optical(("B07", "B21"), "modis_toa14", normalisation=space))
    for method in ("wavelength", "nearest"):
        adapted = to(spec, ("M11", "M13"), method, sensor="viirs_m")
        assert adapted.notes[1] == "B07 (2130 nm) reads M11 (2250 nm); B21 (3959 nm) reads M13 (4050.5 nm)"


def test_a_cirrus_band_is_not_made_of_land_around_it() -> None:
    space = Normalisation(method="fixed", mean=(0.0,) * 2, std=(1.0,) * 2, full_scale=False)
    spec = swin(optical(("B02", "B26"), "modis_toa14", normalisation=space))
    adapted = to(spec, ("B4", "B5"), "wavelength", sensor="landsat5")
    assert adapted.notes[2].endswith("value space: B26 as 0 percent reflectance")


def test_the_mean_gives_a_flat_spectrum_what_the_original_gives() -> None:
    spec = swin(optical())
    weights, bands = weights_of(spec), tuple(f"x{i}" for i in range(9))
    adapted = to(spec, bands, "mean", weights=weights)
    entry = adapted.spec.contract.inputs[0]
    assert (entry.sensor, entry.normalisation.method, entry.bands) == ("", "per_image", bands)
    level = torch.linspace(-1, 1, 256).reshape(1, 1, 16, 16).repeat(2, 1, 1, 1)
    space = optical().normalisation
    physical = level * torch.tensor(space.std)[None, :, None, None] + torch.tensor(space.mean)[None, :, None, None]
    torch.testing.assert_close(
        encode(adapted.spec, adapted.weights, level.repeat(1, 9, 1, 1)),
        encode(spec, weights, physical),
        rtol=1e-4,
        atol=1e-5,
    )
    assert "train it further" in adapted.notes[1]


def test_clipping_goes_with_its_band_and_changes_unit_with_it() -> None:
    space = replace(optical().normalisation, clip=tuple((0.0, 0.5 + 0.1 * i) for i in range(6)))
    spec = swin(optical(normalisation=space))
    assert to(spec, ("B12", "B02"), "subset").spec.contract.inputs[0].normalisation.clip == ((0.0, 1.0), (0.0, 0.5))
    (percent,) = to(spec, ("B03",), "nearest", sensor="modis_toa14").spec.contract.inputs
    assert percent.normalisation.clip == ((0.0, pytest.approx(50.0)),)


def test_units_that_cannot_be_converted_are_normalised_by_image_and_said_so() -> None:
    photograph = optical(
        ("red", "green", "blue"), "rgb", normalisation=Normalisation(method="fixed", mean=(0.5,) * 3, std=(0.2,) * 3)
    )
    adapted = to(swin(photograph), ("B02", "B03", "B04"), "nearest", sensor="sentinel2_l1c")
    assert adapted.spec.contract.inputs[0].normalisation == Normalisation(method="per_image")
    assert "normalised by its own image" in adapted.notes[-1]
    assert "blue (470 nm) reads B02 (492.4 nm)" in adapted.notes[1]


GROUPS = (("B02", "B03", "B04"), ("B08",), ("B11", "B12"))


@pytest.mark.parametrize("table", [False, True])
def test_a_group_is_left_out_with_its_tokens(table: bool) -> None:
    entry = optical(groups=GROUPS)
    spec = vit(entry, tables={"scene": (4, 4)} if table else {})
    weights, bands = weights_of(spec), ("B11", "B12", "B04", "B02", "B03")
    adapted = to(spec, bands, "groups", weights=weights)
    new = adapted.spec.contract.inputs[0]
    assert new.groups == (GROUPS[0], GROUPS[2])
    image = scene(5)
    tokens = encode(adapted.spec, adapted.weights, image)
    assert tokens.shape == (2, 32, 16)
    seen = torch.full((2, 6, 16, 16), torch.nan)
    seen[:, [4, 5, 2, 0, 1]] = image
    # The original without that group: its tokens hold no data, and are no keys.
    original = spec.build().eval()
    place(original, weights, source="a test")
    space, number = entry.normalisation, torch.arange(2)
    batch = Batch(
        image=seen,
        valid=torch.isfinite(seen),
        bands=SENTINEL,
        spacing=torch.tensor(entry.spacing).expand(2, -1),
        unit="m",
        offset=torch.tensor(space.mean).expand(2, -1),
        scale=1.0 / torch.tensor(space.std).expand(2, -1),
        key=number,
        index=number,
        row=number,
    )
    with torch.no_grad():
        whole = original(original.prepare(batch)[0]).value
    torch.testing.assert_close(tokens, torch.cat([whole[:, :16], whole[:, 32:]], 1), rtol=1e-4, atol=1e-5)
    assert adapted.notes[1] == "2 of 3 band groups are left: B02, B03, B04; B11, B12"


def test_groups_that_are_not_whole_go_and_a_subset_keeps_their_rest() -> None:
    spec = vit(optical(groups=GROUPS))
    weights = weights_of(spec)
    whole = to(spec, ("B02", "B08"), "groups", weights=weights)
    assert whole.spec.contract.inputs[0].bands == ("B08",)
    assert "B02 belong to groups that are not whole and are not read" in whole.notes
    part = to(spec, ("B04", "B08"), "subset", weights=weights)
    assert part.spec.contract.inputs[0].groups == (("B04",), ("B08",))
    assert part.notes[-1].endswith("value space: B02 as 0.1 reflectance, B03 as 0.12 reflectance")
    kernel = "stems.scene.embeddings.0.weight"
    assert torch.equal(part.weights[kernel], weights[kernel][:, [2]])
    assert encode(part.spec, part.weights, scene(2)).shape == (2, 32, 16)
    with pytest.raises(BandError, match="at least one whole group"):
        to(spec, ("B02",), "groups")
    with pytest.raises(ConfigError, match="adapt it by 'groups' or 'subset', not 'mean'"):
        to(spec, ("B02",), "mean")


def test_groups_that_positions_count_are_left_out_from_the_end_only() -> None:
    spec = vit(optical(groups=GROUPS), positions=PositionRule(group_channels=4))
    assert to(spec, GROUPS[0], "groups").spec.contract.inputs[0].groups == GROUPS[:1]
    with pytest.raises(ConfigError, match="as nodata instead"):
        to(spec, GROUPS[1], "groups")
    stored = vit(optical(groups=GROUPS), positions=PositionRule(group_channels=4), tables={"scene": (4, 4)})
    assert to(stored, GROUPS[1], "groups").spec.contract.inputs[0].groups == GROUPS[1:2]


@pytest.mark.parametrize(
    ("bands", "method", "sensor", "words"),
    [
        (("B02", "B05"), "subset", "", r"\['B05'\] besides; adapt by 'nearest'"),
        (("B1", "B2"), "nearest", "", "the sensor of the wanted bands is not known"),
        (("VV", "VH"), "nearest", "sentinel1", "have no wavelength"),
        (("B02", "B02"), "subset", "", "different bands"),
        ((), "mean", "", "at least one"),
        (("B02",), "groups", "", "no band groups"),
        (("B02",), "magic", "", "expected to adapt by subset, nearest, wavelength, mean or groups, got 'magic'"),
        (("B27", "B28"), "wavelength", "modis_toa14", "none of the encoder's bands"),
        (("B02", "B03"), "subset", "modis_toa14", r"its band 'B02' is of sensor 'sentinel2_l1c' \(492.4 nm"),
        (("B2",), "nearest", "landsat6", "no sensor is called 'landsat6': did you mean 'landsat"),
        (("B99",), "nearest", "landsat8", "sensor 'landsat8' has no band 'B99'"),
    ],
)
def test_what_cannot_be_adapted_is_refused(bands, method, sensor, words) -> None:
    with pytest.raises((BandError, ConfigError), match=words):
        to(swin(optical()), bands, method, sensor)


def test_an_input_that_is_not_there_and_weights_without_a_first_map_are_refused() -> None:
    spec = swin(optical())
    with pytest.raises(ConfigError, match=r"one of the inputs \['scene'\], got 'photo'"):
        adapt(spec, {}, entry="photo", bands=("B02",), method="subset")
    with pytest.raises(ConfigError, match=r"one map of 6 bands among the weights 'stems.scene.\*'"):
        adapt(spec, {"stems.scene.embed.bias": torch.zeros(8)}, entry="scene", bands=("B02",), method="subset")
