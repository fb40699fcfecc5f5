"""Reports as word pieces: the vocabulary, the rows, and that no field is ever run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import ConfigError, DataError, MissingDataError
from core.rng import SampleRng, key
from core.testing.samples import SCENE, ragged_batch
from core.text.masking import hidden_words
from core.text.vocabulary import read_vocabulary
from datasets.manifest import Manifest
from datasets.reports import SPECIAL, Reports, train_tokenizer, with_reports

ROOT = Path(__file__).resolve().parents[2]

REPORTS = [
    "No focal consolidation, pleural effusion or pneumothorax.",
    "Mild cardiomegaly with small left pleural effusion.",
    None,
    "Right lower lobe consolidation; pneumonia cannot be excluded.",
    "   ",
    "Interval resolution of the pneumothorax. No effusion.",
]


def _manifest(reports=REPORTS, splits=None, **labels) -> Manifest:
    number = len(reports)
    facts = {
        "root": ["/somewhere"] * number,
        "file": [f"{row}.png" for row in range(number)],
        "group": [f"patient{row}" for row in range(number)],
        "split": splits or [None] * number,
        "ndim": [2] * number,
        "shape": [[1, 8, 8]] * number,
        "dtype": ["uint8"] * number,
        "spacing": [[1.0, 1.0]] * number,
        "unit": ["px"] * number,
        "bands": [["gray"]] * number,
        "bytes": [100] * number,
        "digest": [f"{row:x}" for row in range(number)],
    }
    return Manifest.of(facts | {"report": reports} | labels)


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    return train_tokenizer(_manifest(), "report", tmp_path / "tokenizer.json", size=100, min_count=1)


def test_a_vocabulary_begins_with_the_specials_and_core_reads_it(tokenizer):
    vocabulary = read_vocabulary(tokenizer)
    numbers = json.loads(tokenizer.read_text())["model"]["vocab"]
    assert [numbers[piece] for piece in SPECIAL] == [0, 1, 2, 3]
    assert vocabulary.mask == 3
    assert sum(vocabulary.special) == 4
    assert len(vocabulary) == len(numbers) == 100
    assert [piece for piece, number in numbers.items() if vocabulary.continues[number]] == [
        piece for piece in numbers if piece.startswith("##")
    ]
    assert sum(vocabulary.continues) > 20


def test_the_same_reports_give_the_same_file(tokenizer, tmp_path):
    again = train_tokenizer(_manifest(), "report", tmp_path / "again.json", size=100, min_count=1)
    assert again.read_bytes() == tokenizer.read_bytes()


def test_held_out_reports_have_no_say(tmp_path):
    splits = ["train", None, "held_out", "train", None, "held_out"]
    reports = ["aaa bbb"] * 6
    reports[2], reports[5] = "zzz", "qqq"
    path = train_tokenizer(_manifest(reports, splits), "report", tmp_path / "t.json", min_count=1)
    pieces = json.loads(path.read_text())["model"]["vocab"]
    assert "aaa" in pieces
    assert not {"z", "q", "zzz", "qqq"} & set(pieces)


def test_rows_become_padded_pieces_that_begin_with_cls(tokenizer):
    import tokenizers

    ids = Reports(_manifest(), "report", tokenizer)(torch.tensor([3, 2, 0, 4]))
    assert ids.dtype == torch.int64
    assert ids[[0, 2], 0].tolist() == [2, 2]
    assert not bool(ids[[1, 3]].any())  # no report, or one of white space
    length = int((ids != 0).sum(1).max())
    assert ids.shape == (4, length)
    theirs = tokenizers.Tokenizer.from_file(str(tokenizer))
    assert (
        theirs.decode(ids[0].tolist()).replace(" ##", "")
        == "right lower lobe consolidation ; pneumonia cannot be excluded ."
    )


def test_long_reports_are_cut(tokenizer):
    whole = Reports(_manifest(), "report", tokenizer)([0])
    short = Reports(_manifest(), "report", tokenizer, 5)([0])
    assert whole.shape[1] > 5
    assert torch.equal(short, whole[:, :5])


def test_rows_alone_give_what_they_give_together(tokenizer):
    reports = Reports(_manifest(), "report", tokenizer)
    together = reports(np.arange(6))
    for row in range(6):
        alone = reports([row])
        assert torch.equal(together[row, : alone.shape[1]], alone[0])
        assert not bool(together[row, alone.shape[1] :].any())


def test_rows_without_any_report_still_have_a_place(tokenizer):
    assert torch.equal(Reports(_manifest(), "report", tokenizer)([2, 4]), torch.zeros(2, 1, dtype=torch.int64))


def test_unknown_signs_and_names_of_specials_are_text(tokenizer):
    reports = _manifest(["effusion 漢字", "[MASK] [PAD] effusion"])
    ids = Reports(reports, "report", tokenizer)([0, 1])
    assert int(ids.max()) < len(read_vocabulary(tokenizer))
    assert 1 in ids[0].tolist()
    assert 3 not in ids[1].tolist()
    assert bool((ids[1, : int((ids[1] != 0).sum())] != 0).all())


def test_words_of_real_reports_are_hidden_whole_and_by_half(tmp_path):
    words = [
        f"{a}{b}{c}" for a in ("card", "pleur", "pulm") for b in ("io", "al", "on") for c in ("megaly", "itis", "ary")
    ]
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(words, 50)) for _ in range(200)]
    path = train_tokenizer(_manifest(texts), "report", tmp_path / "t.json", size=40, min_count=2)
    vocabulary = read_vocabulary(path)
    special, continues = torch.tensor(vocabulary.special), torch.tensor(vocabulary.continues)
    ids = Reports(_manifest(texts), "report", path, 1000)(np.arange(200))
    hidden = hidden_words(ids, special, continues, 0.5, SampleRng(torch.tensor([key(0, row) for row in range(200)])))
    heads = ~special[ids] & ~continues[ids]
    assert int(heads.sum()) == 10_000
    assert float(hidden[heads].float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(hidden[continues[ids]].float().mean()) == pytest.approx(0.5, abs=0.04)
    assert not bool(hidden[special[ids]].any())
    inside = continues[ids][:, 1:]
    assert int(inside.sum()) > 10_000
    assert torch.equal(hidden[:, 1:][inside], hidden[:, :-1][inside])
    assert int(ids.max()) < len(vocabulary)


def test_batches_get_the_reports_of_their_rows(tokenizer):
    reports = Reports(_manifest(), "report", tokenizer)
    first = replace(ragged_batch(SCENE), row=torch.tensor([0, 5, 2, 3]))  # its `index` counts from 0 to 3
    second = first.take([2, 1])
    one, two = with_reports(iter([first, second]), reports)
    assert torch.equal(one.text, reports([0, 5, 2, 3]))
    assert torch.equal(two.text, reports([2, 5]))
    assert one.image is first.image


def test_lists_of_words_fill_a_template(tmp_path):
    labels = ['["diabetic retinopathy", "macular edema"]', "['glaucoma']", None, "[]"]
    options = {"form": "words", "template": "a fundus photograph of {}"}
    path = train_tokenizer(_manifest(labels), "report", tmp_path / "t.json", min_count=1, **options)
    import tokenizers

    ids = Reports(_manifest(labels), "report", path, **options)(np.arange(4))
    read = [tokenizers.Tokenizer.from_file(str(path)).decode(row.tolist()) for row in ids]
    assert read[0].replace(" ##", "") == "a fundus photograph of diabetic retinopathy , macular edema"
    assert read[1].replace(" ##", "") == "a fundus photograph of glaucoma"
    assert not bool(ids[2:].any())


@pytest.mark.parametrize(
    "field", ["[__import__('os').getcwd()]", "print('x')", "{'a': 1}", "[1, 2]", "['a'", "[" * 5000, "'glaucoma'"]
)
def test_a_field_that_is_no_list_of_words_is_refused(tokenizer, field):
    reports = Reports(_manifest(["['a']", field]), "report", tokenizer, form="words")
    with pytest.raises(DataError, match=r"1\.png, column 'report': expected a list of texts"):
        reports([1])


def test_code_in_a_text_is_text(tokenizer):
    ids = Reports(_manifest(["__import__('os').abort()"]), "report", tokenizer)([0])
    assert int((ids != 0).sum()) > 2


def test_columns_that_hold_no_texts_are_refused(tokenizer):
    with pytest.raises(ConfigError, match="no column of reports is called 'reports': did you mean 'report'"):
        Reports(_manifest(), "reports", tokenizer)
    with pytest.raises(ConfigError, match="expected texts in column 'grade', got int64"):
        Reports(_manifest(grade=[0] * 6), "grade", tokenizer)
    with pytest.raises(ConfigError, match="template with one '{}'"):
        Reports(_manifest(), "report", tokenizer, template="nothing")
    with pytest.raises(ConfigError, match="more than the 4 special pieces, got 4"):
        train_tokenizer(_manifest(), "report", tokenizer, size=4)
    with pytest.raises(DataError, match="all 6 are empty"):
        train_tokenizer(_manifest([""] * 6), "report", tokenizer)


def test_tokenizers_that_do_not_suit_are_refused(tmp_path):
    with pytest.raises(MissingDataError, match="does not exist"):
        Reports(_manifest(), "report", tmp_path / "nowhere.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(ConfigError, match="expected a tokenizer of the tokenizers library"):
        Reports(_manifest(), "report", broken)
    path = train_tokenizer(_manifest(), "report", tmp_path / "t.json")
    path.write_text(path.read_text().replace("[PAD]", "[GAP]"))
    with pytest.raises(ConfigError, match=r"expected \[PAD\] as piece 0"):
        Reports(_manifest(), "report", path)


def test_foreign_tokenizers_that_begin_and_end_texts_their_way_are_kept(tokenizer):
    import tokenizers

    theirs = tokenizers.Tokenizer.from_file(str(tokenizer))
    theirs.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [MASK]", special_tokens=[("[CLS]", 2), ("[MASK]", 3)]
    )
    theirs.enable_truncation(3)
    theirs.save(str(tokenizer))
    ids = Reports(_manifest(), "report", tokenizer)([0])[0].tolist()
    assert ids[0] == 2 and ids.count(2) == 1 and ids[-1] == 3 and len(ids) > 10
    theirs.post_processor = tokenizers.processors.TemplateProcessing(single="$A", special_tokens=[])
    theirs.save(str(tokenizer))
    assert Reports(_manifest(), "report", tokenizer)([0])[0].tolist() == ids[:-1]


def test_without_the_library_the_extra_is_named(tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDataError, match=r"pip install 'halfseen\[text\]'"):
        Reports(_manifest(), "report", tokenizer)


@pytest.mark.slow
def test_importing_reports_does_not_import_the_library():
    code = "import sys, datasets.reports; sys.exit('tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60).returncode == 0
