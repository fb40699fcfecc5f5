"""The command line as a person meets it: exit codes, sentences, and what the verb is handed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core import cli, registry
from core import config as tree
from core.cli.parse import parse
from core.engine.config import Pretrain
from core.engine.distributed import World
from core.engine.run_folder import open_run
from core.engine.stop import Preempted
from core.errors import ConfigError, DataError
from tests.core.cli.presets import base, tiny
from tests.core.engine.stub import ALONE

PRESETS = {"tiny": tiny, "base": base}


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score an encoder.

    Attributes:
        encoder: path of a run.
        data: files to score.
        label: column with the answer.
        folds: parts of the cross-validation.
    """

    encoder: str
    data: tuple[str, ...]
    label: str
    folds: int = 5


class Called:
    """Remembers what a verb was handed."""

    def __init__(self) -> None:
        self.config: Any = None
        self.options: Any = None

    def __call__(self, config: Any, options: cli.Options) -> Path:
        self.config, self.options = config, options
        return options.out


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)


def pretrain(*argv: str, run: Callable[[Any, Any], Path] | None = None) -> tuple[int, Called]:
    called = Called()
    with pytest.raises(SystemExit) as left:
        cli.pretrain_main(PRESETS, run or called, "Pretrain on an imaginary domain.", argv=argv)
    return left.value.code, called  # type: ignore[return-value]


def evaluate(*argv: str) -> tuple[int, Called]:
    called = Called()
    verb = cli.Verb(config=Evaluate, run=called, description="Score.", default_out=lambda config: Path(config.encoder))
    with pytest.raises(SystemExit) as left:
        cli.main(verb, argv)
    return left.value.code, called  # type: ignore[return-value]


def test_preset_options_and_out_reach_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    code, called = pretrain("tiny", "--data", "a", "b c", "--optim.lr=3e-4", "--how.workers", "2", "--out", "x/run")
    assert code == 0
    assert called.config == tree.override(tiny(), {"data.paths": ("a", "b c"), "optim.lr": 3e-4, "how.workers": 2})
    assert called.options == cli.Options(out=Path("x/run"), preset="tiny")
    assert capsys.readouterr().out == "x/run\n"


def test_path_of_what_was_written_is_the_last_line_of_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    def run(config: Pretrain, options: cli.Options) -> Path:
        print("trained")
        return Path("somewhere")

    assert pretrain("tiny", run=run)[0] == 0
    assert capsys.readouterr().out.splitlines() == ["trained", "somewhere"]


def test_recipe_is_exchanged_and_keeps_the_encoder() -> None:
    changed = pretrain("tiny", "--recipe", "uni4eye", "--recipe.gradient_weight=0.5")[1].config
    assert type(changed.recipe).__name__ == "Uni4Eye"
    assert (changed.recipe.encoder, changed.recipe.predictor) == (tiny().recipe.encoder, tiny().recipe.predictor)
    assert changed.recipe.gradient_weight == 0.5


def test_default_out_names_the_preset() -> None:
    assert pretrain("tiny")[1].options.out.name.endswith("-tiny")
    assert pretrain("tiny")[1].options.out.parent == Path("runs")


def test_config_file_stands_alone_or_lies_over_a_preset(tmp_path: Path) -> None:
    (tmp_path / "whole.yaml").write_text(tree.dump(tree.to_dict(tiny())))
    (tmp_path / "part.yaml").write_text("steps: 55\noptim: {lr: 2e-3}\n")
    assert pretrain("--config", "whole.yaml")[1].config == tiny()
    changed = pretrain("tiny", "--config=part.yaml", "--optim.lr=1e-2")[1].config
    assert changed == tree.override(tiny(), {"steps": 55, "optim.lr": 1e-2})


