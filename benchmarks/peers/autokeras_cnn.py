"""AutoKeras 3.0 over its plain CNNs (ImageBlock "vanilla"), with the two repairs that it needs under Keras 3.15."""

import contextlib
import tempfile

import keras

plain_init = keras.layers.Dense.__init__


def init_with_plain_units(self, units, *arguments, **options):
    """Accept the NumPy integers that AutoKeras 3.0.0 passes."""
    plain_init(self, int(units), *arguments, **options)


keras.layers.Dense.__init__ = init_with_plain_units

import autokeras as ak  # noqa: E402  after the repair
from clock import Clock, Images, TimeOver, finish, parse_arguments  # noqa: E402


def main():
    """Search until the time is over, then test the best network that validation found."""
    options = parse_arguments()
    images, clock = Images(options.data), Clock(options)
    source = ak.ImageInput()
    target = ak.ClassificationHead(num_classes=images.num_classes)(ak.ImageBlock(block_type="vanilla")(source))
    search = ak.AutoModel(
        source,
        target,
        max_trials=100,
        objective="val_accuracy",
        directory=tempfile.mkdtemp(),
        seed=options.seed + 1,
    )
    with contextlib.suppress(TimeOver):
        search.fit(*images.train, validation_data=images.val, callbacks=[clock], verbose=0)
    loading = {"custom_objects": ak.CUSTOM_OBJECTS} if hasattr(ak, "CUSTOM_OBJECTS") else {}
    finish(options, clock, images, "autokeras", version=ak.__version__, loading=loading)


if __name__ == "__main__":
    main()
