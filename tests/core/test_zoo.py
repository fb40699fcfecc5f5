"""The zoo on the command line: what it prints, and how it ends."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core import zoo
from core.weights import file_sha256
from tests.core import tiny_release

ROOT = Path(__file__).resolve().parents[2]


def printed(capsys, *arguments):
    zoo.main(arguments)
    return capsys.readouterr().out


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        zoo.main(arguments)
    assert ended.value.code == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    return found.err


def test_list_prints_every_encoder_or_those_with_all_words(capsys):
    whole = printed(capsys, "list").splitlines()
    assert whole[0].split() == ["name", "size", "licence", "what", "it", "is"]
    assert len({line.index("Apache-2.0") for line in whole if "Apache-2.0" in line}) == 1
    assert whole[-1] == f"{len(whole) - 3} encoders; more of one: python -m core.zoo show NAME"
    some = printed(capsys, "list", "SENTINEL", "fg-mae", "vit-b").splitlines()
    assert [line.split()[0] for line in some[1:-2]] == ["fgmae-s1-vitb16", "fgmae-s2-vitb16"]
    assert "satvision-toa-huge" in printed(capsys, "list", "satvision-huge")
    assert "none with violet and sentinel" in refused(capsys, "list", "violet", "Sentinel")
    assert "none with size" in refused(capsys, "list", "size"), "the heading is no encoder"


def test_show_tells_bands_units_terms_and_place(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HALFSEEN_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    text = printed(capsys, "show", "satvision")
    assert text.startswith("satvision-toa-giant\nSatVision-TOA giant")
    assert "swinv2, 2,595,048,416 parameters (2.60 B, 10.38 GB as float32)" in text
    assert "toa: 14 bands of modis_toa14, 128 x 128 voxels of 1000 x 1000 m, patch 4 x 4" in text
    assert re.search(r"^ +B01 +percent reflectance +0 +100$", text, re.MULTILINE)
    assert re.search(r"^ +B31 +K +202\.176 +324\.068$", text, re.MULTILINE)
    assert "4096 numbers, pooled by 'mean'" in text
    assert "/resolve/85a86d788028f0cf23b737c4a042143585a385fc/mp_rank_00_model_states.pt" in text
    assert f"not fetched; its place is\n{' ' * 14}{tmp_path}" in text or f"its place is {tmp_path}" in text
    assert "in Python     core.load_encoder('satvision-toa-giant')" in text
    assert "core.load_encoder('retfound-cfp', accept=('non_commercial',))" in printed(capsys, "show", "retfound")
    assert "core.load_encoder('mrm', weights=PATH)" in printed(capsys, "show", "mrm")
    radar = printed(capsys, "show", "fgmae-s1")
    assert re.search(r"VV +dB +-23\.0624 +-2\.03452 +-23\.0624 \.\. -2\.03452", radar)
    assert "did you mean 'satvision'?" in refused(capsys, "show", "satvison")


def test_show_tells_size_and_digest_and_finds_what_other_tools_have_fetched(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HALFSEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    source = replace(tiny_release.CARD.source, size_bytes=1_500_000, sha256="0" * 64)
    tiny_release.publish(monkeypatch, replace(tiny_release.CARD, source=source))
    text = " ".join(printed(capsys, "show", "tiny").split())
    assert f"{source.file} (1.5 MB, sha256 {'0' * 64}) not fetched; its place is {tmp_path}/cache/hub/" in text
    folder = tmp_path / f"models--{source.repo.replace('/', '--')}" / "snapshots" / source.revision
    folder.mkdir(parents=True)
    path = tiny_release.write(folder / source.file)
    assert f"fetched: {path}" in " ".join(printed(capsys, "show", "tiny").split())


def test_verify_accounts_for_every_key(capsys, monkeypatch, tmp_path):
    tiny_release.publish(monkeypatch)
    path = tiny_release.write(tmp_path / "tiny.pth")
    printed_text = printed(capsys, "verify", "tiny", "--weights", str(path))
    assert printed_text.startswith("tiny-s2: this file is that encoder\n")
    text = " ".join(printed_text.split())  # lines are as wide as the terminal
    assert "30 placed, 2 dropped: 1 by decoder_*, 1 by mask_token" in text
    assert f"{file_sha256(path)}, the card knows none to compare with" in text
    assert "31 tensors filled, none left" in text
    assert "float32, all finite" in text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("norm.bias"), r"tiny\.pth: expected all 30 keys .* missing: norm\.bias\."),
        (lambda state: state.update(extra=torch.zeros(1)), r"unexpected: extra\."),
        (lambda state: state.update({"norm.bias": torch.zeros(17)}), r"norm\.bias: file \(17,\), module \(16,\)"),
        (lambda state: state["norm.bias"].fill_(torch.nan), r"NaN or infinity in norm\.bias"),
    ],
)
def test_verify_refuses_what_is_not_whole(capsys, monkeypatch, tmp_path, change, told):
    tiny_release.publish(monkeypatch)
    state, path = tiny_release.released(), tmp_path / "tiny.pth"
    change(state)
    torch.save(state, path)
    assert re.search(told, refused(capsys, "verify", "tiny", "--weights", str(path)))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [([], "required: VERB"), (["shout"], "invalid choice: 'shout'"), (["verify", "mrm"], "required: --weights")],
)
def test_wrong_words_end_in_one_line(capsys, arguments, told):
    assert told in refused(capsys, *arguments)


def test_help_lists_the_verbs(capsys):
    with pytest.raises(SystemExit) as ended:
        zoo.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n    {verb} " in text for verb in ("list", "show", "verify"))


@pytest.mark.slow
def test_the_program_runs_as_people_type_it():
    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "core.zoo", *words], cwd=ROOT, capture_output=True, text=True, timeout=120
        )

    found = run("list", "oct")
    assert (found.returncode, found.stderr) == (0, "")
    assert "retfound-oct" in found.stdout
    assert run("show", "nothing").returncode == 2
