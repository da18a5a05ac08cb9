"""The network of a user's own `kt.HyperModel` or function build(hp), and its cost."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import keras_tuner as kt

from pipeline.errors import SpaceError
from pipeline.models.cost import Cost, ImageShape, ImpossibleNetwork
from pipeline.models.hypermodel.checks import check_model, without_softmax
from pipeline.models.hypermodel.loader import constructor, described, place, running
from pipeline.models.keras_cost import measure_model
from pipeline.records import Params
from pipeline.space import Builder

Result = TypeVar("Result")


def build_hypermodel(
    builder: Builder, hp: kt.HyperParameters, image_shape: ImageShape, num_classes: int
) -> keras.Model:
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


def inspect_without_weights(
    builder: Builder,
    hp: kt.HyperParameters,
    image_shape: ImageShape,
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
    builder: Builder, params: tuple[tuple[str, Any], ...], image_shape: ImageShape, num_classes: int
) -> Cost:
    """Return the cost of the network of a configuration; what was measured once is remembered.

    Raises:
        ImpossibleNetwork: nothing can be built, or nothing that can be trained.
    """
    try:
        return inspect_without_weights(builder, preset(dict(params)), image_shape, num_classes, measure_model)
    except SpaceError as error:
        raise ImpossibleNetwork(str(error)) from error


def preset(params: Params) -> kt.HyperParameters:
    """Return hyperparameters that answer with `params`, and with the user's defaults for what these leave out."""
    hp = kt.HyperParameters()
    hp.values = dict(params)
    return hp


def shown(hp: kt.HyperParameters) -> str:
    """Return the values of hyperparameters in one line."""
    return ", ".join(f"{name} {value}" for name, value in hp.values.items()) or "no hyperparameters"
