"""How a network is trained: optimizer, learning-rate schedule and loss, from hyperparameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from pipeline.records import Params
from pipeline.targets import Labels, is_multi_label
from pipeline.training.images import Steps
from pipeline.training.losses import loss_of, metrics_of
from pipeline.training.schedule import OneCycle

_MOMENTUM = 0.9


class KernelMuon(keras.optimizers.Muon):
    """Muon (Jordan et al. 2024) for kernels of convolutions too, as matrices (height x width x inputs, filters).

    Keras 3.15 gives all but matrices to Adam, which here gets what is left: biases, norms, depthwise kernels and the
    layer that gives the logits.
    """

    def _should_use_adamw(self, variable: Any) -> bool:
        is_matrix = len(variable.shape) > 1 and variable.shape[-1] > 1
        return not is_matrix or variable.path.rpartition("/")[0] in self.exclude_layers

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        self.assign(m, self.momentum * m + gradient)
        ahead = gradient + self.momentum * m
        matrix = keras.ops.reshape(ahead, (-1, variable.shape[-1]))
        update = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(matrix, self.ns_steps))
        self.assign_sub(variable, keras.ops.reshape(update, variable.shape))


def sgd(rate: Any, decay: float, last_layer: str, num_accumulated: int | None) -> Any:
    """Return stochastic gradient descent with Nesterov's momentum."""
    return keras.optimizers.SGD(
        rate, momentum=_MOMENTUM, nesterov=True, weight_decay=decay, gradient_accumulation_steps=num_accumulated
    )


def adamw(rate: Any, decay: float, last_layer: str, num_accumulated: int | None) -> Any:
    """Return Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
    return keras.optimizers.AdamW(rate, weight_decay=decay, gradient_accumulation_steps=num_accumulated)


def muon(rate: Any, decay: float, last_layer: str, num_accumulated: int | None) -> Any:
    """Return Muon, which leaves the last layer to Adam."""
    return KernelMuon(
        rate,
        weight_decay=decay,
        adam_weight_decay=decay,
        exclude_layers=[last_layer],
        gradient_accumulation_steps=num_accumulated,
    )


_OPTIMIZERS: dict[str, Callable[[Any, float, str, int | None], Any]] = {"adamw": adamw, "sgd": sgd, "muon": muon}


def optimizer(values: Params, steps: Steps, last_layer: str, pretrained: Sequence[Any] = ()) -> Any:
    """Return the optimizer that `values["optimizer"]` names, for a training of so many steps.

    `last_layer` is the path of the layer that gives logits. `values["weight_decay"]` is the part of each kernel that
    a step at the peak takes away, whatever that peak is. The variables `pretrained` stay as they are for the share
    `values["frozen"]` of the training, then learn at `values["backbone_rate"]` times the rate of the others; no weight
    decay pulls them away from where they began.
    """
    peak = values["learning_rate"]
    schedule = OneCycle(peak, steps.num_updates, steps.num_parts)
    num_accumulated = steps.num_parts if steps.num_parts > 1 else None
    chosen = _OPTIMIZERS[values["optimizer"]](schedule, values["weight_decay"] / peak, last_layer, num_accumulated)
    schedule.bind(chosen)
    chosen.exclude_from_weight_decay(var_list=list(pretrained), var_names=["bias", "gamma", "beta"])
    if pretrained:
        thaw_later(chosen, schedule, pretrained, values)
    return chosen


def thaw_later(optimizer: Any, schedule: OneCycle, pretrained: Sequence[Any], values: Params) -> None:
    """Let some variables rest for a share of a training, however long it becomes, and learn slowly after that."""
    update, index_of = optimizer.update_step, optimizer._get_variable_index  # as Keras' own optimizers find states

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        if index_of(variable) in {index_of(each) for each in pretrained}:
            progress = keras.ops.cast(optimizer.iterations, "float32")  # in changes of the weights
            is_thawed = progress >= values["frozen"] * keras.ops.convert_to_tensor(schedule.length)
            learning_rate = learning_rate * values["backbone_rate"] * keras.ops.cast(is_thawed, learning_rate.dtype)
        update(gradient, variable, learning_rate)

    optimizer.update_step = update_step


def log_priors(labels: Labels, num_classes: int) -> list[float]:
    """Return the logarithm of each class's share of the labels; a class without any counts as half an image.

    Added to logits in training, they make a network whose own logits are best for the mean accuracy of the classes,
    however often each occurs (logit adjustment, Menon et al. 2021, with tau 1). Of several labels an image, it is the
    logarithm of how often each is there for once that it is not: they make those best for its two recalls.
    """
    if is_multi_label(labels):
        counts = labels.sum(axis=0)
        odds = np.maximum(counts, 0.5) / np.maximum(len(labels) - counts, 0.5)
        return [float(value) for value in np.log(odds)]
    counts = np.maximum(np.bincount(labels, minlength=num_classes), 0.5)
    return [float(value) for value in np.log(counts / counts.sum())]


@dataclass(frozen=True)
class LossOptions:
    """Which labels a network learns from, and what is added to its logits while it does: as in `losses.loss_of`."""

    offsets: Sequence[float] = (0.0,)
    has_several: bool = False
    is_taught: bool = False


def compile_model(
    model: keras.Model,
    values: Params,
    steps: Steps,
    pretrained: Sequence[Any] = (),
    options: LossOptions = LossOptions(),
) -> None:
    """Make a model ready for `fit`: cross-entropy of labels on logits; a compiled one keeps its optimizer.

    `pretrained` are as in `optimizer`.
    The optimizer gets its variables here: where a step makes them, TensorFlow traces that step twice.
    """
    model.compile(
        optimizer=model.optimizer if model.compiled else optimizer(values, steps, model.layers[-1].path, pretrained),
        loss=loss_of(values["label_smoothing"], options.offsets, options.has_several, options.is_taught),
        metrics=metrics_of(options.has_several, options.is_taught),
    )
    model.optimizer.build(model.trainable_variables)


def without_recipe(model: keras.Model) -> keras.Model:
    """Return a trained model with the same weights that is not compiled: a file of it loads without this package."""
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
