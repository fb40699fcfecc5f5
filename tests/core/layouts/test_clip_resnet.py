"""CLIP's ResNet layout against timm's network of that name, through timm's own reading of the same released keys."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg, checkpoint_filter_fn
from torch.nn import functional

from core.contract import Contract
from core.encoders.resnet import ResNetSpec
from core.engine.optim import layer_of
from core.errors import CheckpointError, ConfigError
from core.layouts.clip_resnet import encoder_keys
from core.plan import Plan
from tests.parity.fixture import make_batch, make_input
from tests.parity.released import from_file

WIDTH, DEPTHS, JOINT = 16, (1, 2, 1), 24


@pytest.fixture
def spec():
    entry = make_input("scene", 3, (16, 16), (64, 64))
    return ResNetSpec(contract=Contract(inputs=(entry,)), width=WIDTH, depths=DEPTHS, heads=4)


@pytest.fixture
def theirs():
    """CLIP's ResNet with three stages as timm builds it, with statistics that matter."""
    torch.manual_seed(0)
    widths = [4 * WIDTH * 2**stage for stage in range(3)]
    blocks = tuple(
        ByoBlockCfg(type="bottle", d=depth, c=width, s=1 if stage == 0 else 2, br=0.25)
        for stage, (depth, width) in enumerate(zip(DEPTHS, widths, strict=True))
    )
    config = ByoModelCfg(
        blocks=blocks, stem_chs=(WIDTH // 2, WIDTH // 2, WIDTH), stem_type="", stem_pool="avg2", downsample="avg",
        aa_layer="avg", head_type="attn_abs",
    )  # fmt: skip
    model = ByobNet(config, num_classes=JOINT, img_size=64).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif value.is_floating_point():
                value.add_(torch.randn_like(value) * 0.1)
    return model


@pytest.fixture
def released(spec, theirs):
    """The same weights under the names of the release, by timm's own table, beside what else a file holds."""
    projection = {f"visual.attnpool.c_proj.{part}" for part in ("weight", "bias")}
    state, file = theirs.state_dict(), {}
    for name in encoder_keys(spec, ()) | projection:
        (key,) = checkpoint_filter_fn({"visual.conv1.weight": None, name: None}, theirs).keys() - (
            {"stem.conv1.conv.weight"} if name != "visual.conv1.weight" else set()
        )
        file[name] = state.pop(key)
    assert all(key.endswith("num_batches_tracked") for key in state)
    return file | {
        "visual.layer1.0.bn1.num_batches_tracked": torch.tensor(7),
        "positional_embedding": torch.zeros(5, 4),
        "transformer.resblocks.0.ln_1.weight": torch.zeros(4),
    }


def test_map_and_pooled_features_equal_timm(spec, theirs, released, tmp_path):
    encoder = from_file(spec, released, tmp_path, "remoteclip-rn50", outer=None)  # in training mode: nothing may change
    image = torch.randn(2, 3, 64, 64)
    batch = make_batch(image, spec.contract.inputs[0])
    with torch.no_grad():
        expected = theirs.forward_features(image)
        tokens = encoder(batch)
        torch.testing.assert_close(tokens.value, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)
        joint = functional.linear(
            encoder.features(batch, "cls"),
            released["visual.attnpool.c_proj.weight"],
            released["visual.attnpool.c_proj.bias"],
        )
        torch.testing.assert_close(joint, theirs(image), rtol=1e-4, atol=1e-4)
        assert float(expected.std()) > 0.1


def test_a_lost_statistic_is_named(spec, released, tmp_path):
    del released["visual.layer2.1.bn3.running_var"]
    with pytest.raises(CheckpointError, match=r"missing: visual\.layer2\.1\.bn3\.running_var\.$"):
        from_file(spec, released, tmp_path, "remoteclip-rn50", outer=None)


def test_only_what_is_seen_is_attended_to(spec):
    """The summary of half an image is attention over that half's tokens and their mean, written down here."""
    torch.manual_seed(0)
    encoder = spec.build()
    batch = make_batch(torch.randn(2, 3, 64, 64), spec.contract.inputs[0])
    see = torch.arange(16).expand(2, -1) % 4 < 2
    tokens = encoder(batch, Plan(see=see, hide=~see))
    places = encoder.tables["scene"].rows
    own = torch.cat([tokens.value.mean(1, keepdim=True), tokens.value], 1)
    own = own + torch.cat([places[:1], places[1:][see[0]]])
    query, key, content = (
        part.unflatten(2, (4, -1)).transpose(1, 2) for part in encoder.query_key_value(own).chunk(3, dim=2)
    )
    weight = (query[:, :, :1] @ key.transpose(2, 3) / key.shape[3] ** 0.5).softmax(3)
    torch.testing.assert_close(tokens.prefix, (weight @ content).transpose(1, 2).flatten(2))


def test_a_volume_is_read_slice_by_slice(spec):
    """Two equal slices of one patch give what the slice alone gives."""
    series = make_input("series", 3, (2, 16, 16), (2, 64, 64))
    torch.manual_seed(0)
    encoder = replace(spec, contract=Contract(inputs=(*spec.contract.inputs, series))).build()
    image = torch.randn(1, 3, 64, 64)
    encoder.stems["series"].load_state_dict(encoder.stems["scene"].state_dict())
    flat = encoder(make_batch(image, spec.contract.inputs[0]))
    solid = encoder(make_batch(image[:, :, None].repeat(1, 1, 2, 1, 1), series))
    torch.testing.assert_close(solid.value, flat.value)


def test_rates_that_differ_by_layer_count_its_blocks(spec):
    layers = {name: layer_of(name, spec.depth) for name, _ in spec.build().named_parameters()}
    assert {layers[name] for name in layers if name.startswith(("stem", "tables"))} == {0}
    assert layers["blocks.0.layers.0.weight"] == 1
    assert layers["blocks.3.short_norm.bias"] == spec.depth == 4
    assert layers["query_key_value.weight"] == 5


def test_what_it_cannot_be_or_do_is_refused(spec):
    with pytest.raises(ConfigError, match="heads that divide 256 features, got width 16"):
        replace(spec, heads=3)
    with pytest.raises(ConfigError, match="powers of two up to 16 for 3 stages"):
        replace(spec, contract=Contract(inputs=(make_input("scene", 3, (14, 14), (28, 28)),)))
    batch = make_batch(torch.zeros(1, 3, 64, 64), spec.contract.inputs[0])
    with pytest.raises(ConfigError, match="a mask token and inner levels, got ResNet"):
        spec.build()(batch, mask_token=torch.zeros(1, 1, 256), levels=(1,))
