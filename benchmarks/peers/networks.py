"""The space of depth, filters and pooling that KerasTuner's users write, for KerasTuner and for Optuna."""

import keras
from keras import layers


def build(choose, shape, num_classes):
    """Return a compiled network; `choose(name, values)` picks one of some values."""
    inputs = keras.Input(shape)
    x = layers.Rescaling(1 / 255)(inputs)
    normalise = choose("batch_norm", [False, True])
    for stage in range(choose("depth", [2, 3, 4])):
        for _ in range(choose("convs", [1, 2])):
            x = layers.Conv2D(choose(f"filters_{stage}", [32, 64, 128]), 3, padding="same")(x)
            x = layers.BatchNormalization()(x) if normalise else x
            x = layers.ReLU()(x)
        x = (layers.MaxPooling2D if choose("pooling", ["max", "avg"]) == "max" else layers.AveragePooling2D)(2)(x)
    x = layers.Flatten()(x) if choose("head", ["flatten", "gap"]) == "flatten" else layers.GlobalAveragePooling2D()(x)
    units = choose("units", [0, 64, 128, 256])
    x = layers.Dense(units, activation="relu")(x) if units else x
    x = layers.Dropout(choose("dropout", [0.0, 0.25, 0.5]))(x)
    model = keras.Model(inputs, layers.Dense(num_classes, activation="softmax", dtype="float32")(x))
    rate = choose("learning_rate", [1e-2, 3e-3, 1e-3, 3e-4])
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def batch_size(tuned):
    """Return Keras' default, or for a tuned run 128 in mixed precision."""
    if tuned:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    return 128 if tuned else 32