def test_resume_without_preset_takes_the_runs_own_config(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", tree.override(tiny(), {"steps": 77}), world=ALONE):
        pass
    code, called = pretrain("--resume", "--out", "run", "--how.workers=1")
    assert code == 0
    assert called.config == tree.override(tiny(), {"steps": 77, "how.workers": 1})
    assert called.options.resume is True


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["tinny"], "no preset is called 'tinny': did you mean 'tiny'?"),
        ([], "expected a preset (tiny, base) or --config FILE; --list describes them."),
        (["tiny", "--optim.lrr=3"], "no option is called 'optim.lrr': did you mean 'optim.lr'?"),
        (["tiny", "--optim.lr=fast"], "option 'optim.lr': expected a finite number, got 'fast'."),
        (["tiny", "--steps=1", "--steps=2"], "option --steps is given twice: give it once; several values follow one"),
        (["tiny", "--data=a", "--data.paths=b"], "option 'data.paths' is given twice, once as --data.paths"),
        (["tiny", "--optim.lr"], "option 'optim.lr' needs a value, as in --optim.lr=VALUE."),
        (["tiny", "base"], "expected an option after 'tiny', got 'base': a preset comes first"),
        (["tiny", "--resume=yes"], "option --resume takes no value, got 'yes'."),
        (["tiny", "--out"], "option --out takes one path, got none."),
        (["tiny", "--out", "a", "b"], "option --out takes one path, got a b."),
        (["tiny", "--plan", "--out", "x"], "--out has no effect with --plan"),
        (["tiny", "--plan", "--resume"], "--resume has no effect with --plan"),
        (["tiny", "--gpus", "8"], "--gpus has no effect without --plan"),
        (["tiny", "--plan", "--gpus", "0"], "option --gpus takes one number of cards, 1 or more, got 0."),
        (["tiny", "--plan", "--gpus"], "option --gpus takes one number of cards, 1 or more, got none."),
        (["tiny", "--plan", "--gpus", "2", "4"], "option --gpus takes one number of cards, 1 or more, got 2 4."),
        (["tiny", "--plan", "--gpus=3"], "expected a batch_size that 3 cards with optim.accumulate=1 share evenly"),
        (["--list", "--gpus=3"], "--gpus has no effect with --list"),
        (["tiny", "--list"], "tiny has no effect with --list"),
        (["--list", "--steps=3"], "--steps has no effect with --list"),
        (["--resume"], "--resume needs to know which run"),
        (["--resume", "--out", "nowhere"], "expected a run to continue in nowhere, found none"),
        (["tiny", "--resume", "--overwrite", "--out", "x"], "give one of them"),
        (["--config", "no.yaml"], "expected a config file, but no.yaml does not exist."),
        (["tiny", "--recipe=may"], "option 'recipe': no recipe is called 'may': did you mean 'mae'?"),
        (["tiny", "--recipe.masker.ratio=2"], "mask ratio"),
        (["tiny", "--optim.accumulate=3"], "expected a batch_size that optim.accumulate, 3, divides, got 16."),
    ],
)
def test_mistake_is_one_sentence_and_exit_code_2_and_nothing_is_written(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, called = pretrain(*argv)
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert called.config is None
    assert list(tmp_path.iterdir()) == []


def test_existing_run_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_run(tmp_path / "run", tiny(), world=ALONE):
        pass
    code, called = pretrain("tiny", "--out", "run")
    assert (code, called.config) == (2, None)
    assert "run exists: continue that run with --resume" in capsys.readouterr().err
    assert pretrain("tiny", "--out", "run", "--resume")[1].options.resume is True
    assert pretrain("tiny", "--out", "run", "--overwrite")[1].options.overwrite is True


def test_errors_of_the_verb_are_sentences_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config: Pretrain, options: cli.Options) -> Path:
        raise DataError("broken.jpg: expected a JPEG.")

    assert pretrain("tiny", run=run)[0] == 2
    assert capsys.readouterr().err == "error: broken.jpg: expected a JPEG.\n"
    monkeypatch.setenv("RANK", "1")
    assert pretrain("tiny", run=run)[0] == 2
    assert capsys.readouterr().err == "[rank 1] error: broken.jpg: expected a JPEG.\n"


def test_our_own_mistakes_keep_their_traceback() -> None:
    def run(config: Pretrain, options: cli.Options) -> Path:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.pretrain_main(PRESETS, run, "", argv=["tiny"])


def test_stopped_run_leaves_with_75_and_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config: Pretrain, options: cli.Options) -> Path:
        raise Preempted(options.out, 40)

    assert pretrain("tiny", "--out", "my run", run=run)[0] == 75
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "asked to stop: saved my run at step 40. Continue with:"
    assert err.splitlines()[1].endswith("--resume --out 'my run'")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    pretrain("tiny", run=run)
    assert capsys.readouterr().err.splitlines()[1].startswith("  torchrun --nproc-per-node=4 -m ")


def test_keyboard_interrupt_is_130() -> None:
    def run(config: Pretrain, options: cli.Options) -> Path:
        raise KeyboardInterrupt

    assert pretrain("tiny", run=run)[0] == 130


def test_rank_1_prints_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert pretrain("tiny")[0] == 0
    assert capsys.readouterr() == ("", "")


