"""`pipeline spaces`: list, show, check and copy search spaces; what a space is lives in `pipeline.space`."""

import math
from collections.abc import Mapping
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
from pipeline.search.spaces import open_space
from pipeline.space import (
    DEFAULTS,
    Param,
    SearchSpace,
    builtin_spaces,
    builtin_text,
    defaults_for,
    is_active,
    load_space,
)
from pipeline.space.params import BODY, THAWING


@click.group(name="spaces")
def command() -> None:
    """List, show, copy and check search spaces: which networks and recipes a search may try.

    A space is a YAML file. Some are installed and known by name; any other is given by its path. Your own Python code,
    given as FILE.py:NAME, is a space too; docs/spaces.md says what it must keep to.

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
    spaces = [load_space(name) for name in builtin_spaces()]
    if as_json:
        return result_json({"schema": SCHEMA, "spaces": [summary(space) for space in spaces]})
    rows = [[space.name, str(len(space.names())), shown_size(space), space.description] for space in spaces]
    result(table(["name", "params", "size", "description"], rows))
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
    help="Images for which the smallest and largest network are counted.",
)
@click.option(
    "--classes", "num_classes", type=click.IntRange(2), default=10, show_default=True, help="Classes for the same."
)
@json_option
@verbosity_options
def show_command(space: str, image_shape: tuple[int, int, int], num_classes: int, as_json: bool) -> None:
    """Show a space: ranges, defaults, conditions, portfolio, and its smallest and largest network.

    The portfolio holds the configurations that a search begins with, shown by what they change of the defaults.

    NAME is an installed space, FILE a path that ends in .yaml or .yml, or FILE.py:NAME code of your own.

    \b
    Example:
      pipeline spaces show cnn
      pipeline spaces show ./my.yaml --json
    """
    loaded = open_space(space)
    networks = counted_networks(loaded, image_shape, num_classes)
    if as_json:
        size = summary(loaded)["size"]
        facts = {"schema": SCHEMA, "source": loaded.source, "size": size, "networks": networks}
        return result_json({**loaded.to_json(), **facts})
    result(f"{loaded.name}: {loaded.description}\n" if loaded.description else f"{loaded.name}\n")
    rows = [[p.name, p.kind, shown_range(p), shown_value(p.default), shown_condition(p)] for p in loaded.params]
    result(table(["parameter", "kind", "range", "default", "condition"], rows))
    defaults = defaults_for(loaded.defaults())
    left_out = [f"{name} {shown_value(defaults[name])}" for name in known_names(loaded) if name not in loaded.names()]
    if left_out:
        result(f"\nNot varied: {', '.join(left_out)}")
    result(f"\nSize: {shown_size(loaded)} configurations")
    if networks:
        shape = " x ".join(map(str, image_shape))
        rows = [[name, f"{each['num_params']:,}", f"{each['mflops']:,.2f}"] for name, each in networks.items()]
        result("\n" + table([f"for {shape}, {num_classes} classes", "params", "MFLOPs"], rows))
    elif loaded.builder is None:
        result("\nNo network of this space fits such images: they are too small for its depth")
    if loaded.portfolio:
        rows = [[name, shown_changes(params, loaded)] for name, params in loaded.portfolio]
        result("\n" + table(["portfolio", "changes of the defaults"], rows))
    if loaded.backbones():
        return next_steps(
            (f"pipeline search FOLDER --space {quoted(space)} --image-size 96", "search it on your images")
        )
    return next_steps((f"pipeline search digits --space {quoted(space)}", "search it on the built-in digits"))


def known_names(space: SearchSpace) -> list[str]:
    """Return the hyperparameters that can change something in the networks and trainings of a space."""
    if space.builder is not None:
        return ["batch_size", "augment"]
    backbones = [value for param in space.params if param.name == "backbone" for value in param.values] or ["none"]
    unused = {*(THAWING if not space.backbones() else ()), *(BODY if "none" not in backbones else ())}
    return [name for name in DEFAULTS if name not in unused]


@command.command(name="init")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "name", default="cnn", show_default=True, metavar="NAME", help="The installed space to copy.")
@verbosity_options
def init_command(file: Path, name: str) -> None:
    """Write an installed space, with its comments, to FILE, for you to edit.

    FILE ends in .yaml or .yml. One that is there already is left as it is.

    \b
    Example:
      pipeline spaces init my.yaml
      pipeline spaces init small.yaml --from tiny
    """
    if file.suffix not in (".yaml", ".yml"):
        raise SpaceError(f"{file}: is no name for a search space; expected one that ends in .yaml; write {file}.yaml")
    text = builtin_text(name)
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError as error:
        raise SpaceError(f"{file}: is there already; expected a new file; choose another name, or edit it") from error
    except OSError as error:
        raise SpaceError(f"{file}: cannot be written ({error.strerror}); expected a folder that is there") from error
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
    rows = [checked(file) for file in files]
    if as_json:
        result_json({"schema": SCHEMA, "files": rows})
    for row in [] if as_json else rows:
        if row["ok"]:
            result(f"{row['file']}: ok, {row['params']} hyperparameters")
        else:
            say(row["error"], level=-1)
    refused = [row["file"] for row in rows if not row["ok"]]
    if refused:
        again = " ".join(quoted(file) for file in refused)
        next_steps((f"pipeline spaces check {again}", "check again after the correction"))
        context.exit(SpaceError.exit_code)
    next_steps((f"pipeline spaces show {quoted(files[0])}", "show what it varies"))


def counted_networks(
    space: SearchSpace, image_shape: tuple[int, int, int], num_classes: int
) -> dict[str, dict[str, Any]] | None:
    """Return the smallest and the largest network with what they cost; None for code, or if none fits."""
    from pipeline.models.extremes import extremes

    if space.builder is not None or (found := extremes(space, image_shape, num_classes)) is None:
        return None
    return {
        name: {"params": params, "num_params": cost.num_params, "mflops": cost.mflops}
        for name, (params, cost) in zip(("smallest", "largest"), found, strict=True)
    }


def checked(file: str) -> dict[str, Any]:
    """Return what became of one file, as a JSON-able row."""
    try:
        space = open_space(file)
    except SpaceError as error:
        return {"file": file, "ok": False, "params": None, "error": str(error)}
    return {"file": file, "ok": True, "params": len(space.names()), "error": None}


def summary(space: SearchSpace) -> dict[str, Any]:
    """Return a space in one JSON-able row; `size` is None where it is infinite, which JSON cannot say."""
    size = space.size()
    return {
        "name": space.name,
        "params": space.names(),
        "size": None if math.isinf(size) else int(size),
        "description": space.description,
        "source": space.source,
    }


def shown_size(space: SearchSpace) -> str:
    """Return the number of configurations for reading."""
    size = space.size()
    return "infinite" if math.isinf(size) else f"{size:,.0f}"


def shown_range(param: Param) -> str:
    """Return what a hyperparameter can be, for reading."""
    if param.min_value is None or param.max_value is None:
        return ", ".join(shown_value(value) for value in param.values)
    step = f" step {shown_value(param.step)}" if param.step not in (None, 1) else ""
    log = " log" if param.sampling == "log" else ""
    return f"{shown_value(param.min_value)}..{shown_value(param.max_value)}{step}{log}"


def shown_changes(params: Mapping[str, Any], space: SearchSpace) -> str:
    """Return in what a configuration differs from the defaults, for reading."""
    active = (param for param in space.params if is_active(param, params))
    changed = [(param.name, params[param.name]) for param in active if params[param.name] != param.default]
    return ", ".join(f"{name} {shown_value(value)}" for name, value in changed) or "none"


def shown_condition(param: Param) -> str:
    """Return when a hyperparameter exists, for reading; empty for always."""
    if param.when is None:
        return ""
    return f"{param.when[0]} = {' or '.join(shown_value(value) for value in param.when[1])}"


def shown_value(value: Any) -> str:
    """Return a value as the YAML file has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
