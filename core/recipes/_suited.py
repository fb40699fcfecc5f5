"""What a recipe asks of its target and its predictor when it is built, so that no run finds out at its first step."""

from __future__ import annotations

from core import registry
from core.contract import Contract
from core.errors import ConfigError
from core.predictors.base import PredictorSpec
from core.predictors.layer_fusion import LayerFusionSpec
from core.predictors.per_level import PerLevelSpec
from core.targets.base import Target
from core.targets.indices import Indices
from core.teachers.base import TeacherSpec
from core.teachers.random_start import RandomStart


def suited(target: Target, recipe: str, contract: Contract, *, detail: int = 1, codes: bool = False) -> Target:
    """Give the target as a recipe uses it, with what brings back the radiances of indices, or refuse it.

    Args:
        target: as it was chosen.
        recipe: its name.
        contract: the encoder's inputs.
        detail: how many times the size of the encoder's input the recipe's crops have.
        codes: whether the recipe can score codes.

    Raises:
        ConfigError: the target gives codes to a recipe that compares numbers, or wants crops of another detail.
    """
    name = registry.name_of(target)
    if target.is_code and not codes:
        raise ConfigError(
            f"recipe '{recipe}' compares numbers, and target '{name}' gives codes, which are no quantities: choose another "
            "target, or a recipe that scores codes, such as 'mae' or 'maskfeat'."
        )
    if target.detail != detail:
        raise ConfigError(
            f"recipe '{recipe}' loads crops at {detail} times the encoder's size, and target '{name}' is of a detail of "
            f"{target.detail}: choose another target, or recipe 'mrm', which loads finer crops."
        )
    return target.undoing(contract) if isinstance(target, Indices) else target


def predicts_hidden(predictor: PredictorSpec, recipe: str) -> PredictorSpec:
    """Give the predictor back, or refuse one that says nothing of tokens that the encoder left out.

    Raises:
        ConfigError: it would predict 0 at every hidden token, and train nothing.
    """
    if predictor.reads_hidden:
        raise ConfigError(
            f"recipe '{recipe}' leaves hidden tokens out and predictor '{registry.name_of(predictor)}' predicts only seen "
            "tokens; choose 'transformer', or a recipe with a mask token such as 'simmim'."
        )
    return on_plan(predictor, recipe)


def on_plan(predictor: PredictorSpec, recipe: str, stage: int = 0) -> PredictorSpec:
    """Give the predictor back, or refuse one whose predictions lie on a grid other than the plan's, or say nothing.

    Args:
        predictor: as it was chosen.
        recipe: its name.
        stage: level of the encoder after which a mask token stands at hidden places.

    Raises:
        ConfigError: it predicts at another scale, or each token from the mask token alone.
    """
    level = _only_level(predictor)
    if predictor.reads_hidden and level is not None and level <= stage:
        raise ConfigError(
            f"recipe '{recipe}' puts its mask token after level {stage}, and predictor '{registry.name_of(predictor)}' reads "
            f"level {level}, where hidden tokens are all alike: choose a later level, or the predictor 'transformer'."
        )
    if predictor.scale != 1:
        raise ConfigError(
            f"recipe '{recipe}' compares predictions token by token, got predictor '{registry.name_of(predictor)}' at "
            f"{predictor.scale:g} times the tokens: choose the scale 1, or recipe 'localmim', which has a target per scale."
        )
    return predictor


def _only_level(predictor: PredictorSpec) -> int | None:
    """Name the one level that a predictor reads in place of the last; None where it reads the last."""
    while isinstance(predictor, LayerFusionSpec):
        predictor = predictor.inner
    return predictor.level if isinstance(predictor, PerLevelSpec) else None


def stays(teacher: TeacherSpec, recipe: str) -> None:
    """Refuse a teacher that gives the student fresh weights, for a recipe whose own layers would be left as they are.

    Raises:
        ConfigError: the teacher restarts the student.
    """
    if isinstance(teacher, RandomStart):
        raise ConfigError(
            f"recipe '{recipe}' has layers of its own that a restart of the student would not renew, got teacher "
            "'random_start': choose recipe 'dbot', or another teacher."
        )