def test_list_gives_the_first_line_of_each_docstring_and_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain("--list")[0] == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "  tiny  Minutes on 2 cores: a small ViT on 64-pixel crops.",
        "  base  Hours on a card: ViT-B/16 at 224 pixels, decoder 8 x 512.",
        "",
        "Recipes, chosen with --recipe NAME; compute in that of mae",
    ]
    heads = [line.split()[0] for line in lines[4:] if not line.startswith("   ")]
    assert heads == list(registry.names("recipes"))
    mae = " ".join(lines[4:]).partition("  mae  ")[2]
    expected = (
        "hide most patches, encode the rest, predict the hidden pixels. Compute 1.00; encoder: drop; He et al. 2021"
    )
    assert " ".join(mae.split()).startswith(expected)


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["base", "--help"]])
def test_help_shows_every_option_with_its_value_and_meaning(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(*argv)[0] == 0
    text = capsys.readouterr().out
    config = base() if "base" in argv else tiny()
    assert f"with the values of preset '{'base' if 'base' in argv else 'tiny'}'" in text
    heads = [
        line.split("=")[0].removeprefix("  --") for line in text.splitlines() if line.startswith("  --") and "=" in line
    ]
    assert heads == list(tree.leaves(config))
    assert f"  --optim.accumulate={config.optim.accumulate}\n" in text
    assert "  --recipe.masker.ratio=0.75\n      hidden share, above 0 and below 1." in text
    assert "peak learning rate for the global batch as it is; nothing rescales it." in text
    lines = text.splitlines()
    at = lines.index(next(line for line in lines if line.startswith("  --recipe=")))
    named = re.search(r"One of (.*?)\.", " ".join(line.strip() for line in lines[at + 1 : at + 6]))
    assert named is not None
    assert named[1].split(", ") == list(registry.names("recipes"))
    assert max(map(len, lines)) <= 100


def test_every_option_of_a_run_has_a_text() -> None:
    from core.cli.show import leaves

    assert [leaf.path for leaf in leaves(Pretrain, tiny()) if not leaf.text] == []


def test_values_shown_by_help_can_be_typed_back() -> None:
    from core.cli.show import leaves

    typed = {leaf.path: tree.Typed(leaf.value) for leaf in leaves(Pretrain, base()) if leaf.value is not None}
    assert tree.override(base(), typed) == base()


def test_verb_with_required_options_and_no_presets(capsys: pytest.CaptureFixture[str]) -> None:
    code, called = evaluate("--encoder", "runs/a", "--data", "x.csv", "--label", "grade")
    assert code == 0
    assert called.config == Evaluate(encoder="runs/a", data=("x.csv",), label="grade")
    assert called.options.out == Path("runs/a")
    assert capsys.readouterr().out == "runs/a\n"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--encoder=a"], "expected --data, files to score; and --label, column with the answer."),
        (["--encoder=a", "--data=b", "--lable=c"], "no option is called 'lable': did you mean 'label'?"),
        (["tiny"], "expected options only, got 'tiny': this verb has no presets."),
        (["--resume"], "--resume has no effect here"),
        (["--encoder=a", "--data=b", "--label=c", "--plan"], "--plan has no effect here"),
        (["--data=x", "--label=y", "--encoder", "a", "b"], "option 'encoder': expected text, got ['a', 'b']."),
    ],
)
def test_mistakes_in_such_a_verb(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(*argv)[0] == 2
    assert sentence in capsys.readouterr().err


def test_help_of_such_a_verb_marks_what_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--help")[0] == 0
    text = capsys.readouterr().out
    assert "  --label=...  (required)\n      column with the answer." in text
    assert "  --folds=5\n      parts of the cross-validation." in text
    assert "--resume" not in text
    assert "--plan" not in text


def test_gpus_are_refused_where_a_verb_plans_for_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    verb = cli.Verb(config=Evaluate, run=Called(), description="", plan=lambda config: "a plan")
    words = ["--encoder=a", "--data=b", "--label=c", "--plan"]
    cli.execute(verb, words)
    assert capsys.readouterr().out == "a plan\n"
    with pytest.raises(ConfigError, match="--gpus has no effect here: this verb plans for one process"):
        cli.execute(verb, [*words, "--gpus=2"])


def test_a_plan_for_cards_is_the_plan_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain("tiny", "--plan")[0] == 0
    plain = capsys.readouterr().out.splitlines()
    assert pretrain("tiny", "--plan", "--gpus", "2")[0] == 0
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line in plain] == plain
    assert any(line.startswith("gpus         2 x NVIDIA H100") for line in told)
    assert pretrain("--help")[0] == 0
    assert "--gpus N" in capsys.readouterr().out


