"""KerasTuner alone: Hyperband over depth, filters and pooling, with Keras' defaults or (--tuned) batch 128 and bf16."""

import contextlib
import tempfile

import keras
import keras_tuner as kt
from clock import Clock, Images, TimeOver, finish, parse_arguments
from networks import batch_size, build

MAX_EPOCHS = 10


def main():
    """Search until the time is over, then test the best network that validation found."""
    options = parse_arguments()
    images, clock = Images(options.data), Clock(options)
    size = batch_size(options.tuned)
    keras.utils.set_random_seed(options.seed)
    tuner = kt.Hyperband(
        lambda hp: build(hp.Choice, images.shape, images.num_classes),
        kt.Objective("val_accuracy", "max"),
        max_epochs=MAX_EPOCHS,
        seed=1_000_000 * (options.seed + 1),  # neighbouring seeds share draws
        directory=tempfile.mkdtemp(),
    )
    with contextlib.suppress(TimeOver):
        tuner.search(*images.train, validation_data=images.val, batch_size=size, callbacks=[clock], verbose=0)
    finish(options, clock, images, "keras-tuner tuned" if options.tuned else "keras-tuner", version=kt.__version__)


if __name__ == "__main__":
    main()
