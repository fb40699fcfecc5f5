"""One command line for every domain verb: a preset or a config file, any leaf overridden, one frozen config handed on.

    python -m domains.<domain>.<verb> [PRESET] [--data PATH ...] [--out DIR] [--config FILE] [--<leaf>=value ...]
                                      [--list] [--plan [--gpus N]] [--resume] [--overwrite] [--help]

A leaf is named by its dotted path; the frequent ones have short names too, written with hyphens as in `datasets.check`
(`--allow-outside`), or with underscores.

Exit codes: 0 done (the last line on standard output is the path of what was written), 2 the user's to mend (one sentence
on standard error), 75 asked to stop and saved (see `core.engine.stop`), 130 interrupted from the keyboard.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from core import config as tree
from core.cli.parse import Given, parse
from core.cli.show import help_text, leaves, list_text, recipes_text
from core.errors import ConfigError, HalfseenError, RunFolderError, nearest

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says beside the config.

    Attributes:
        out: folder or file to write.
        preset: name of the preset, if one was chosen.
        resume: continue what is in `out`.
        overwrite: replace what is in `out`.
    """

    out: Path
    preset: str | None = None
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Verb(Generic[T]):
    """One verb of a domain.

    Attributes:
        config: the frozen dataclass of its options.
        run: does the work and gives the path of what it wrote.
        description: for `--help`, usually the module's docstring.
        presets: functions that return a config, by name; their docstring's first line is their description.
        default_preset: the preset that is taken, and named on standard error, when neither preset nor config is given.
        default_out: where to write when nobody says; default `runs/<domain>-<preset or verb>`.
        aliases: short names of leaves, such as `data` for `data.paths`; `_` in them may be typed as `-`.
        resumable: whether `--resume` means something.
        plan: text for `--plan`; without one the option is refused.
        plan_gpus: text for `--plan --gpus N`; without one the option is refused.
        check: refuses before any work, given config and options; on rank 0 only.
        overwrites: what `--overwrite` does, for `--help`.
        parts: what `--list` tells beside the presets: heading and text.
    """

    config: type[T]
    run: Callable[[T, Options], Path]
    description: str
    presets: Mapping[str, Callable[[], T]] | None = None
    default_preset: str | None = None
    default_out: Callable[[T], Path] | None = None
    aliases: Mapping[str, str] | None = None
    resumable: bool = False
    plan: Callable[[T], str] | None = None
    plan_gpus: Callable[[T, int], str] | None = None
    check: Callable[[T, Options], None] | None = None
    overwrites: str = "replace files that are there already, each when the new one is whole; others stay."
    parts: Callable[[], str] | None = None