def test_a_domain_adds_short_names_and_fits_the_config_before_it_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    called = Called()

    def prepare(config: Pretrain) -> Pretrain:
        return tree.override(config, {"steps": 2 * config.steps})

    def start(*argv: str) -> None:
        with pytest.raises(SystemExit):
            cli.pretrain_main(
                PRESETS, called, "", aliases={"options": "data.options"}, prepare=prepare, argv=["tiny", *argv]
            )

    start("--options", "a.b=1", "--data=x")
    assert (called.config.data.options, called.config.data.paths) == (("a.b=1",), ("x",))
    assert called.config.steps == 100
    start("--plan")
    assert "run          200 steps" in capsys.readouterr().out


def test_short_names_are_typed_with_hyphens_or_underscores_and_paths_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for word in ("--allow-outside", "--allow_outside", "--data.allow_outside", "--allow-outside=true"):
        assert pretrain("tiny", word)[1].config.data.allow_outside is True, word
    assert pretrain("tiny")[1].config.data.allow_outside is False
    assert pretrain("tiny", "--allow-outside", "--allow_outside")[0] == 2
    assert "option 'data.allow_outside' is given twice, once as --allow_outside" in capsys.readouterr().err
    assert pretrain("tiny", "--data.allow-outside")[0] == 2
    assert "did you mean 'data.allow_outside'?" in capsys.readouterr().err
    assert pretrain("--help")[0] == 0
    text = capsys.readouterr().out
    assert re.search(r"^  --allow-outside +short for --data.allow_outside: accept", text, re.MULTILINE)
    assert re.search(r"^  --options VALUE \.\.\. +short for --data.options: ", text, re.MULTILINE)


def test_parse_keeps_text_as_typed() -> None:
    given = parse(["tiny", "--a=1", "--b", "x", "y", "--c", "--d=", "--e", "-1", "--resume"])
    assert given.preset == "tiny"
    assert given.leaves == {"a": "1", "b": ["x", "y"], "c": tree.FLAG, "d": "", "e": "-1"}
    assert given.flags == {"resume"}


def test_world_of_one_acts_itself() -> None:
    import torch

    assert World(0, 1, torch.device("cpu")).on_main(lambda: 3) == 3
    with pytest.raises(ConfigError):
        parse(["a", "b"])


def test_a_default_preset_is_taken_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    run = Called()
    verb = cli.Verb(config=Pretrain, run=run, description="", presets=PRESETS, default_preset="tiny")
    cli.execute(verb, ["--out", "x"])
    assert run.options.preset == "tiny"
    assert run.config == tiny()
    assert "taking 'tiny'" in capsys.readouterr().err
    cli.execute(verb, ["base", "--out", "x"])
    assert run.options.preset == "base"
    assert capsys.readouterr().err == ""


def test_a_preset_may_follow_a_flag() -> None:
    given = parse(["--plan", "tiny", "--gpus", "64"])
    assert given.preset == "tiny" and given.flags == {"plan"}
    for words in (["--plan", "tiny", "base"], ["tiny", "--plan", "base"], ["--gpus=64", "tiny"]):
        with pytest.raises(ConfigError, match="a preset comes first"):
            parse(words)


def test_what_has_no_default_is_asked_for_by_its_short_name(capsys: pytest.CaptureFixture[str]) -> None:
    from domains.satellite.collection import SATELLITE as DOMAIN
    from domains.verbs.evaluate import verb

    with pytest.raises(
        ConfigError, match="expected --encoder, a run folder, its encoder folder, or the name of a published"
    ):
        cli.execute(verb(DOMAIN, "Score."), [])


def test_an_interrupted_run_says_how_it_goes_on_where_it_was_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: object, options: cli.Options) -> Path:
        options.out.mkdir(exist_ok=True)
        raise KeyboardInterrupt

    for resumable, saved, said in ((True, False, ""), (False, True, ""), (True, True, "Saved last: step_000004; ")):
        out = tmp_path / f"{resumable}{saved}"
        out.mkdir()
        if saved:
            (out / "last").write_text("step_000004\n")
        verb = cli.Verb(config=Pretrain, run=run, description="x", presets=PRESETS, resumable=resumable)
        with pytest.raises(SystemExit) as ended:
            cli.main(verb, ["tiny", "--out", str(out)])
        assert ended.value.code == 130
        err = capsys.readouterr().err
        assert err.startswith(f"interrupted. {said}" if said else "interrupted.\n")
        assert (f"--resume --out {out}" in err) == bool(said)
