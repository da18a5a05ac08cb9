"""A user's own `kt.HyperModel` or function build(hp) as a network: running it, what it must keep to, and its cost."""

import contextlib
import functools
import inspect
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import keras
import keras_tuner as kt

import pipeline
from pipeline.errors import SpaceError
from pipeline.files import sha256_file
from pipeline.models.allowed import foreign_classes
from pipeline.models.cost import Cost, ImpossibleNetwork
from pipeline.models.keras_cost import measure_model
from pipeline.space import Builder

Shape = tuple[int, int, int]
Result = TypeVar("Result")

MODULE = "pipeline_user_code"  # what the user's file is called in sys.modules


def build_hypermodel(builder: Builder, hp: kt.HyperParameters, image_shape: Shape, num_classes: int) -> keras.Model:
    """Return the user's model: pixels (batch, height, width, channels) as stored to logits (batch, num_classes).

    A softmax at its end is taken off. If the user compiled it, it still is, with the optimizer of the user.

    Raises:
        ImpossibleNetwork: the code raised; the message says where.
        SpaceError: the file cannot be run, or what it builds cannot be trained, saved or scored.
    """
    make = constructor(builder, image_shape, num_classes)
    try:
        with running(builder):
            model = make(hp)
            if isinstance(model, keras.Sequential) and not model.built:
                model.build((None, *image_shape))
    except Exception as error:
        raise ImpossibleNetwork(
            f"{place(builder, error)}: {builder.name} raised {described(error)} for images of {image_shape} and "
            f"{shown(hp)}"
        ) from error
    check_model(builder, model, image_shape, num_classes)
    return without_softmax(builder, model)


def outlined(
    builder: Builder,
    hp: kt.HyperParameters,
    image_shape: Shape,
    num_classes: int,
    look: Callable[[keras.Model], Result],
) -> Result:
    """Return what `look` finds out about the user's model, without memory for its weights where that is possible.

    In a stateless scope Keras knows the shapes of weights and leaves their values for later, which never comes here. An
    optimizer cannot be made in one: a model that the user compiles is built for real.
    """
    try:
        with keras.StatelessScope(initialize_variables=False):
            return look(build_hypermodel(builder, hp, image_shape, num_classes))
    except ImpossibleNetwork:
        return look(build_hypermodel(builder, hp, image_shape, num_classes))
    finally:
        keras.utils.clear_session(free_memory=False)


@functools.lru_cache(maxsize=10_000)
def measure_hypermodel(
    builder: Builder, params: tuple[tuple[str, Any], ...], image_shape: Shape, num_classes: int
) -> Cost:
    """Return the cost of the network of a configuration; what was measured once is remembered.

    Raises:
        ImpossibleNetwork: nothing can be built, or nothing that can be trained.
    """
    try:
        return outlined(builder, preset(dict(params)), image_shape, num_classes, measure_model)
    except SpaceError as error:
        raise ImpossibleNetwork(str(error)) from error


def preset(params: Mapping[str, Any]) -> kt.HyperParameters:
    """Return hyperparameters that answer with `params`, and with the user's defaults for what these leave out."""
    hp = kt.HyperParameters()
    hp.values = dict(params)
    return hp


def shown(hp: kt.HyperParameters) -> str:
    """Return the values of hyperparameters in one line."""
    return ", ".join(f"{name} {value}" for name, value in hp.values.items()) or "no hyperparameters"


