"""What a model of the user's must keep to: layers that load without anyone's code, the shapes of the data, logits."""

from typing import Any

import keras

from pipeline.errors import SpaceError
from pipeline.models.allowed import foreign_classes
from pipeline.models.cost import ImageShape
from pipeline.models.hypermodel.loader import described
from pipeline.space import Builder


def check_model(builder: Builder, model: Any, image_shape: ImageShape, num_classes: int) -> None:
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
            f"{where} uses {found}; expected Keras' own layers for images (see docs/spaces.md), since a model "
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
