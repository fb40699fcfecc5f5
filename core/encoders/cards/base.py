"""What a card says of a published encoder: what it is, how its file is laid out, where it lies, who may use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from core.encoders.base import EncoderSpec, Pool

Modality = Literal["satellite", "retina", "chest x-ray", "natural image"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a released file is laid out, in the order in which it is undone.

    What wraps a whole model (`module.`, `_orig_mod.`, `model.`, see `core.foreign.WRAPPERS`) is known to the loader and
    needs no mention. `drop` is matched last, against names from which wrappers and prefix are gone.

    Attributes:
        outer: keys of dictionaries around the weights, tried in turn and before the usual ones (`core.foreign.OUTER`), each
            of them optional: `("teacher",)`.
        prefixes: where the encoder lies among other parts, whole segments such as `encoder.`; the first that occurs
            counts. What lies beside it must be named by `drop`.
        drop: shell patterns (`decoder_*`, `*.attn_mask`) of what an encoder has no use for. All else must find a place.
        convert: the module that knows the names. It offers `encoder_keys(spec, have)`, the set of names that an encoder
            of this spec needs, where `have` are the file's (some releases write `fc_norm` for `norm`), and
            `encoder_weights(state, entry)`, which translates them to ours.
        given: what `encoder_weights` takes beside the weights: the spec's only `input`, or the whole `spec`.
    """

    outer: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    convert: str
    given: Literal["input", "spec"] = "input"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a file lies: in a repository of the hub, at an address, or where only a person can fetch it.

    Attributes:
        repo: `owner/name` on the hub; empty = not there.
        revision: commit, tag or branch.
        file: its name in the repository; with `url`, the name under which it is kept.
        url: direct address of a file that is on no hub.
        page: what to open in a browser where neither leads to the file.
        sha256: of its bytes, 64 hex digits; none = nobody has told us.
        size_bytes: its length; none = unknown.
    """

    repo: str = ""
    revision: str = "main"
    file: str = ""
    url: str = ""
    page: str = ""
    sha256: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Card:
    """One published encoder.

    Attributes:
        name: how `load_encoder` calls it: lower case, words joined by `-`.
        aliases: other names, the short ones that people type.
        title: one line for a list.
        modality: what it was trained on.
        spec: makes its full description, contract included; called only when needed, for architectures load slowly.
        parameters: of the encoder, stored positions included, the decoder not; SatVision's authors count its mask token.
        layout: of the released file.
        source: of the released file.
        licence: of the weights, as the release states it; `unknown` where it states none.
        gated: the hub asks for an account that accepted the terms.
        non_commercial: the licence forbids commercial use.
        citation: authors, title, year.
        paper: arXiv id.
        reported: what the authors report, as (task, metric, value).
        notes: what a user should know, one sentence each.
        pool: how its authors make one vector of tokens.
    """

    name: str
    aliases: tuple[str, ...] = ()
    title: str
    modality: Modality
    spec: Callable[[], EncoderSpec]
    parameters: int
    layout: Layout
    source: Source
    licence: str
    gated: bool = False
    non_commercial: bool = False
    citation: str
    paper: str = ""
    reported: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()
    pool: Pool = "mean"
