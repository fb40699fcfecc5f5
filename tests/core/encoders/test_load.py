"""A stored encoder is loaded exactly, or refused with a sentence."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import core
from core.checkpoint import export_encoder
from core.errors import BandError, CheckpointError, ConfigError, GeometryError, MissingDataError, ShapeError
from core.geometry import Spacing
from core.testing.samples import SCENE, encoder_spec, ragged_batch
from core.weights import file_sha256
from tests.core import tiny_release


@pytest.fixture
def stored(tmp_path):
    backbone = encoder_spec().build().eval()
    (tmp_path / "run").mkdir()
    return backbone, export_encoder(backbone, tmp_path / "run" / "encoder")


def test_run_folder_and_encoder_folder_give_the_same_features(stored):
    backbone, folder = stored
    batch = ragged_batch(SCENE)
    expected = backbone.features(backbone.prepare(batch)[0], "mean")
    for path in (folder, folder.parent, str(folder)):
        encoder = core.load_encoder(path)
        assert not encoder.training
        assert torch.equal(encoder(batch), expected)
    assert encoder.contract == backbone.contract
    assert len(encoder.report.placed) == len(backbone.state_dict())


def test_pool_is_explicit(stored):
    _, folder = stored
    batch = ragged_batch(SCENE)
    vectors = [core.load_encoder(folder, pool=pool)(batch) for pool in ("mean", "cls", "mean_then_norm", "mean_std")]
    assert not torch.allclose(vectors[0], vectors[1])
    assert torch.equal(vectors[3][:, :24], vectors[0])
    assert core.load_encoder(folder, pool="mean_std").num_features == vectors[3].shape[1] == 48
    with pytest.raises(ConfigError, match="expected pool 'mean', 'mean_std', 'cls', 'mean_then_norm', got 'max'"):
        core.load_encoder(folder, pool="max")


def test_flipped_bytes_are_noticed(stored):
    _, folder = stored
    path = folder / "model.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 0x40
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="not those that were written"):
        core.load_encoder(folder)


def test_weights_that_do_not_fit_are_listed(stored):
    _, folder = stored
    path = folder / "config.json"
    description = json.loads(path.read_text())
    description["spec"]["depth"] = 3
    path.write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"missing: blocks\.2\.attn\.proj\.bias, "):
        core.load_encoder(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99}'])
def test_a_description_that_is_not_ours_is_refused(stored, text):
    _, folder = stored
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json: expected"):
        core.load_encoder(folder)


def test_nothing_at_the_path(tmp_path):
    with pytest.raises(MissingDataError, match="expected a run folder"):
        core.load_encoder(tmp_path / "gone")


def test_arrays_and_tensors_are_read_by_name_or_count(stored):
    encoder = core.load_encoder(stored[1])
    raw = np.random.default_rng(0).normal(100, 20, (6, 40, 60)).astype(np.float32)
    batch = encoder.preprocess(raw)
    assert batch.image.shape == (1, 6, 32, 48)
    order = [3, 1, 0, 5, 4, 2]
    named = encoder.preprocess(raw[order], bands=tuple(SCENE.bands[i] for i in order))
    assert torch.equal(encoder(named), encoder(batch))
    with pytest.raises(BandError, match="2D with 5 channels"):
        encoder.preprocess(raw[:5])
    with pytest.raises(ShapeError, match=r"\(B, C, Y, X\)"):
        encoder(torch.zeros(6, 32, 32))
    holes = torch.randn(1, 6, 32, 32)
    holes[0, :, :8, :8] = torch.nan
    assert bool(torch.isfinite(encoder(holes)).all())


@pytest.fixture
def release(tmp_path, monkeypatch):
    tiny_release.publish(monkeypatch)
    monkeypatch.setenv("HALFSEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tiny_release.write(tmp_path / "tiny.pth")


def scenes(bands=tiny_release.BANDS):
    """Reflectance, each band with a level of its own."""
    levels = np.array([0.08, 0.1, 0.12, 0.3], dtype=np.float32)[:, None, None]
    raw = levels + np.random.default_rng(1).normal(0, 0.01, (4, 32, 32)).astype(np.float32)
    return raw[[tiny_release.BANDS.index(band) for band in bands]]


def test_a_published_encoder_is_loaded_by_name_from_a_file(release):
    encoder = core.load_encoder("tiny", weights=release)
    assert not encoder.training
    assert (encoder.pool, encoder.contract) == ("cls", tiny_release.spec().contract)
    assert encoder.report.dropped == ("decoder_pred.weight", "mask_token")
    assert encoder.report.sha256 == file_sha256(release)
    assert encoder.report.source_dtype == "float32"
    assert set(encoder.report.placed) == set(encoder.backbone.state_dict())
    assert torch.equal(encoder.backbone.norm.bias, tiny_release.released()["norm.bias"])
    assert not encoder.backbone.tables["scene"].requires_grad  # as the spec says, not as a file has it
    assert encoder.backbone.norm.bias.requires_grad
    assert "dropped by rule 2, from float32, sha256 " in str(encoder.report)


def test_a_file_whose_last_norm_follows_the_mean_is_read_so(release):
    state = tiny_release.released()
    for part in ("weight", "bias"):
        state[f"fc_norm.{part}"] = state.pop(f"norm.{part}")
    torch.save(state, release)
    assert core.load_encoder("tiny", weights=release).pool == "mean_then_norm"
    assert core.load_encoder("tiny", weights=release, pool="mean").pool == "mean"


def test_loaded_weights_do_not_hang_on_the_file(release):
    encoder = core.load_encoder("tiny", weights=release)
    batch = encoder.preprocess(scenes(), bands=tiny_release.BANDS)
    before = encoder(batch)
    release.write_bytes(b"\0" * release.stat().st_size)
    assert torch.equal(encoder(batch), before)


def test_bands_in_another_order_change_nothing(release):
    encoder = core.load_encoder("tiny", weights=release)
    expected = encoder(encoder.preprocess(scenes(), bands=tiny_release.BANDS))
    order = ("B08", "B02", "B04", "B03")
    other = core.load_encoder("tiny", weights=release, bands=order)
    assert torch.equal(other(other.preprocess(scenes(order), bands=order)), expected)
    assert other.report.adapted == ()
    short = core.load_encoder("tiny", weights=release, bands=("B8", "B2", "B4", "B3"))
    assert torch.equal(short(short.preprocess(scenes(order), bands=("B8", "B2", "B4", "B3"))), expected)


def test_other_bands_need_a_named_adapter_which_is_recorded(release):
    with pytest.raises(
        BandError, match=r"expected bands \('B02', 'B03', 'B04', 'B08'\) of sentinel2_l1c, got .*adapt='subset'"
    ):
        core.load_encoder("tiny", weights=release, bands=("B02", "B03", "B04"))
    encoder = core.load_encoder("tiny", weights=release, bands=("B04", "B03", "B02"), adapt="subset")
    assert encoder.contract.inputs[0].bands == ("B04", "B03", "B02")
    assert encoder.report.adapted
    assert "adapted: " in str(encoder.report)
    full = core.load_encoder("tiny", weights=release)
    raw = scenes()
    raw[3] = 0.3  # the mean of the band that is left out
    three = encoder.preprocess(raw[[2, 1, 0]], bands=("B04", "B03", "B02"))
    torch.testing.assert_close(
        encoder(three), full(full.preprocess(raw, bands=tiny_release.BANDS)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"adapt": "subset"}, "expected bands to adapt to"),
        ({"sensor": "hls"}, "expected bands to adapt to"),
        ({"bands": ("B02", "X1"), "adapt": "subset"}, "X1"),
        ({"accept": ("commercial",)}, "expected accept of non_commercial, got commercial"),
        ({"bands": ("B02",), "adapt": "guess"}, "guess"),
    ],
)
def test_options_that_do_not_go_together_are_refused(release, options, told):
    with pytest.raises((ConfigError, BandError), match=told):
        core.load_encoder("tiny", weights=release, **options)


def test_random_weights_have_the_structure_and_no_file(release):
    encoder = core.load_encoder("tiny", weights=None, pool="mean")
    assert encoder(encoder.preprocess(scenes(), bands=tiny_release.BANDS)).shape == (1, 16)
    assert encoder.report.sha256 == ""
    other = core.load_encoder("tiny", weights=None)
    assert not torch.equal(encoder.backbone.class_token, other.backbone.class_token)


def test_fresh_weights_on_the_meta_device_are_only_described():
    encoder = core.load_encoder("satvision-huge", weights=None, device="meta")
    assert all(value.is_meta for value in encoder.state_dict().values())
    assert sum(p.numel() for p in encoder.parameters()) > 654e6
    options = {"bands": ("M05", "M12", "M15"), "adapt": "nearest", "sensor": "viirs_m"}
    fitted = core.load_encoder("satvision", weights=None, device="meta", **options)
    assert fitted.backbone.stems["toa"].embed.weight.shape == (512, 3, 4, 4)
    assert all(value.is_meta for value in fitted.state_dict().values())


def test_a_device_that_is_none_is_refused_before_anything_is_read():
    with pytest.raises(RuntimeError, match="gpu"):
        core.load_encoder("not a card at all", device="gpu")


def test_offline_says_what_to_fetch_and_where_to_put_it(release, tmp_path):
    place = tmp_path / "cache" / "hub" / "owner" / "tiny" / "v1" / "tiny.pth"
    with pytest.raises(MissingDataError) as told:
        core.load_encoder("tiny")
    assert "HF_HUB_OFFLINE" in str(told.value)
    assert "https://huggingface.co/owner/tiny/resolve/v1/tiny.pth" in str(told.value)
    assert str(place) in str(told.value)
    place.parent.mkdir(parents=True)
    release.rename(place)
    assert len(core.load_encoder("tiny").report.placed) == 31


def test_a_licence_that_forbids_commerce_needs_a_word(release, monkeypatch, tmp_path):
    card = replace(tiny_release.CARD, licence="CC-BY-NC-4.0", non_commercial=True)
    tiny_release.publish(monkeypatch, card)
    with pytest.raises(ConfigError, match=r"tiny-s2: its licence, CC-BY-NC-4\.0, .* accept=\('non_commercial',\)"):
        core.load_encoder("tiny")
    for accepted in (("non_commercial",), "non_commercial"):
        with pytest.raises(MissingDataError, match="HF_HUB_OFFLINE"):
            core.load_encoder("tiny", accept=accepted)
    core.load_encoder("tiny", weights=release)  # who has the file has agreed to its terms


def test_names_and_paths_are_told_apart(release, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"no encoder is called 'tinny': did you mean 'tiny'\?"):
        core.load_encoder("tinny")
    for path in (tmp_path / "tiny", str(tmp_path / "tiny"), "runs/tiny"):
        with pytest.raises(MissingDataError, match="expected a run folder"):
            core.load_encoder(path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    with pytest.raises(MissingDataError, match="expected a run folder"):
        core.load_encoder("tiny")
    export_encoder(encoder_spec().build(), tmp_path / "tiny" / "encoder")
    assert core.load_encoder("tiny").contract == encoder_spec().contract


def test_a_run_takes_no_weights_of_others(stored, release):
    for options in ({"weights": release}, {"weights": None}, {"accept": ("non_commercial",)}):
        with pytest.raises(ConfigError, match="which has its own weights"):
            core.load_encoder(stored[1], **options)


def test_a_run_is_fitted_to_other_bands_too(stored):
    wanted = SCENE.bands[:4]
    encoder = core.load_encoder(stored[1], bands=wanted, adapt="subset")
    assert encoder.contract.inputs[0].bands == wanted
    assert encoder.report.adapted
    raw = np.random.default_rng(0).normal(100, 20, (4, 32, 48)).astype(np.float32)
    assert bool(torch.isfinite(encoder(encoder.preprocess(raw))).all())


def test_channels_without_names_are_refused_where_bands_have_a_meaning(release):
    encoder = core.load_encoder("tiny", weights=release)
    with pytest.raises(BandError, match=r"names of the 4 channels, .* bands=\('B02', \.\.\.\), of B02, B03, B04, B08"):
        encoder.preprocess(scenes())
    with pytest.raises(BandError, match="expected one name for each of 4 channels, got 5"):
        encoder.preprocess(scenes(), bands=(*tiny_release.BANDS, "B05"))
    counts = scenes() * 10_000
    with pytest.raises(BandError, match="reflectance"):
        encoder.preprocess(counts, bands=tiny_release.BANDS)
    assert encoder.preprocess(counts, bands=tiny_release.BANDS, check=False).image.mean() > 1000


def test_inputs_of_the_same_bands_are_adapted_together():
    wanted = ("B02", "B03", "B04", "B8A", "B11", "B12")
    encoder = core.load_encoder(
        "prithvi-eo-2.0-tiny-tl", weights=None, bands=wanted, adapt="nearest", sensor="sentinel2_l2a"
    )
    assert {(entry.name, entry.bands, entry.sensor) for entry in encoder.contract.inputs} == {
        ("scene", wanted, "sentinel2_l2a"),
        ("series", wanted, "sentinel2_l2a"),
    }
    assert sum("nir_narrow (865 nm) reads B8A" in note for note in encoder.report.adapted) == 2


@dataclass(frozen=True)
class Opened:
    """An image as a reader gives it."""

    spacing: Spacing
    bands: tuple[str, ...] = tiny_release.BANDS

    def read(self):
        return scenes()


def test_an_opened_image_of_no_known_size_is_refused_where_metres_count(release):
    encoder = core.load_encoder("tiny", weights=release)
    batch = encoder.preprocess(Opened(Spacing((20.0, 20.0), "m")))
    assert batch.spacing.tolist() == [[20.0, 20.0]]
    with pytest.raises(GeometryError, match=r"expected spacing in m, got .* in px: pass spacing=\(10, 10\)"):
        encoder.preprocess(Opened(Spacing.pixels(2)))
    given = encoder.preprocess(Opened(Spacing.pixels(2)), spacing=(5.0, 5.0))
    assert given.spacing.tolist() == [[5.0, 5.0]]
