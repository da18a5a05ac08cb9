"""Is it better to train one network for long, or to average several that trained a part of that time each?

    python benchmarks/ensembles.py cifar10/ --keep ensembles/ --core 0 --trainings 0:8 1:8 0:16
    python benchmarks/ensembles.py cifar10/ --keep ensembles/ --core 1 --trainings 2:8 0:24 1:16
    python benchmarks/ensembles.py cifar10/ --keep ensembles/ --trainings

One network of the portfolio (two convolutions a stage, pooled between), with the default recipe, by one thread pinned
to --core. A training is SEED:EPOCHS; what it says of the validation images (a tenth of the given training images; test
images are never read), and its weights, are kept, and what is kept is not trained again. The table shows the mean
accuracy of single networks, of all averages of 2 and 3 networks of one length (mean of the logits), of flip averaging,
and of networks whose weights are the mean of two.
"""

import argparse
import itertools
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from one_thread import pin_to

NETWORK = {"convs_per_stage": 2, "pool_after": "first"}


def main() -> None:
    """Train what is wanted and not kept, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--trainings", nargs="*", required=True, metavar="SEED:EPOCHS")
    parser.add_argument("--images", type=int, default=22_500, help="training images at most")
    parser.add_argument("--core", type=int, default=0)
    options = parser.parse_args()
    pin_to(options.core)
    from recipe import read

    options.keep.mkdir(exist_ok=True)
    training, validation = read(options.data, options.keep / f"workspace-{options.core}", options.images, 1.0)
    for seed, epochs in (map(int, text.split(":")) for text in options.trainings):
        target = options.keep / f"{epochs}-{seed}.npz"
        if not target.exists():
            temporary = target.with_suffix(".tmp.npz")
            np.savez(temporary, **train(training, validation, seed, epochs))
            temporary.replace(target)
    print_table(options.keep, training, validation)


def train(training: Any, validation: Any, seed: int, num_epochs: int) -> dict[str, NDArray[Any]]:
    """Return what one network says of the validation images and of their mirror images, and its weights."""
    from pipeline.models.averaging import Flipped
    from pipeline.models.predict import predict_logits
    from pipeline.training import trial

    setting = trial.TrainingConfig(10, *statistics_of(training), num_epochs * len(training), seed, precision="bfloat16")
    model, _, _ = trial.train(NETWORK, training, None, setting, lambda row: None)
    weights = {f"weight{index:03d}": each for index, each in enumerate(model.get_weights())}
    flipped = predict_logits(model, Flipped(validation.images))
    return {"logits": predict_logits(model, validation.images), "flipped": flipped, **weights}


def statistics_of(training: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel."""
    some = training.images[:: max(1, len(training) // 5000)]
    return tuple(map(float, some.mean(axis=(0, 1, 2)))), tuple(map(float, some.std(axis=(0, 1, 2))))


def print_table(folder: Path, training: Any, validation: Any) -> None:
    """Print mean accuracies of what can be made of the networks that are kept."""
    kept: dict[int, list[dict[str, NDArray[Any]]]] = defaultdict(list)
    for path in sorted(folder.glob("*-*.npz")):
        with np.load(path) as stored:
            kept[int(path.name.partition("-")[0])].append(dict(stored))
    sys.stdout.write("| epochs of each | networks | n | accuracy | with flips averaged |\n|---|---|---|---|---|\n")
    for num_epochs, networks in sorted(kept.items()):
        for size in range(1, min(3, len(networks)) + 1):
            both = [averaged(some, validation.labels) for some in itertools.combinations(networks, size)]
            alone, flipped = (statistics.mean(values) for values in zip(*both, strict=True))
            sys.stdout.write(f"| {num_epochs} | {size} | {len(both)} | {alone:.2%} | {flipped:.2%} |\n")
        for accuracy in soups(networks, training, validation):
            sys.stdout.write(f"| {num_epochs} | mean weights of 2 | 1 | {accuracy:.2%} | |\n")


def averaged(networks: tuple[dict[str, NDArray[Any]], ...], labels: NDArray[np.int32]) -> tuple[float, float]:
    """Return the accuracy of the mean of the logits of some networks, and with those for mirror images too."""
    alone = np.mean([each["logits"] for each in networks], axis=0)
    flipped = np.mean([each["flipped"] for each in networks], axis=0)
    return tuple(float((logits.argmax(axis=1) == labels).mean()) for logits in (alone, alone + flipped))


def soups(networks: list[dict[str, NDArray[Any]]], training: Any, validation: Any) -> Iterator[float]:
    """Yield the accuracy of a network that has the mean weights of the first two, its normalisation measured anew."""
    from pipeline.models.build import Pixels, build
    from pipeline.models.predict import predict_logits

    if len(networks) < 2:
        return
    import keras

    pixels = Pixels(training.images.shape[1:], "uint8", *statistics_of(training))
    model = build(NETWORK, pixels, 10)
    names = [name for name in networks[0] if name.startswith("weight")]
    model.set_weights([(networks[0][name] + networks[1][name]) / 2 for name in names])
    # Moving statistics of such a network are no means of those of the two.
    for start in range(0, min(5120, len(training)) - 255, 256):
        model(keras.ops.convert_to_tensor(training.images[start : start + 256]), training=True)
    yield float((predict_logits(model, validation.images).argmax(axis=1) == validation.labels).mean())


if __name__ == "__main__":
    main()
