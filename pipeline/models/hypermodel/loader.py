"""The user's file: run once, held to the modules that the study began with, and asked for what makes its models."""

import contextlib
import functools
import inspect
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras_tuner as kt

import pipeline
from pipeline.errors import SpaceError
from pipeline.files import sha256_file
from pipeline.models.cost import ImageShape
from pipeline.space import Builder

_MODULE = "pipeline_user_code"  # what the user's file is called in sys.modules


@functools.lru_cache(maxsize=1)
def load(builder: Builder) -> Any:
    """Run the user's file, once, and return the class or function in it.

    Raises:
        SpaceError: the file raises, has no such name, or the name is no `kt.HyperModel` and no function; or a module
            that it imports changed since the study began.
    """
    _check_modules(builder)
    module = types.ModuleType(_MODULE)
    module.__file__ = builder.path
    sys.modules[_MODULE] = module  # dataclasses and pickles look there
    try:
        with running(builder):
            exec(compile(builder.source, builder.path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise SpaceError(
            f"{place(builder, error)}: {described(error)}; expected a file that Python can run; correct it, or install "
            "what it imports"
        ) from error
    return _checked_code(builder, module)


def modules_beside(builder: Builder) -> tuple[tuple[str, str], ...]:
    """Return the modules imported by now from the folder of the user's file, or below: path in it, and SHA-256.

    Installed packages are left out, and this one: an environment may lie in that folder too.
    """
    installed = [Path(place).resolve() for place in (sys.prefix, sys.base_prefix, pipeline.__path__[0])]
    files = {Path(file).resolve() for module in list(sys.modules.values()) if (file := _module_file(module))}
    own = [
        file
        for file in files
        if file.is_relative_to(builder.folder) and file != Path(builder.path).resolve() and file.is_file()
        and not any(file.is_relative_to(place) for place in installed)
        and not {"site-packages", "dist-packages"} & set(file.parts)
    ]  # fmt: skip
    return tuple((file.relative_to(builder.folder).as_posix(), sha256_file(file)) for file in sorted(own))


def _module_file(module: Any) -> str | None:
    """Return the file of what is in sys.modules, if it has one; packages put odd objects there."""
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else None


def _check_modules(builder: Builder) -> None:
    """Check that the modules beside the user's file are still those with which the study began.

    Raises:
        SpaceError: one changed, or is gone.
    """
    for name, digest in builder.modules:
        file = builder.folder / name
        if not file.is_file() or sha256_file(file) != digest:
            raise SpaceError(
                f"{file}: changed since the study began; expected the file that {builder.path} imported then; restore "
                "it, or begin a linked study: --fork NEW_NAME"
            )


def _checked_code(builder: Builder, module: types.ModuleType) -> Any:
    """Return the class or function that the builder names, if it is one that can be used."""
    found: Any = getattr(module, builder.name, None)
    if isinstance(found, types.FunctionType):
        return found
    if not isinstance(found, type) or not issubclass(found, kt.HyperModel):
        names = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == _MODULE]
        what = "is not defined" if found is None else f"is of the type {type(found).__name__}"
        raise SpaceError(
            f"{builder.path}: {builder.name} {what}; expected a subclass of keras_tuner.HyperModel or a function "
            f"build(hp); use one of {', '.join(names) or 'these'}"
        )
    if getattr(found, "fit", None) is not kt.HyperModel.fit:
        raise SpaceError(
            f"{builder.path}: {builder.name} has a method fit; expected build alone, since a search trains by itself; "
            "remove it, and declare batch_size, learning_rate or augment in build(hp)"
        )
    return found


def constructor(builder: Builder, image_shape: ImageShape, num_classes: int) -> Callable[[kt.HyperParameters], Any]:
    """Return what makes the model of given hyperparameters; `image_shape` and `num_classes` go to who accepts them.

    Raises:
        SpaceError: an argument is needed that a search does not pass.
    """
    found = load(builder)
    signature = inspect.signature(found)
    facts = {"image_shape": image_shape, "num_classes": num_classes}
    given = {name: value for name, value in facts.items() if name in signature.parameters}
    is_class = isinstance(found, type)
    try:
        signature.bind(*(() if is_class else (None,)), **given)
    except TypeError as error:
        raise SpaceError(
            f"{builder.path}: {builder.name}{signature} cannot be called: {error}; expected "
            f"{'' if is_class else 'hp, '}image_shape and num_classes at most; give all others a default"
        ) from error
    if is_class:
        return lambda hp: found(**given).build(hp)
    return lambda hp: found(hp, **given)


@contextlib.contextmanager
def running(builder: Builder) -> Iterator[None]:
    """Run the user's code: what it prints goes to stderr, and it can import what lies beside it."""
    folder = str(builder.folder)
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.path.remove(folder)


def place(builder: Builder, error: BaseException) -> str:
    """Return file and line in the user's code at which an error came up."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == builder.path]
    if isinstance(error, SyntaxError) and error.filename == builder.path:
        lines.append(error.lineno)
    return f"{builder.path}:{lines[-1]}" if lines else builder.path


def described(error: BaseException) -> str:
    """Return kind and message of an error in one line of bounded length."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:300]}" if message else type(error).__name__
