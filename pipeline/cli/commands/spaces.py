"""`pipeline spaces`: list, show, check and copy search spaces."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pipeline.cli.options.types import ImageShape
from pipeline.cli.terminal.output import (
    SCHEMA,
    json_option,
    next_steps,
    quoted,
    result,
    result_json,
    say,
    table,
    verbosity_options,
)
from pipeline.errors import SpaceError
from pipeline.search.spaces.loader import open_space
from pipeline.space import Param, SearchSpace, is_active
from pipeline.workflows import spaces as workflow


@click.group(name="spaces")
def command() -> None:
    """List, show, copy and check search spaces: which networks and recipes a search may try.

    A space is a YAML file. Some are installed and known by name; any other is given by its path. Your own Python code,
    given as FILE.py:NAME, is a space too; docs/spaces.md says what it must look like.

    \b
    Example:
      pipeline spaces list
      pipeline spaces show cnn
      pipeline spaces init my.yaml --from cnn
      pipeline spaces check my.yaml
    """


@command.command(name="list")
@json_option
@verbosity_options
def list_command(as_json: bool) -> None:
    """List the installed spaces.

    With --json, a size of null means that the space is infinite.

    \b
    Example:
      pipeline spaces list
    """
    spaces = workflow.list_spaces()
    if as_json:
        rows = [workflow.summary(space).to_json() for space in spaces]
        return result_json({"schema": SCHEMA, "spaces": rows})
    cells = [[space.name, str(len(space.names())), _size(space), space.description] for space in spaces]
    result(table(["name", "params", "size", "description"], cells))
    return next_steps((f"pipeline spaces show {spaces[0].name}", "show what it varies"))


@command.command(name="show")
@click.argument("space", metavar="NAME|FILE")
@click.option(
    "--image",
    "image_shape",
    type=ImageShape(),
    default="32x32x3",
    show_default=True,
    metavar="HxWxC",
    help="Image size for which to show the smallest and the largest network.",
)
@click.option(
    "--classes",
    "num_classes",
    type=click.IntRange(2),
    default=10,
    show_default=True,
    help="Number of classes for the same.",
)
@json_option
@verbosity_options
def show_command(space: str, image_shape: tuple[int, int, int], num_classes: int, as_json: bool) -> None:
    """Show a space: ranges, defaults, conditions, portfolio, and its smallest and largest network.

    The portfolio holds the configurations that a search begins with, shown by how they differ from the defaults.

    NAME is an installed space, FILE a path that ends in .yaml or .yml, or FILE.py:NAME code of your own.

    \b
    Example:
      pipeline spaces show cnn
      pipeline spaces show ./my.yaml --json
    """
    loaded = open_space(space)
    networks = workflow.extreme_networks(loaded, image_shape, num_classes)
    if as_json:
        costs = {name: network.to_json() for name, network in networks.items()} if networks else None
        facts = {"schema": SCHEMA, "source": loaded.source, "size": workflow.summary(loaded).size, "networks": costs}
        return result_json(loaded.to_json() | facts)
    _print_params(loaded)
    shape = " x ".join(map(str, image_shape))
    _print_networks(loaded, networks, f"for {shape}, {num_classes} classes")
    option = f"--space {quoted(space)}"
    if loaded.backbones():
        return next_steps((f"pipeline search FOLDER {option} --image-size 96", "search it on your images"))
    return next_steps((f"pipeline search digits {option}", "search it on the built-in digits"))


@command.command(name="init")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "name", default="cnn", show_default=True, metavar="NAME", help="The installed space to copy.")
@verbosity_options
def init_command(file: Path, name: str) -> None:
    """Write an installed space, with its comments, to FILE, for you to edit.

    FILE must end in .yaml or .yml. An existing file is not overwritten.

    \b
    Example:
      pipeline spaces init my.yaml
      pipeline spaces init small.yaml --from tiny
    """
    workflow.copy_space(name, file)
    result(str(file))
    path = quoted(str(file))
    next_steps(
        (f"pipeline spaces check {path}", "check it after your changes"),
        (f"pipeline search DATA --space {path}", "search it"),
    )


@command.command(name="check")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@json_option
@verbosity_options
@click.pass_context
def check_command(context: click.Context, files: tuple[str, ...], as_json: bool) -> None:
    """Check spaces: one line for each, and exit code 2 if one of them cannot be used.

    Code of your own (FILE.py:NAME) is run for images of 64 x 64 pixels in 3 channels and 10 classes.

    \b
    Example:
      pipeline spaces check my.yaml other.yaml
    """
    rows = [workflow.check_space(file) for file in files]
    if as_json:
        result_json({"schema": SCHEMA, "files": [asdict(row) for row in rows]})
    for row in [] if as_json else rows:
        if row.error is None:
            result(f"{row.file}: ok, {row.params} hyperparameters")
        else:
            say(row.error, level=-1)
    refused = [quoted(row.file) for row in rows if not row.ok]
    if refused:
        next_steps((f"pipeline spaces check {' '.join(refused)}", "check again after the correction"))
        context.exit(SpaceError.exit_code)
    next_steps((f"pipeline spaces show {quoted(files[0])}", "show what it varies"))


def _print_params(space: SearchSpace) -> None:
    result(f"{space.name}: {space.description}\n" if space.description else f"{space.name}\n")
    rows = [[p.name, p.kind, _range(p), _value(p.default), _condition(p)] for p in space.params]
    result(table(["parameter", "kind", "range", "default", "condition"], rows))
    if left_out := workflow.fixed_params(space):
        result(f"\nNot varied: {', '.join(f'{name} {_value(value)}' for name, value in left_out.items())}")
    result(f"\nSize: {_size(space)} configurations")


def _print_networks(space: SearchSpace, networks: dict[str, workflow.Network] | None, title: str) -> None:
    if networks:
        costs = {name: network.cost for name, network in networks.items()}
        rows = [[name, f"{cost.num_params:,}", f"{cost.mflops:,.2f}"] for name, cost in costs.items()]
        result("\n" + table([title, "params", "MFLOPs"], rows))
    elif space.builder is None:
        result("\nNo network of this space fits such images: they are too small for its depth")
    if space.portfolio:
        rows = [[name, _changes(params, space)] for name, params in space.portfolio]
        result("\n" + table(["portfolio", "changes of the defaults"], rows))


def _size(space: SearchSpace) -> str:
    size = space.size()
    return "infinite" if math.isinf(size) else f"{size:,.0f}"


def _range(param: Param) -> str:
    if param.min_value is None or param.max_value is None:
        return ", ".join(_value(value) for value in param.values)
    step = f" step {_value(param.step)}" if param.step not in (None, 1) else ""
    log = " log" if param.sampling == "log" else ""
    return f"{_value(param.min_value)}..{_value(param.max_value)}{step}{log}"


def _changes(params: Mapping[str, Any], space: SearchSpace) -> str:
    active = (param for param in space.params if is_active(param, params))
    changed = [(param.name, params[param.name]) for param in active if params[param.name] != param.default]
    return ", ".join(f"{name} {_value(value)}" for name, value in changed) or "none"


def _condition(param: Param) -> str:
    if param.when is None:
        return ""
    return f"{param.when[0]} = {' or '.join(_value(value) for value in param.when[1])}"


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