def main(verb: Verb[Any], argv: Sequence[str] | None = None) -> NoReturn:
    """Run a verb as a program: errors that are the user's to mend become one sentence and exit code 2."""
    from core.engine.stop import INTERRUPTED, Preempted, leave

    try:
        execute(verb, sys.argv[1:] if argv is None else list(argv))
    except HalfseenError as error:
        rank = os.environ.get("RANK", "0")
        print(("" if rank == "0" else f"[rank {rank}] ") + f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Preempted as stopped:
        if _is_main():
            print(f"{stopped}. Continue with:\n  {_resume_command(stopped.path)}", file=sys.stderr)
        leave(stopped.code)
    except KeyboardInterrupt as interrupted:
        if _is_main():
            print(f"interrupted.{_goes_on(verb, interrupted)}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    leave(0)


def pretrain_main(
    presets: Mapping[str, Callable[[], Any]],
    run: Callable[[Any, Options], Path],
    description: str,
    *,
    default_preset: str | None = None,
    count: Callable[[Any], Mapping[str, int]] | None = None,
    aliases: Mapping[str, str] | None = None,
    prepare: Callable[[Any], Any] | None = None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Run a domain's `pretrain` verb.

    Args:
        presets: functions returning `core.engine.config.Pretrain`, by name.
        run: trains and gives the run folder.
        description: for `--help`.
        default_preset: the preset to take when none is named.
        count: training images per stream, for the epochs that `--plan` prints.
        aliases: further short names of leaves, beside `data`, `group`, `options` and `allow_outside`.
        prepare: fits a config to its data before `--plan` tells of it, as `run` does for itself.
        argv: arguments; default the program's own.
    """
    from core.cli.plan import plan_text
    from core.engine.config import Pretrain
    from core.engine.run_folder import check

    def refuse(config: Pretrain, options: Options) -> None:
        config.data.check_reports(config.recipe)
        check(options.out, None, resume=options.resume, overwrite=options.overwrite)

    def plan(config: Pretrain, num_gpus: int | None = None) -> str:
        config.data.check_reports(config.recipe)
        config = prepare(config) if prepare else config
        return plan_text(config, count(config) if count else {}, num_gpus=num_gpus)

    verb = Verb(
        config=Pretrain,
        run=run,
        description=description,
        presets=presets,
        default_preset=default_preset,
        aliases={
            "data": "data.paths",
            **{name: f"data.{name}" for name in ("group", "options", "allow_outside")},
            **(aliases or {}),
        },
        resumable=True,
        plan=plan,
        plan_gpus=plan,
        check=refuse,
        overwrites="delete the run in --out first.",
        parts=recipes_text,
    )
    main(verb, argv)


def execute(verb: Verb[Any], argv: list[str]) -> None:
    """Do what the arguments say.

    Raises:
        HalfseenError: what is the user's to mend.
    """
    given = parse(argv)
    preset = _preset(verb, given)
    if "help" in given.flags:
        print(
            help_text(
                _program(),
                verb.description,
                verb.config,
                verb.presets,
                preset,
                _switches(verb),
                verb.aliases or {},
                verb.overwrites,
            )
        )
        return
    if "list" in given.flags:
        _only(given, "list")
        print("\n\n".join([list_text(verb.presets or {}), *([verb.parts()] if verb.parts else [])]))
        return
    if "plan" in given.flags:
        for name in ("out", "resume", "overwrite"):
            if name in given.flags or (name == "out" and given.out is not None):
                raise ConfigError(f"--{name} has no effect with --plan, which writes nothing: leave one of them out.")
    elif given.gpus is not None:
        raise ConfigError(
            "--gpus has no effect without --plan, which tells what a run would need on so many cards: add --plan, or start "
            "the run itself with torchrun --nproc-per-node."
        )
    if "resume" in given.flags and not verb.resumable:
        raise ConfigError("--resume has no effect here: this verb starts anew each time; leave it out.")

    config = _config(verb, given, preset)
    if "plan" in given.flags:
        if verb.plan is None:
            raise ConfigError("--plan has no effect here: this verb has nothing to plan; leave it out.")
        if given.gpus is not None and verb.plan_gpus is None:
            raise ConfigError("--gpus has no effect here: this verb plans for one process; leave it out.")
        print(verb.plan_gpus(config, given.gpus) if verb.plan_gpus and given.gpus else verb.plan(config))
        return
    options = Options(
        out=given.out or _default_out(verb, config, preset),
        preset=preset,
        resume="resume" in given.flags,
        overwrite="overwrite" in given.flags,
    )
    if verb.check is not None and _is_main():
        verb.check(config, options)
    try:
        written = verb.run(config, options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(options.out) from None
    if _is_main():
        print(written)


def _preset(verb: Verb[Any], given: Given) -> str | None:
    if given.preset is not None and given.preset not in (verb.presets or {}):
        if not verb.presets:
            raise ConfigError(f"expected options only, got '{given.preset}': this verb has no presets.")
        raise ConfigError(f"no preset is called '{given.preset}': {nearest(given.preset, verb.presets)}")
    if given.preset is not None or given.config is not None or {"help", "list", "resume"} & set(given.flags):
        return given.preset
    if verb.default_preset is not None and _is_main():
        print(f"no preset was named: taking '{verb.default_preset}' (--list describes all)", file=sys.stderr)
    return verb.default_preset


def _config(verb: Verb[Any], given: Given, preset: str | None) -> Any:
    base: dict[str, Any] | None = tree.to_dict(verb.presets[preset]()) if verb.presets and preset else None
    if given.config is not None:
        laid = tree.load(given.config)
        base = laid if base is None else tree.to_dict(tree.merge(verb.config, base, laid))
    elif base is None and "resume" in given.flags:
        if given.out is None:
            raise ConfigError("--resume needs to know which run: give --out, or the preset that it was started with.")
        if not (given.out / "config.yaml").is_file():
            raise RunFolderError(f"expected a run to continue in {given.out}, found none: leave --resume out.")
        base = tree.load(given.out / "config.yaml")
    if base is None and verb.presets:
        raise ConfigError(f"expected a preset ({', '.join(verb.presets)}) or --config FILE; --list describes them.")
    aliases = verb.aliases or {}
    placed: dict[str, object] = {}
    for name, value in given.leaves.items():
        leaf = aliases.get(name.replace("-", "_"), name)
        if leaf in placed:
            raise ConfigError(f"option '{leaf}' is given twice, once as --{name}: give it once.")
        placed[leaf] = value
    try:
        return tree.assemble(verb.config, base or {}, placed)
    except tree.AbsentError:
        if base or not (wanted := _required(verb, placed)):
            raise
        raise ConfigError(f"expected {wanted}.") from None


def _required(verb: Verb[Any], placed: Mapping[str, object]) -> str:
    """Name the options without a default that were not given, as they are typed, and say what each is."""
    short = {leaf: name.replace("_", "-") for name, leaf in (verb.aliases or {}).items()}
    absent = [leaf for leaf in leaves(verb.config, None) if leaf.value is None and leaf.path not in placed]
    return "; and ".join(f"--{short.get(leaf.path, leaf.path)}, {leaf.text.rstrip('.')}" for leaf in absent)


def _only(given: Given, flag: str) -> None:
    others = [f"--{name}" for name in (*given.flags, *given.leaves) if name != flag]
    others += ["--out"] * (given.out is not None) + ["--config"] * (given.config is not None)
    others += ["--gpus"] * (given.gpus is not None)
    if others or given.preset:
        raise ConfigError(f"{', '.join(others) or given.preset} has no effect with --{flag}: leave it out.")


def _switches(verb: Verb[Any]) -> list[str]:
    hidden = {
        "list": not verb.presets,
        "plan": verb.plan is None,
        "gpus": verb.plan_gpus is None,
        "resume": not verb.resumable,
    }
    return [name for name in ("out", "config", "list", "plan", "gpus", "resume") if not hidden.get(name)]


def _default_out(verb: Verb[Any], config: Any, preset: str | None) -> Path:
    if verb.default_out is not None:
        return verb.default_out(config)
    pieces = _program().split(".")
    domain = pieces[-2] if len(pieces) > 1 else pieces[-1]
    return Path("runs") / f"{domain}-{preset or pieces[-1]}"


def _program() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec is not None else Path(sys.argv[0]).stem


def _goes_on(verb: Verb[Any], interrupted: KeyboardInterrupt) -> str:
    """Say how an interrupted run goes on, where it was saved."""
    out = interrupted.args[0] if interrupted.args else None
    if not verb.resumable or out is None or not (out / "last").is_file():
        return ""
    last = (out / "last").read_text(encoding="utf-8").strip()
    return f" Saved last: {last}; what came after is lost. Continue with:\n  {_resume_command(out)}"


def _resume_command(out: Path) -> str:
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    start = "python" if ranks == "1" else f"torchrun --nproc-per-node={ranks}"
    return f"{start} -m {_program()} --resume --out {shlex.quote(str(out))}"


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"
