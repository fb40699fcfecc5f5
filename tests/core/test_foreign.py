"""Files of others: opened safely, unwrapped by whole segments, every key accounted for or named."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core.contract import Contract
from core.encoders.cards._vit import MAE_LAYOUT, picture
from core.encoders.vit import ViTSpec
from core.errors import CheckpointError, MissingDataError, UnsafeError, UnsupportedError
from core.foreign import open_file, read_encoder, translate
from core.layouts.mae import encoder_keys
from core.weights import build_with, file_sha256

SPEC = ViTSpec(contract=Contract(inputs=(picture(size=32),)), width=16, depth=2, heads=2, tables={"picture": (2, 2)})
WRAPPED = ("", "module.", "model.", "_forward_module.", "_orig_mod.", "_timm_module.", "_forward_module.model.")
WRAPPED += ("module._orig_mod.", "model.module.")


def released(**more):
    """An encoder of MAE's names and shapes, with what may lie beside it."""
    rng = torch.Generator().manual_seed(3)
    shapes = {"cls_token": (1, 1, 16), "pos_embed": (1, 5, 16), "patch_embed.proj.weight": (16, 3, 16, 16)}
    shapes |= {"patch_embed.proj.bias": (16,), "norm.weight": (16,), "norm.bias": (16,)}
    for number in range(2):
        block = f"blocks.{number}"
        shapes |= {f"{block}.{norm}.{part}": (16,) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
        for layer, rows, columns in (
            ("attn.qkv", 48, 16),
            ("attn.proj", 16, 16),
            ("mlp.fc1", 64, 16),
            ("mlp.fc2", 16, 64),
        ):
            shapes |= {f"{block}.{layer}.weight": (rows, columns), f"{block}.{layer}.bias": (rows,)}
    return {key: torch.randn(shape, generator=rng) for key, shape in shapes.items()} | more


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


PLAIN = translate(released(), SPEC, MAE_LAYOUT, source="plain").weights


class Harmful:
    """Runs a command when it is unpickled by anything that obeys."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def test_all_keys_are_placed_and_the_decoder_is_dropped_by_name():
    more = {
        "mask_token": torch.zeros(1, 1, 16),
        "decoder_embed.weight": torch.zeros(8, 16),
        "head.bias": torch.zeros(5),
    }
    found = translate({"model": released(**more), "epoch": 3}, SPEC, MAE_LAYOUT, source="x")
    assert same(found.weights, PLAIN)
    assert found.placed == tuple(sorted(released()))
    assert found.dropped == ("decoder_embed.weight", "head.bias", "mask_token")
    encoder, report = build_with(SPEC.build, found.weights, source="x")
    assert set(report.placed) == set(encoder.state_dict())
    assert torch.equal(encoder.blocks[1].mlp.fc2.weight, released()["blocks.1.mlp.fc2.weight"])


@pytest.mark.parametrize("prefix", WRAPPED)
@pytest.mark.parametrize("outer", [(), ("module",), ("model", "state_dict")])
def test_every_wrapper_gives_the_same_weights(prefix, outer):
    file = {f"{prefix}{key}": value for key, value in released(mask_token=torch.zeros(1)).items()}
    for key in reversed(outer):
        file = {key: file, "step": 7}
    found = translate(file, SPEC, MAE_LAYOUT, source="x")
    assert same(found.weights, PLAIN)
    assert (found.prefix, found.dropped) == (prefix.replace("_orig_mod.", ""), (f"{prefix}mask_token",))


def test_a_tensor_beside_the_dictionary_of_weights_is_none_of_them():
    file = {"epoch": 90, "best_acc1": torch.tensor(76.1), "state_dict": released()}
    found = translate(file, SPEC, MAE_LAYOUT, source="x")
    assert same(found.weights, PLAIN)
    assert found.dropped == ()


@pytest.mark.parametrize("inner", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_segments_that_torch_puts_in_between_are_seen_through(inner):
    file = {key.replace("blocks.1.", f"blocks.1.{inner}."): value for key, value in released().items()}
    assert same(translate(file, SPEC, MAE_LAYOUT, source="x").weights, PLAIN)


def test_an_encoder_among_other_parts_is_found_by_its_prefix_and_the_rest_must_be_named():
    file = {f"model.visual.{key}": value for key, value in released().items()}
    file |= {"model.text.norm.weight": torch.zeros(16), "model.norm.weight": torch.zeros(16)}
    layout = replace(MAE_LAYOUT, prefixes=("visual.",), drop=("text.*", "norm.weight"))
    found = translate({"state_dict": file}, SPEC, layout, source="x")
    assert same(found.weights, PLAIN)
    assert found.dropped == ("model.norm.weight", "model.text.norm.weight")
    with pytest.raises(CheckpointError, match=r"unexpected: model\.norm\.weight\.$"):
        translate(file, SPEC, replace(layout, drop=("text.*",)), source="x")


def test_only_whole_leading_segments_are_stripped():
    """SatVision's own loader also rewrites `bert_encoder.`; here such a key stays what it is, and is named."""
    file = {f"encoder.{key}": value for key, value in released().items()} | {"bert_encoder.norm.weight": torch.zeros(2)}
    layout = replace(MAE_LAYOUT, prefixes=("encoder.",))
    with pytest.raises(CheckpointError, match=r"unexpected: bert_encoder\.norm\.weight\.$"):
        translate(file, SPEC, layout, source="x")


@pytest.mark.parametrize("key", sorted(released()))
def test_every_deleted_or_renamed_key_is_named(key):
    layout, prefix = replace(MAE_LAYOUT, prefixes=("encoder.",)), "model.encoder."
    file = {prefix + name: value for name, value in released().items() if name != key}
    with pytest.raises(CheckpointError) as deleted:
        translate(file, SPEC, layout, source="here.pt")
    count = len(released())
    assert str(deleted.value) == (
        f"here.pt: expected all {count} keys of the encoder, got {count - 1}; missing: {prefix}{key}."
    )
    with pytest.raises(CheckpointError, match="missing: ") as renamed:
        translate(file | {f"{prefix}{key}_2": released()[key]}, SPEC, layout, source="here.pt")
    assert str(renamed.value).endswith(f"missing: {prefix}{key}; unexpected: {prefix}{key}_2.")


def test_a_key_that_lost_the_prefix_of_the_others_does_not_count():
    file = {f"module.{key}": value for key, value in released().items() if key != "norm.bias"}
    with pytest.raises(CheckpointError, match=r"missing: module\.norm\.bias; unexpected: norm\.bias\.$"):
        translate(file | {"norm.bias": torch.zeros(16)}, SPEC, MAE_LAYOUT, source="x")


def test_two_encoders_in_one_file_are_refused():
    file = {f"{prefix}{key}": value for key, value in released().items() for prefix in ("module.", "model.")}
    with pytest.raises(CheckpointError, match=r"unexpected: m\w+\.blocks\.0\.attn\.proj\.bias, .* and 18 more\.$"):
        translate(file, SPEC, MAE_LAYOUT, source="x")


def test_a_norm_after_the_mean_goes_by_its_other_name():
    file = {key.replace("norm.", "fc_norm.") if key.startswith("norm.") else key: v for key, v in released().items()}
    assert same(translate(file, SPEC, MAE_LAYOUT, source="x").weights, PLAIN)
    del file["fc_norm.bias"]
    with pytest.raises(CheckpointError, match=r"missing: fc_norm\.bias\.$"):
        translate(file, SPEC, MAE_LAYOUT, source="x")
    assert "fc_norm.weight" in encoder_keys(SPEC, {"fc_norm.bias"})


def test_other_shapes_are_listed():
    file = released(pos_embed=torch.zeros(1, 10, 16))
    found = translate(file, SPEC, MAE_LAYOUT, source="x")
    with pytest.raises(CheckpointError, match=r"reshaped: tables\.picture: file \(1, 10, 16\), module \(1, 5, 16\)"):
        build_with(SPEC.build, found.weights, source="x")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_no_numbers_are_named(value, dtype):
    file = {key: tensor.to(dtype) for key, tensor in released().items()}
    file["blocks.1.mlp.fc1.weight"][5, 3] = value
    with pytest.raises(CheckpointError, match=r"NaN or infinity in blocks\.1\.mlp\.fc1\.weight\.$"):
        translate(file, SPEC, MAE_LAYOUT, source="x")


def test_the_greatest_numbers_are_still_numbers():
    most = torch.finfo(torch.float32).max
    translate(released(**{"norm.weight": torch.full((16,), most)}), SPEC, MAE_LAYOUT, source="x")


def test_types_stay_as_stored_until_the_encoder_is_built():
    file = {key: tensor.bfloat16() for key, tensor in released().items()}
    found = translate(file, SPEC, MAE_LAYOUT, source="x")
    assert found.source_dtype == "bfloat16"
    assert {value.dtype for value in found.weights.values()} == {torch.bfloat16}
    encoder, _ = build_with(SPEC.build, found.weights, source="x")
    assert encoder.norm.weight.dtype == torch.float32
    assert torch.equal(encoder.norm.weight, released()["norm.weight"].bfloat16().float())


def test_a_file_of_something_else_is_named_without_a_guessed_prefix():
    with pytest.raises(CheckpointError, match=r"got 0; missing: blocks\.0\.attn.* unexpected: model\.a\.$"):
        translate({"model.a": torch.zeros(1)}, SPEC, MAE_LAYOUT, source="x")


@pytest.mark.parametrize("file", [{}, {"optimizer": {"a": torch.zeros(1)}}, {"model": {}}, {"model": {"epoch": 3}}])
def test_a_file_without_weights_lists_what_it_has(file):
    with pytest.raises(CheckpointError, match="expected tensors, or a dictionary of them under 'module'"):
        translate(file, SPEC, MAE_LAYOUT, source="x")


def test_a_dictionary_that_holds_itself_ends():
    endless = {}
    endless["model"] = endless
    with pytest.raises(CheckpointError, match="x: expected"):
        translate(endless, SPEC, MAE_LAYOUT, source="x")


@pytest.mark.parametrize("kind", ["new", "old", "safetensors"])
def test_every_kind_of_file_is_read_from_disk(tmp_path, kind):
    path = tmp_path / "weights.bin"  # what a file is called says nothing
    if kind == "safetensors":
        save_file(released(), path)
    else:
        content = {"model": released(), "args": argparse.Namespace(model="mae", lr=1e-3), "epoch": 400}
        torch.save(content, path, _use_new_zipfile_serialization=kind == "new")
    found = read_encoder(path, SPEC, MAE_LAYOUT, sha256=file_sha256(path))
    assert same(found.weights, PLAIN)
    assert found.sha256 == file_sha256(path)
    with pytest.raises(CheckpointError, match=rf"expected the released file, sha256 {'0' * 64}, got {found.sha256}"):
        read_encoder(path, SPEC, MAE_LAYOUT, sha256="0" * 64)


def test_objects_that_could_run_code_never_do(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "evil.pt"
    for old in (False, True):
        torch.save({"model": released(), "x": Harmful(trace)}, path, _use_new_zipfile_serialization=not old)
        with pytest.raises(UnsafeError, match=r"evil\.pt: expected tensors .* posix\.system"):
            open_file(path)
    path.write_bytes(pickle.dumps({"model": Harmful(trace)}))
    with pytest.raises(CheckpointError, match="a bare pickle"):
        open_file(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists(), "the file does no harm, so this test shows nothing"


def test_nothing_but_namespaces_is_let_through(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"model": released(), "best": np.float64(0.5)}, path)
    with pytest.raises(UnsafeError, match=r"numpy.* save the weights alone"):
        open_file(path)
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "an empty file"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
        (b"\x00\x01nothing of the kind", "got neither"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{not json at all}", "expected a whole safetensors file"),
    ],
)
def test_what_people_get_in_place_of_weights_is_named(tmp_path, content, told):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=told):
        open_file(path)


@pytest.mark.parametrize("old", [False, True])
def test_a_cut_off_file_is_named(tmp_path, old):
    path = tmp_path / "x.pt"
    torch.save(released(), path, _use_new_zipfile_serialization=not old)
    whole = path.read_bytes()
    for length in (100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"x\.pt: expected a whole file of torch\.save"):
            open_file(path)


def test_other_contents_are_named(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(torch.zeros(3), path)
    with pytest.raises(CheckpointError, match="expected a dictionary of weights, got one Tensor"):
        open_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/constants.pkl", b"x")
    with pytest.raises(UnsupportedError, match="TorchScript"):
        open_file(path)
    with pytest.raises(MissingDataError, match="gone"):
        read_encoder(tmp_path / "gone.pt", SPEC, MAE_LAYOUT)
