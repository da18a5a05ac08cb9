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
from pipeline.cli.search_options import search_options
from pipeline.cli.values import StudyName, format_seconds
from pipeline.records import COST_UNITS
from pipeline.text import one_line

WORST_SLICES = 3
WORST_CLASSES = 3
SHOWN_NAMES = 3
LONGEST = 40  # characters of a value of a table in a line


@click.command("search")
@click.argument("data", required=False)
@search_options
@data_options
@click.option(
    "--resume",
    is_flag=True,
    help="Continue a study with its own options: the one given by --name, else the newest of DATA, or of all.",
)
@click.option(
    "--fork",
    type=StudyName(),
    metavar="NEW",
    help="Begin study NEW from the one that --name or --resume means, with other options; valid trials are reused.",
)
@click.option("--dry-run", is_flag=True, help="Measure this machine for some seconds, print the plan and stop.")
@json_option
@verbosity_options
@click.pass_context
def command(context: click.Context, /, data: str | None, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Search the best CNN for labelled images.

    DATA is a built-in set (see `pipeline data list`), a folder with a sub-folder per class, a folder with
    train/ [val/] test/ of such folders, a .csv/.parquet/.jsonl table with the columns path,label[,split,group,weight],
    an .npz, .tar shards or idx files; docs/data.md shows each. What is not split is split: 20 % test, and 15 % of the
    rest to validate; near-duplicates and groups never straddle a split.

    Every trial goes to MLflow. The validation images choose the winner, which is trained again on train + validation,
    judged once on the test images, and registered with the alias "champion". Whatever stops the search, the same
    command with --resume goes on; docs/search.md explains oracles, rungs, budgets and limits.

    \b
    Examples:
      pipeline search digits --budget 3m
      pipeline search photos/ --budget 45m --max-latency-ms 5
      pipeline search photos/ --resume
    """
    from pipeline.cli.search_job import Search
    from pipeline.cli.search_plan import Call, make_plan

    sources = {key: context.get_parameter_source(key) for key in options}
    given = {key for key, source in sources.items() if source is ParameterSource.COMMANDLINE}
    call = Call(time.monotonic(), Path.cwd(), data, options, given)
    plan = make_plan(call)
    if dry_run:
        print_plan(Search(plan).estimate(), as_json)
        return
    search = Search(plan)
    with interruptions(lambda: f"every finished trial is kept; continue with: {plan.resume_command()}") as stop:
        facts = search.run(stop)
    print_end(facts, as_json)


def print_end(facts: dict[str, Any], as_json: bool) -> None:
    """Print what a search, or a promotion, ended with, and what to type next."""
    if as_json:
        result_json({"schema": SCHEMA, **facts})
    else:
        print_result(facts)
    next_steps(*what_next(facts))


def what_next(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what to type after a search."""
    model = facts["model_uri"]
    is_champion = model.startswith("models:") and not facts.get("flaw")
    score = f"pipeline score {'champion' if is_champion else quoted(model)} FOLDER -o scores/"
    steps = [("mlflow ui", "review every trial in the browser"), (f"pipeline runs {facts['study']}", "the leaderboard")]
    if not model.startswith("models:"):
        steps.append((f"pipeline sync {facts['study']}", "register the model when MLflow answers"))
    if facts.get("front"):
        steps.append((f"pipeline promote {facts['study']} --pick TRIAL", "take another trial of the front"))
    return [*steps, (score, "label images")]


def print_plan(plan: dict[str, Any], as_json: bool) -> None:
    """Print what a search would do."""
    if as_json:
        result_json({"schema": SCHEMA, **plan})
    else:
        images, classes, default, pixels = plan["images"], plan["classes"], plan["default"], plan["image"]
        several = " (any number of them an image)" if plan["is_multi_label"] else ""
        size = "infinite (a continuous range)" if plan["space_size"] is None else f"{plan['space_size']:,.0f}"
        network = f"default network: {default['num_params']:,} params, {default['mflops']:,} MFLOPs"
        rungs = ", ".join(
            f"{epochs:g} ({seconds:.0f} s)"
            for epochs, seconds in zip(plan["epochs"], plan["trial_seconds"], strict=True)
        )
        cost = f", against {plan['minimise']}" if plan["minimise"] else ""
        print_facts(
            {
                "data": plan["source"],
                "images": f"{sum(images.values()):,}: " + ", ".join(f"{n:,} {split}" for split, n in images.items()),
                "classes": f"{len(classes)}{several}: {', '.join(classes[:12])}{', ...' if len(classes) > 12 else ''}",
                "pixels": f"{pixels['height']} x {pixels['width']} x {pixels['channels']}, {pixels['dtype']}",
                "space": f"{plan['space']}: {', '.join(plan['params'])}",
                "configurations": size,
                "objective": f"{plan['objective']}{cost}",
                "oracle": f"{plan['oracle']}, seed {plan['seed']}",
                "budget": format_seconds(plan["budget_seconds"]) if plan["budget_seconds"] else "no time limit",
                "processes": f"{plan['workers']} of {plan['threads']} thread(s)",
                "trials": f"about {plan['trials']}, the best go on; epochs of each rung: {rungs}; {network}",
                "whole job": f"about {format_seconds(plan['seconds'])}",
            }
        )
    next_steps((plan["command"], "run it"))


def print_result(facts: dict[str, Any]) -> None:
    """Print what was found, in a few lines."""
    from pipeline.search.verdict import gain_text

    best, test, trials = facts["winner"], facts["test"], facts["trials"]
    low, high = test["ci95"]
    others = "".join(f", {count} {name}" for name, count in trials.items() if count and name != "completed")
    whole = "all labels of an image right; " if facts.get("is_multi_label") else ""
    interval = f"{whole}95 % interval {low:.2%} to {high:.2%}, {test['num_images']:,} images, {opened(facts)}"
    cost = f"{best['num_params']:,} params, {best['mflops']:,} MFLOPs"
    if dense := best.get("dense_params"):
        cost += f"; fully connected it had {dense / best['num_params']:,.0f} times the params"
    if best["epochs"] < (planned := facts.get("planned_epochs", 0)):
        cost += f"; CUT OFF after {best['epochs']} of {planned} epochs: its time was over"
    leaked = test.get("leaked")
    print_facts(
        {
            "test accuracy": f"{test['accuracy']:.2%}  ({interval})",
            **({"with leaks": inflated(test)} if leaked else {}),
            **not_finite_line(test),
            **other_figures(test),
            **worst_classes_line(facts.get("by_class") or {}),
            **({"against default": gain_text(facts["search_gain"])} if "search_gain" in facts else {}),
            **averaging_line(facts),
            **distillation_line(facts),
            **ensemble_line(facts),
            **probabilities_line(facts.get("temperature")),
            **robustness_line(facts.get("robustness")),
            **latency_line(facts.get("latency")),
            **slice_lines(facts.get("slices") or {}),
            **({"NOT A CHAMPION": facts["flaw"]} if facts.get("flaw") else {}),
            "winner": f"{answering(facts)}: {facts['objective']} {chosen_by(facts)}, {cost}",
            "network": ", ".join(f"{name} {format_value(value)}" for name, value in best["params"].items()),
            **({"front": front_line(facts["front"])} if facts.get("front") else {}),
            "trials": f"{trials['completed']} completed{others}",
            "model": facts["model_uri"],
            "study": f"{facts['study']}, {format_seconds(facts['seconds'])}",
        }
    )


def not_finite_line(test: dict[str, Any]) -> dict[str, str]:
    """Return which test images do not count, since the network gives NaN or infinity for them, in one line."""
    found = test.get("not_finite")
    if found is None:
        return {}
    here = f"{Path.cwd()}/"
    names = [one_line(name.removeprefix(here), LONGEST) for name in found["images"][:SHOWN_NAMES]]
    more = ", ..." if found["num_images"] > len(names) else ""
    return {
        "NOT COUNTED": f"{found['num_images']:,} test image(s) for which the network gives NaN or infinity; "
        f"check the values of their pixels: {', '.join(names)}{more}"
    }


def answering(facts: dict[str, Any]) -> str:
    """Return the trial that won, and how many networks like it answer together if several do."""
    from pipeline.records import num_networks

    number = num_networks(facts)
    return f"trial {facts['winner']['trial']}" + (f", {number} networks" if number > 1 else "")


def other_figures(test: dict[str, Any]) -> dict[str, str]:
    """Return the other figures of the test with their 95 % intervals, in one line."""
    figures = {name.replace("_", " "): each for name, each in test.get("metrics", {}).items()}
    texts = (f"{name} {figure_text(each)}" for name, each in figures.items())
    return {"also": ", ".join(texts)} if figures else {}


def figure_text(figure: dict[str, Any]) -> str:
    """Return a figure with its 95 % interval for reading, or why it has none."""
    if figure["value"] is None:
        return str(figure["reason"])
    return f"{figure['value']:.4f} ({interval_text(figure)})"


def interval_text(figure: dict[str, Any]) -> str:
    """Return the 95 % interval of a figure for reading, or why there is none."""
    if figure["ci95"] is None:
        return f"no interval: {figure['reason']}"
    low, high = figure["ci95"]
    return f"{low:.4f} to {high:.4f}"


def worst_classes_line(by_class: dict[str, Any]) -> dict[str, str]:
    """Return the labels that are told worst, in one line; nothing where an image has one label only."""
    known = {name: each for name, each in by_class.items() if each["auc"] is not None}
    worst = sorted(known, key=lambda name: known[name]["auc"])[:WORST_CLASSES]
    texts = [f"{one_line(name, LONGEST)} {class_text(known[name])}" for name in worst]
    rest = f"; {len(by_class) - len(worst)} more in model.json" if len(by_class) > len(worst) else ""
    return {"worst labels": ", ".join(texts) + rest} if texts else {}


def class_text(figures: dict[str, Any]) -> str:
    """Return the figures of one label for reading."""
    interval = interval_text(figures) if figures["ci95"] else "too few images for an interval"
    precision = "never answered" if figures["precision"] is None else f"precision {figures['precision']:.0%}"
    return (
        f"AUC {figures['auc']:.4f} ({interval}; {precision}, recall {figures['recall']:.0%} of "
        f"{figures['num_images']:,})"
    )


def chosen_by(facts: dict[str, Any]) -> str:
    """Return the score by which the winner was chosen, with its interval where the logits were kept."""
    score = facts["winner"][facts["objective"]]
    if not facts.get("validation"):
        return f"{score:.4f}"
    return f"{score:.4f} ({interval_text(facts['validation'])}, chosen by it)"


def averaging_line(facts: dict[str, Any]) -> dict[str, str]:
    """Return what became of flip averaging, in one line; nothing if nobody asked for it."""
    from pipeline.search.flip_average import average_text

    average = facts.get("flip_average")
    return {} if average is None else {"flip averaging": average_text(average, facts["objective"])}


def distillation_line(facts: dict[str, Any]) -> dict[str, str]:
    """Return what became of distillation, in one line; nothing if nobody asked for it."""
    from pipeline.search.distillation import distillation_text

    found = facts.get("distillation")
    return {} if found is None else {"distillation": distillation_text(found, facts["objective"])}


def ensemble_line(facts: dict[str, Any]) -> dict[str, str]:
    """Return what became of an ensemble, in one line; nothing if nobody asked for it."""
    from pipeline.search.ensemble import ensemble_text

    found = facts.get("ensemble")
    return {} if found is None else {"ensemble": ensemble_text(found, facts["objective"])}


def probabilities_line(temperature: dict[str, Any] | None) -> dict[str, str]:
    """Return what is done to the probabilities and how far they are off; nothing for a model of an earlier version."""
    if temperature is None:
        return {}
    test, bins = temperature["test"], f"{temperature['num_bins']} bins of equal mass"
    if temperature["reason"]:
        text = f"calibration error {test['ece_before']:.4f} ({bins}); no temperature: {temperature['reason']}"
    else:
        text = (
            f"temperature {temperature['value']:.3f}: calibration error {test['ece_before']:.4f} before, "
            f"{test['ece_after']:.4f} after ({bins})"
        )
    return {"probabilities": text}


def robustness_line(robustness: dict[str, Any] | None) -> dict[str, str]:
    """Return the accuracy on changed test images, in one line; nothing for a model of an earlier version."""
    if robustness is None:
        return {}
    shifts = ", ".join(f"{pixels} px {value:.1%}" for pixels, value in robustness["shifts"].items())
    changes = ", ".join(f"{name} {value:.1%}" for name, value in robustness["changes"].items())
    moved = f"; moved by {shifts}" if shifts else ""
    count = f"{robustness['num_images']:,} test images"
    return {"robustness": f"{robustness['accuracy']:.1%} of {count} as they are{moved}; {changes}"}


def latency_line(latency: dict[str, Any] | None) -> dict[str, str]:
    """Return how long the model takes for one image, in one line; nothing for a model of an earlier version."""
    if latency is None:
        return {}
    one_core = "" if latency["one_core_ms"] is None else f"; on one core {latency['one_core_ms']:.2f} ms"
    return {"latency": f"{latency['default_ms']:.2f} ms for one image with the threads of this machine{one_core}"}


def slice_lines(slices: dict[str, Any]) -> dict[str, str]:
    """Return the worst values of each further column of the table, a line a column."""
    lines = {}
    for name, figures in slices.items():
        worst = list(figures.items())[:WORST_SLICES]
        texts = (
            f"{one_line(value, LONGEST)} {each['accuracy']:.1%} ({each['ci95'][0]:.1%} to {each['ci95'][1]:.1%}, "
            f"{each['num_images']:,} images)"
            for value, each in worst
        )
        rest = f"; {len(figures) - len(worst)} more in model.json" if len(figures) > len(worst) else ""
        lines[f"by {one_line(name, LONGEST)}"] = ", ".join(texts) + rest
    return lines


def opened(facts: dict[str, Any]) -> str:
    """Return how often the test images were looked at in this workspace: the more often, the less they are worth."""
    count = facts["test_opened"]
    return "opened once" if count == 1 else f"opened {count} times"


def front_line(front: list[dict[str, Any]]) -> str:
    """Return the front of two objectives in one line, the cheapest trial first."""
    score, cost = [name for name in front[0] if name != "trial"]
    form, unit = ",d" if cost == "params" else ",.3f", COST_UNITS[cost]
    return "; ".join(f"trial {row['trial']}: {row[score]:.4f} at {row[cost]:{form}} {unit}" for row in front)


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
