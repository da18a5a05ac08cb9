"""`pipeline search`: find, train, test and register the best CNN for labelled images."""

import time
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pipeline.cli.data_options import data_options
from pipeline.cli.interruptions import interruptions
from pipeline.cli.output import (
    SCHEMA,
    json_option,
    next_steps,
    quoted,
    result,
    result_json,
    verbosity_options,
)
from pipeline.cli.values import Duration, StudyName, format_seconds

ORACLES = ("random", "bayesian", "grid")


@click.command("search")
@click.argument("data")
@click.option(
    "--space",
    default="cnn",
    show_default=True,
    metavar="NAME|FILE",
    help="Search space: a built-in name or a YAML file.",
)
@click.option(
    "--oracle",
    type=click.Choice(ORACLES),
    default="random",
    show_default=True,
    help="Who proposes configurations.",
)
@click.option("--trials", type=click.IntRange(1), metavar="N", help="Try at most N configurations.")
@click.option(
    "--budget",
    type=Duration(),
    metavar="TIME",
    help="Time for the whole job, such as 45m. [default: 15m, or none with --trials]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of proposals and trainings.")
@click.option("--name", type=StudyName(), metavar="STUDY", help="Name of the study. [default: DATA-1, DATA-2, ...]")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that train at once; they share the cores.",
)
@click.option(
    "--folds",
    type=click.IntRange(2, 20),
    metavar="K",
    help="Validate by K-fold cross-validation, for small sets; a trial takes about K times longer.",
)
@click.option(
    "--allow-leak", is_flag=True, help="Search though the given split leaks; the score is shown without leaks."
)
@data_options
@click.option(
    "--resume",
    is_flag=True,
    help="Continue a study with its own options: the one given by --name, else the newest DATA-N.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@json_option
@verbosity_options
@click.pass_context
def command(
    context: click.Context, /, data: str, name: str | None, resume: bool, dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Search the best CNN for labelled images.

    DATA is a built-in set (see `pipeline data list`), a folder with a sub-folder per class, a folder with
    train/ [val/] test/ of such folders, a .csv/.parquet/.jsonl table with the columns path,label[,split,group,weight],
    an .npz, .tar shards or idx files; docs/data.md shows each. What is not split is split: 20 % test, and 15 % of the
    rest to validate; near-duplicates and groups never straddle a split.

    Every trial goes to MLflow. The validation images choose the winner, which is trained again on train + validation,
    judged once on the test images, and registered with the alias "champion".

    \b
    Examples:
      pipeline search digits --budget 3m
      pipeline search photos/ --budget 45m --seed 1
      pipeline search photos/ --resume
    """
    from pipeline.cli.search_job import Search

    sources = {key: context.get_parameter_source(key) for key in options}
    given = {key for key, source in sources.items() if source is ParameterSource.COMMANDLINE}
    search = Search(time.monotonic(), Path.cwd(), data, name, resume, options, given)
    search.plan()
    if dry_run:
        print_plan(search.describe_plan(), as_json)
        return
    with interruptions(lambda: f"every finished trial is kept; continue with: {search.resume_command()}"):
        facts = search.run()
    if as_json:
        result_json({"schema": SCHEMA, **facts})
    else:
        print_result(facts)
    model = facts["model_uri"]
    next_steps(
        ("mlflow ui", "review every trial in the browser"),
        (f"pipeline runs {facts['study']}", "the leaderboard"),
        (
            f"pipeline score {'champion' if model.startswith('models:') else quoted(model)} FOLDER -o scores/",
            "label images",
        ),
    )


def print_plan(plan: dict[str, Any], as_json: bool) -> None:
    """Print what a search would do."""
    if as_json:
        result_json({"schema": SCHEMA, **plan})
    else:
        images, classes, default, pixels = plan["images"], plan["classes"], plan["default"], plan["image"]
        size = "infinite (a continuous range)" if plan["space_size"] is None else f"{plan['space_size']:,.0f}"
        trials = f"about {plan['trials']}" if plan["budget_seconds"] else f"{plan['trials']}"
        network = f"default network: {default['num_params']:,} params, {default['mflops']:,} MFLOPs"
        print_facts(
            {
                "data": plan["source"],
                "images": f"{sum(images.values()):,}: " + ", ".join(f"{n:,} {split}" for split, n in images.items()),
                "classes": f"{len(classes)}: {', '.join(classes[:12])}{', ...' if len(classes) > 12 else ''}",
                "pixels": f"{pixels['height']} x {pixels['width']} x {pixels['channels']}, {pixels['dtype']}",
                "space": f"{plan['space']}: {', '.join(plan['params'])}",
                "configurations": size,
                "oracle": f"{plan['oracle']}, seed {plan['seed']}",
                "budget": format_seconds(plan["budget_seconds"]) if plan["budget_seconds"] else "no time limit",
                "trials": f"{trials}, {plan['epochs']} epoch(s) each; then the best train longer",
                "seconds a trial": f"about {plan['trial_seconds']:.0f} ({network})",
            }
        )
    next_steps((plan["command"], "run it"))


def print_result(facts: dict[str, Any]) -> None:
    """Print what was found, in a few lines."""
    best, test, trials = facts["winner"], facts["test"], facts["trials"]
    low, high = test["ci95"]
    others = "".join(f", {count} {name}" for name, count in trials.items() if count and name != "completed")
    interval = f"95 % interval {low:.2%} to {high:.2%}, {test['num_images']:,} images, opened once"
    cost = f"{best['num_params']:,} params, {best['mflops']:,} MFLOPs"
    leaked = test.get("leaked")
    print_facts(
        {
            "test accuracy": f"{test['accuracy']:.2%}  ({interval})",
            **({"with leaks": inflated(test)} if leaked else {}),
            "winner": f"trial {best['trial']}: validation accuracy {best['val_accuracy']:.2%}, {cost}",
            "network": ", ".join(f"{name} {format_value(value)}" for name, value in best["params"].items()),
            "trials": f"{trials['completed']} completed{others}",
            "model": facts["model_uri"],
            "study": f"{facts['study']}, {format_seconds(facts['seconds'])}",
        }
    )


def inflated(test: dict[str, Any]) -> str:
    """Return the score that the leaking test images would have made, beside what they are."""
    leaked = test["leaked"]
    return (
        f"{leaked['accuracy_with']:.2%}  (if {leaked['num_images']:,} test images counted that have a copy in train or "
        "val; do not quote this one)"
    )


def print_facts(facts: dict[str, str]) -> None:
    """Print names and values in two columns."""
    width = max(map(len, facts))
    result("\n".join(f"{name:<{width}}  {text}" for name, text in facts.items()))


def format_value(value: object) -> str:
    """Return a hyperparameter's value as text; floats with two digits."""
    return f"{value:.2g}" if isinstance(value, float) else str(value)
