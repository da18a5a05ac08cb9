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
        "cnn, or gpu with a GPU and 10,000 images or more of at most 64 pixels a side]",
    ),
    click.option(
        "--oracle", type=click.Choice(_ORACLES), default="asha", show_default=True, help="Who proposes configurations."
    ),
    click.option("--trials", type=click.IntRange(1), metavar="N", help="Try at most N configurations."),
    click.option(
        "--epochs",
        type=click.IntRange(1),
        metavar="N",
        help="Passes over the images in a full training. [default: what the budget allows]",
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
        help="Stop searching when a trial reaches this, such as val_accuracy=0.95.",
    ),
    click.option(
        "--objective",
        type=click.Choice(tuple(OBJECTIVES)),
        help="What trials are ranked by. [default: val_accuracy, val_balanced_accuracy for unbalanced classes, val_auc "
        "for several labels an image]",
    ),
    click.option(
        "--minimise",
        type=click.Choice(list(COST_UNITS)),
        help="A cost as second objective: the search keeps the front of both, and its knee wins.",
    ),
    click.option("--max-params", type=click.IntRange(1), metavar="N", help="Weights of a network at most."),
    click.option(
        "--max-mflops",
        type=click.FloatRange(0, min_open=True),
        metavar="N",
        help="Million operations for one image at most.",
    ),
    click.option(
        "--max-size-mb", type=click.FloatRange(0, min_open=True), metavar="N", help="Megabytes of the weights at most."
    ),
    click.option(
        "--max-latency-ms",
        type=click.FloatRange(0, min_open=True),
        metavar="N",
        help="Milliseconds for one image at most, measured on one core of this machine.",
    ),
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of proposals and trainings."
    ),
    click.option("--deterministic", is_flag=True, help="The same weights from the same seed, to the last bit; slower."),
    click.option(
        "--augment",
        type=AugmentPolicy(),
        metavar="auto|none|light|standard|strong|FILE",
        default="auto",
        show_default=True,
        help="What training does to images; auto varies it and flips only where that keeps the class; FILE is YAML "
        "(docs/recipe.md).",
    ),
    click.option(
        "--balance",
        type=click.Choice(_BALANCES),
        default="auto",
        show_default=True,
        help="logits: rare classes count as much as common ones in training; auto: where the objective is the balanced "
        "accuracy.",
    ),
    click.option(
        "--average-flips",
        is_flag=True,
        help="Label each image by the mean for it and its mirror image, if that is better on the validation images; "
        "scoring takes twice as long.",
    ),
    click.option(
        "--distill",
        is_flag=True,
        help="With --minimise: the winner also learns what the best trial says of the images, if that is better on the "
        "validation images.",
    ),
    click.option(
        "--ensemble",
        is_flag=True,
        help="Label each image by the mean of two or three networks like the winner's, if that is better on the "
        "validation images: for small sets; scoring takes two or three times as long.",
    ),
    click.option(
        "--precision",
        type=click.Choice(_PRECISIONS),
        default="auto",
        show_default=True,
        help="How trainings compute; auto is bfloat16 where that is faster here and goes like float32.",
    ),
    click.option(
        "--name",
        type=StudyName(),
        metavar="STUDY",
        help="Name of the study; one that exists is continued. [default: DATA-1, DATA-2, ...]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1, 64),
        metavar="N",
        help="Processes that train at once; they share the cores. [default: one a core up to 4, or one a GPU]",
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
        "--allow-leak", is_flag=True, help="Search though the given split leaks; the score is shown without leaks."
    ),
)


def search_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