@functools.lru_cache(maxsize=1)
def load(builder: Builder) -> Any:
    """Run the user's file, once, and return the class or function in it.

    Raises:
        SpaceError: the file raises, has no such name, or the name is no `kt.HyperModel` and no function; or a module
            that it imports changed since the study began.
    """
    check_modules(builder)
    module = types.ModuleType(MODULE)
    module.__file__ = builder.path
    sys.modules[MODULE] = module  # dataclasses and pickles look there
    try:
        with running(builder):
            exec(compile(builder.source, builder.path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise SpaceError(
            f"{place(builder, error)}: {described(error)}; expected a file that Python can run; correct it, or install "
            "what it imports"
        ) from error
    return checked_code(builder, module)


def modules_beside(builder: Builder) -> tuple[tuple[str, str], ...]:
    """Return the modules imported by now from the folder of the user's file, or below: path in it, and SHA-256.

    Installed packages are left out, and this one: an environment may lie in that folder too.
    """
    installed = [Path(place).resolve() for place in (sys.prefix, sys.base_prefix, pipeline.__path__[0])]
    files = {Path(file).resolve() for module in list(sys.modules.values()) if (file := module_file(module))}
    own = [
        file
        for file in files
        if file.is_relative_to(builder.folder) and file != Path(builder.path).resolve() and file.is_file()
        and not any(file.is_relative_to(place) for place in installed)
        and not {"site-packages", "dist-packages"} & set(file.parts)
    ]  # fmt: skip
    return tuple((file.relative_to(builder.folder).as_posix(), sha256_file(file)) for file in sorted(own))


def module_file(module: Any) -> str | None:
    """Return the file of what is in sys.modules, if it has one; packages put odd objects there."""
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else None


def check_modules(builder: Builder) -> None:
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


def checked_code(builder: Builder, module: types.ModuleType) -> Any:
    """Return the class or function that the builder names, if it is one that can be used."""
    found: Any = getattr(module, builder.name, None)
    if isinstance(found, types.FunctionType):
        return found
    if not isinstance(found, type) or not issubclass(found, kt.HyperModel):
        names = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == MODULE]
        what = "has no such name" if found is None else f"is of the type {type(found).__name__}"
        raise SpaceError(
            f"{builder.path}: {builder.name} {what}; expected a subclass of keras_tuner.HyperModel or a function "
            f"build(hp); write one of {', '.join(names) or 'these'}"
        )
    if getattr(found, "fit", None) is not kt.HyperModel.fit:
        raise SpaceError(
            f"{builder.path}: {builder.name} has a method fit; expected build alone, since a search trains by itself; "
            "remove it, and declare batch_size, learning_rate or augment in build(hp)"
        )
    return found


def constructor(builder: Builder, image_shape: Shape, num_classes: int) -> Callable[[kt.HyperParameters], Any]:
    """Return what makes the model of given hyperparameters; `image_shape` and `num_classes` go to who accepts them.

    Raises:
        SpaceError: an argument is needed that nobody can give.
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


def check_model(builder: Builder, model: Any, image_shape: Shape, num_classes: int) -> None:
    """Refuse what cannot be trained, saved and loaded as an image classifier.

    Raises:
        SpaceError: no Keras model, a layer that is not allowed, or shapes that do not fit the data.
    """
    where = f"{builder.path}: {builder.name}"
    if not isinstance(model, keras.Model):
        raise SpaceError(f"{where} returned {type(model).__name__}; expected a keras.Model; return the model")
    try:
        config = {**keras.saving.serialize_keras_object(model), "compile_config": None}
    except Exception as error:
        raise SpaceError(
            f"{where} returned a {type(model).__name__} that Keras cannot save: {described(error)}; expected a "
            "keras.Sequential or keras.Model(inputs, outputs); build one of these"
        ) from error
    for found in foreign_classes(config):
        raise SpaceError(
            f"{where} uses {found}; expected Keras' own layers for images (docs/spaces.md lists them), since a model "
            "must load without running anyone's code; replace it, such as x + y by keras.layers.Add()([x, y])"
        )
    shapes, expected = (model.input_shape, model.output_shape), ((None, *image_shape), (None, num_classes))
    if shapes != expected:
        raise SpaceError(
            f"{where} returned a model with input and output {shapes[0]} and {shapes[1]}; expected {expected[0]} and "
            f"{expected[1]}; accept the arguments image_shape and num_classes, and use them"
        )


def without_softmax(builder: Builder, model: keras.Model) -> keras.Model:
    """Return the model that ends in logits: what went into the softmax at its end, if there is one.

    Raises:
        SpaceError: it ends in a sigmoid, whose outputs are no scores of classes that exclude each other.
    """
    last = model.layers[-1]
    while isinstance(last, keras.Model):
        last = last.layers[-1]
    activation = getattr(last, "activation", None)
    if activation is keras.activations.sigmoid:
        raise SpaceError(
            f"{builder.path}: {builder.name} ends in a sigmoid; expected one output a class, as logits or softmax; "
            "write Dense(num_classes), also for two classes"
        )
    if activation is keras.activations.softmax:
        last.activation = keras.activations.linear
    if not isinstance(last, keras.layers.Softmax):
        return model
    if last is not model.layers[-1]:
        raise SpaceError(
            f"{builder.path}: {builder.name} ends in a model that ends in a Softmax layer; expected logits; leave the "
            "layer out"
        )
    cut = keras.Model(model.inputs, last.input, name=model.name)
    if model.compiled:
        cut.compile(optimizer=model.optimizer)
    return cut


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
