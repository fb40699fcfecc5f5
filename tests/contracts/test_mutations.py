"""The exam itself is examined: a one-line break of each invariant must fail the test that guards it.

Each case breaks one line of a copy of the sources, and runs one test there in a process of its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.programs import Outcome, Server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
EXAM = "tests/contracts/test_recipes.py"

# invariant of the house: (file, the line, its break, the test that must fail)
BREAKS = {
    "1 nodata": (
        "core/batch.py",
        "image=image.masked_fill_(~valid, 0.0)",
        "image=image",
        f"{EXAM}::TestRecipes::test_missing_voxels_change_neither_loss_nor_gradient[mae-scene-10000.0]",
    ),
    "1 nodata, in a target": (
        "core/targets/gradient.py",
        "solid = batch.valid if batch.complete else eroded(batch.valid, self.kernel // 2)",
        "solid = torch.ones_like(batch.valid)",
        "tests/core/targets/test_gradient.py::test_no_weight_beside_missing_data",
    ),
    "2 no leak": (
        "core/encoders/vit.py",
        "tokens = torch.where(ok[..., None], tokens, 0.0)",
        "pass",
        f"{EXAM}::TestRecipes::test_hidden_content_never_reaches_the_encoder[mae-scene]",
    ),
    "2 no leak, the whole mask": (
        "core/encoders/_prepare.py",
        "index, ok = plan.seen_index",
        "index, ok = type(plan)(see=plan.see | plan.hide, hide=plan.hide).seen_index",
        f"{EXAM}::TestRecipes::test_hidden_content_never_reaches_the_encoder[mae-scene]",
    ),
    "3 exact count": (
        "core/plan.py",
        "counted = valid.sum(dim=1, dtype=torch.int64)",
        "counted = torch.ones_like(valid).sum(dim=1, dtype=torch.int64)",
        f"{EXAM}::TestRecipes::test_hides_the_exact_share_of_valid_tokens[mae-scene]",
    ),
    "4 ranks": (
        "core/losses/__init__.py",
        "distributed.all_reduce(total)",
        "total = total * ranks",
        f"{EXAM}::test_two_ranks_equal_one_process[mae]",
    ),
    "5 resume: a step replays": (
        "core/maskers/random.py",
        'noise = rng.split("random").uniform(grid.num_tokens)',
        "import torch; noise = torch.rand(len(batch), grid.num_tokens)",
        f"{EXAM}::TestRecipes::test_a_step_can_be_replayed[mae-scene]",
    ),
    "5 resume: the moments": (
        "core/engine/state.py",
        "optimizer.state[parameter] = {",
        "optimizer.state[parameter] = {} and {",
        f"{EXAM}::TestRecipes::test_a_stopped_run_continues_bitwise[mae-scene]",
    ),
    "6 positions": (
        "core/pos_embed.py",
        "return torch.cat([angle.sin(), angle.cos()], dim=-1)",
        "return torch.cat([angle.sin(), angle.cos()], dim=-1) * 0",
        "tests/core/test_pos_embed.py::test_every_token_has_its_own_position",
    ),
    "6 positions, frozen": (
        "core/encoders/vit.py",
        "requires_grad=spec.train_tables",
        "requires_grad=True",
        "tests/core/encoders/test_vit.py::test_a_frozen_table_is_not_trained_and_not_constant",
    ),
    "7 bands by name": (
        "core/batch.py",
        "order = align(self.bands, bands)",
        "align(self.bands, bands); order = list(range(len(bands)))",
        f"{EXAM}::TestRecipes::test_bands_count_by_name[mae-scene]",
    ),
    "8 patchify": (
        "core/shapes.py",
        "order = [0, 1 + nd, *(axis for i in range(nd) for axis in (1 + i, 2 + nd + i))]",
        "order = [0, 1 + nd, *(axis for i in range(nd) for axis in (2 + nd + i, 1 + i))]",
        "tests/core/test_shapes.py::test_unpatchify_inverts_patchify",
    ),
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the exam needs."""
    copy = tmp_path_factory.mktemp("broken")
    for name in ("core", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def _exam(warm: Server, checkout: Path, *words: str) -> Outcome:
    imported = "-Wignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning"  # by timm
    return warm.run("pytest", "-q", "-p", "no:cacheprovider", imported, *words, folder=checkout, timeout_s=200)


@pytest.mark.parametrize("invariant", BREAKS)
def test_a_break_is_caught(warm, checkout, invariant):
    name, line, broken, test = BREAKS[invariant]
    path, whole = checkout / name, (checkout / name).read_text()
    assert whole.count(line) == 1, f"{name} no longer has the line that this break changes"
    try:
        path.write_text(whole.replace(line, broken))
        result = _exam(warm, checkout, "-x", test)
    finally:
        path.write_text(whole)
    assert result.code == 1, result.out[-2000:] + result.err[-2000:]  # 1 = tests ran and failed
    assert "FAILED" in result.out


def test_without_a_break_the_same_tests_pass(warm, checkout):
    tests = sorted({test for *_, test in BREAKS.values()})
    result = _exam(warm, checkout, *tests)
    assert result.code == 0, result.out[-2000:]
