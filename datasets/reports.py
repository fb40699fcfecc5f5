"""Reports: the texts of a manifest's column as word pieces, beside the batches of its images.

Texts stay where the manifest keeps them and are cut when a batch comes by: cutting 256 reports takes milliseconds, and
nothing grows with the collection. No field is ever run: texts are texts, lists of words are read as JSON or as Python
literals. What is done with pieces is in `core.text`.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from core.batch import Batch
from core.errors import ConfigError, DataError, MissingDataError, nearest
from datasets.manifest import Manifest
from datasets.publishing import published
from datasets.wordpiece import learn_pieces

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[MASK]")
"""The first pieces of a vocabulary that is made here: 0 to 3, as MRM numbers them."""

Form = Literal["text", "words"]
"""What a field of the column holds: `text` as it is, or `words`: a list of texts, written as JSON or Python writes it."""

_AT_ONCE = 1000
_LONGEST_WORD = 100  # letters; a longer one is unknown


def train_tokenizer(
    manifest: Manifest,
    column: str,
    path: str | Path,
    *,
    size: int = 30_000,
    min_count: int = 2,
    form: Form = "text",
    template: str = "{}",
) -> Path:
    """Make a WordPiece vocabulary from the reports of the images that are trained on, and write it to `path`.

    Rows of split `train`, or of no split, count; no other. The same reports give the same file.

    Args:
        manifest: the collection.
        column: where its reports are.
        path: file to write, `tokenizer.json` as the tokenizers library stores it; replaced if it exists.
        size: pieces at most, the special ones included.
        min_count: how often a pair of pieces must occur to become a piece.
        form: see `Form`.
        template: what a text is put into, at `{}`.

    Raises:
        ConfigError: no such column, it holds no texts, or the size has no room for a piece.
        DataError: no image that is trained on has a report.
        MissingDataError: the tokenizers library is not installed.
    """
    if size <= len(SPECIAL):
        raise ConfigError(f"expected a vocabulary of more than the {len(SPECIAL)} special pieces, got {size}.")
    library = _library()
    rows = np.union1d(manifest.rows(split="train"), manifest.rows(split=None))
    texts = _Texts(manifest, column, form, template)
    if not any(texts.some(rows)):
        raise DataError(
            f"expected reports in column '{column}' of the images that are trained on, but all {len(rows)} are empty."
        )
    normalizer, splitter = library.normalizers.BertNormalizer(), library.pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts.some(rows):
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    known = {word: count for word, count in words.items() if len(word) <= _LONGEST_WORD}
    pieces = [*SPECIAL, *learn_pieces(known, size - len(SPECIAL), min_count)]
    numbers = {piece: number for number, piece in enumerate(pieces)}
    model = library.models.WordPiece(numbers, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD)
    tokenizer = library.Tokenizer(model)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    begin = [("[CLS]", SPECIAL.index("[CLS]"))]
    tokenizer.post_processor = library.processors.TemplateProcessing(single="[CLS] $A", special_tokens=begin)
    with published(Path(path)) as partial:
        partial.write_text(tokenizer.to_str(), encoding="utf-8")
    return Path(path)


class Reports:
    """The reports of a manifest, by row, as word pieces.

    A row without a report, or with one of white space only, is all padding.
    """

    def __init__(
        self,
        manifest: Manifest,
        column: str,
        tokenizer: str | Path,
        length: int = 100,
        *,
        form: Form = "text",
        template: str = "{}",
    ) -> None:
        """Open the tokenizer; no report is read yet.

        Args:
            manifest: the collection whose rows batches name.
            column: where its reports are.
            tokenizer: path of a `tokenizer.json`, of `train_tokenizer` or another WordPiece one with [PAD] as piece 0.
            length: pieces at most, [CLS] included; what is longer is cut.
            form: see `Form`.
            template: what a text is put into, at `{}`: `a fundus photograph of {}`.

        Raises:
            ConfigError: no such column, it holds no texts, or the tokenizer does not suit.
            MissingDataError: no such tokenizer, or the tokenizers library is not installed.
        """
        if length < 2:
            raise ConfigError(f"expected a length of 2 pieces or more, [CLS] and one of a word, got {length}.")
        self._texts = _Texts(manifest, column, form, template)
        self._tokenizer = _opened(Path(tokenizer))
        self._first = self._tokenizer.token_to_id("[CLS]")
        self.length = length

    def __call__(self, rows: Tensor | np.ndarray | Sequence[int]) -> Tensor:
        """Cut the reports of some rows: (rows, T) int64, 0 = padding; T is that of the longest, at least 1.

        Raises:
            DataError: a field that should be a list of words is none; the message names the image.
        """
        texts = self._texts.of(np.asarray(rows, dtype=np.int64))
        told = [text for text in texts if text]
        cut = iter(self._tokenizer.encode_batch(told))
        pieces = [self._begun(next(cut).ids) if text else [] for text in texts]
        result = torch.zeros(len(pieces), max(map(len, [*pieces, [0]])), dtype=torch.int64)
        for place, own in zip(result, pieces, strict=True):
            place[: len(own)] = torch.tensor(own, dtype=torch.int64)
        return result

    def _begun(self, pieces: list[int]) -> list[int]:
        """Begin with [CLS] where the tokenizer knows it and does not do so itself, and cut."""
        if self._first is not None and pieces[:1] != [self._first]:
            pieces = [self._first, *pieces]
        return pieces[: self.length]


def with_reports(batches: Iterable[Batch], reports: Reports) -> Iterator[Batch]:
    """Give the same batches with the reports of their rows."""
    for batch in batches:
        yield replace(batch, text=reports(batch.row.cpu()).to(batch.row.device))


class _Texts:
    """A column of a manifest as texts, read in portions; '' where there is none."""

    def __init__(self, manifest: Manifest, column: str, form: Form, template: str) -> None:
        import pyarrow as pa

        if column not in manifest.label_names:
            raise ConfigError(f"no column of reports is called '{column}': {nearest(column, manifest.label_names)}")
        if template.count("{}") != 1:
            raise ConfigError(f"expected a template with one '{{}}' for the text, got '{template}'.")
        values = manifest.table[column]
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            raise ConfigError(f"expected texts in column '{column}', got {values.type}.")
        self.manifest, self.column, self.values, self.form, self.template = manifest, column, values, form, template

    def of(self, rows: np.ndarray) -> list[str]:
        """Give the texts of some rows."""
        import pyarrow as pa

        fields = self.values.take(pa.array(rows)).to_pylist()
        return [self._text(field, int(row)) for field, row in zip(fields, rows, strict=True)]

    def some(self, rows: np.ndarray) -> Iterator[str]:
        """Give one text after the other, those that there are."""
        for first in range(0, len(rows), _AT_ONCE):
            yield from filter(None, self.of(rows[first : first + _AT_ONCE]))

    def _text(self, field: str | None, row: int) -> str:
        text = (field or "").strip()
        if text and self.form == "words":
            text = ", ".join(_listed(text, f"{self.manifest.path(row)}, column '{self.column}'"))
        return self.template.replace("{}", text) if text else ""


def _listed(field: str, subject: str) -> list[str]:
    """Read a list of texts; anything else, such as an expression, is refused and never run.

    Raises:
        DataError: it is no such list.
    """
    words: Any = None
    for read in (json.loads, ast.literal_eval):
        try:
            words = read(field)
            break
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise DataError(f"{subject}: expected a list of texts as JSON or Python writes it, got '{field[:80]}'.")
    return [word.strip() for word in words if word.strip()]


def _opened(path: Path) -> Any:
    """Open a tokenizer. Names of special pieces in a report are text like any other."""
    library = _library()
    if not path.is_file():
        raise MissingDataError(f"expected a tokenizer, but {path} does not exist.")
    try:
        tokenizer = library.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing more specific
        raise ConfigError(f"{path}: expected a tokenizer of the tokenizers library, got: {error}.") from None
    if tokenizer.token_to_id("[PAD]") != 0 or tokenizer.token_to_id("[MASK]") is None:
        raise ConfigError(
            f"{path}: expected [PAD] as piece 0 and a piece [MASK], got {tokenizer.token_to_id('[PAD]')} and "
            f"{tokenizer.token_to_id('[MASK]')}: make a tokenizer with train_tokenizer."
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise MissingDataError("reading reports needs tokenizers: pip install 'halfseen[text]'.") from None
    return tokenizers
