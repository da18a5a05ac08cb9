"""The options of `pipeline search` besides those on data: what to look for, within which limits, and who trains."""

from collections.abc import Callable
from typing import Any

import click

from pipeline.cli.options.types import AugmentPolicy, Duration, Goal, PerGpu, StudyName
from pipeline.records import COST_UNITS, OBJECTIVES

_ORACLES = ("asha", "tpe", "random", "bayesian", "grid")
_BALANCES = ("auto", "none", "logits")
_PRECISIONS = ("auto", "float32", "bfloat16")

OPTIONS = (
    click.option(
        "--space",
        metavar="NAME|FILE",
        help="Search space: a built-in name, a YAML file, or your own code as FILE.py:NAME (docs/spaces.md). [default: "
        "cnn; or gpu, with a GPU and at least 10,000 images of at most 64 pixels a side]",
    ),
    click.option(
        "--oracle",
        type=click.Choice(_ORACLES),
        default="asha",
        show_default=True,
        help="Algorithm that proposes configurations.",
    ),
    click.option("--trials", type=click.IntRange(1), metavar="N", help="Try at most N configurations."),
    click.option(
        "--epochs",
        type=click.IntRange(1),
        metavar="N",
        help="Epochs of a full training. [default: as many as the budget allows]",
    ),
    click.option(
        "--budget",
        type=Duration(),
        metavar="TIME",
        help="Time for the whole job, such as 45m. [default: 15m, or none with --trials or --epochs]",
    ),
    click.option(
        "--until",
        type=Goal(),
        metavar="METRIC=VALUE",
        help="Stop searching when a trial reaches this value, such as val_accuracy=0.95.",
    ),
    click.option(
        "--objective",
        type=click.Choice(tuple(OBJECTIVES)),
        help="Metric that ranks the trials. [default: val_accuracy; val_balanced_accuracy for unbalanced classes; "
        "val_auc if images have several labels]",
    ),
    click.option(
        "--minimise",
        type=click.Choice(list(COST_UNITS)),
        help="Second objective, a cost to keep low. The winner is the knee of the Pareto front.",
    ),
    click.option("--max-params", type=click.IntRange(1), metavar="N", help="Allow networks of at most N weights."),
    click.option(
        "--max-mflops",
        type=click.FloatRange(0, min_open=True),
        metavar="N",
        help="Allow at most N million operations per image.",
    ),
    click.option(
        "--max-size-mb",
        type=click.FloatRange(0, min_open=True),
        metavar="N",
        help="Allow at most N megabytes of weights.",
    ),
    click.option(
        "--max-latency-ms",
        type=click.FloatRange(0, min_open=True),
        metavar="N",
        help="Allow at most N milliseconds per image, measured on one core of this machine.",
    ),
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the proposals and the trainings."
    ),
    click.option("--deterministic", is_flag=True, help="Get bit-identical weights from the same seed; slower."),
    click.option(
        "--augment",
        type=AugmentPolicy(),
        metavar="auto|none|light|standard|strong|FILE",
        default="auto",
        show_default=True,
        help="How training augments images. auto searches over policies, and flips images only if that preserves the "
        "class. FILE is YAML (docs/recipe.md).",
    ),
    click.option(
        "--balance",
        type=click.Choice(_BALANCES),
        default="auto",
        show_default=True,
        help="logits gives rare classes as much weight as common ones in training; auto does so if the objective is "
        "balanced accuracy.",
    ),
    click.option(
        "--average-flips",
        is_flag=True,
        help="Average the predictions for each image and its mirror image, if that is better on the validation images; "
        "scoring takes twice as long.",
    ),
    click.option(
        "--distill",
        is_flag=True,
        help="With --minimise: train the winner on the predictions of the best trial too, if that is better on the "
        "validation images.",
    ),
    click.option(
        "--ensemble",
        is_flag=True,
        help="Average the predictions of two or three networks like the winner's, if that is better on the validation "
        "images. Meant for small sets; scoring takes two or three times as long.",
    ),
    click.option(
        "--precision",
        type=click.Choice(_PRECISIONS),
        default="auto",
        show_default=True,
        help="Number format of the trainings; auto is bfloat16 where that is faster here and trains like float32.",
    ),
    click.option(
        "--name",
        type=StudyName(),
        metavar="STUDY",
        help="Name of the study; an existing one is continued. [default: DATA-1, DATA-2, ...]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1, 64),
        metavar="N",
        help="Processes that train at once and share the cores. [default: one per core, at most 4; or one per GPU]",
    ),
    click.option(
        "--trials-per-gpu",
        type=PerGpu(),
        metavar="auto|N",
        help="Processes that share a GPU, at most 32; auto: as many as fit, up to 4. [default: 1]",
    ),
    click.option(
        "--folds",
        type=click.IntRange(2, 20),
        metavar="K",
        help="Validate by K-fold cross-validation, for small sets; a trial takes about K times longer.",
    ),
    click.option(
        "--allow-leak",
        is_flag=True,
        help="Search even though the given split leaks; the score is computed without the leaks.",
    ),
)


def search_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
