"""Optuna's TPE with a plain `fit` loop and its median pruner, over the same space as KerasTuner."""

import contextlib

import keras
import optuna
from clock import Clock, Images, TimeOver, finish, parse_arguments
from networks import batch_size, build

MAX_EPOCHS = 10


class Reporter(keras.callbacks.Callback):
    """Reports each epoch to Optuna and stops what it prunes."""

    def __init__(self, trial):
        super().__init__()
        self.trial = trial

    def on_epoch_end(self, epoch, logs=None):
        self.trial.report(float(logs["val_accuracy"]), epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def main():
    """Search until the time is over, then test the best network that validation found."""
    options = parse_arguments()
    images, clock = Images(options.data), Clock(options)
    size = batch_size(options.tuned)
    keras.utils.set_random_seed(options.seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=options.seed))

    def objective(trial):
        keras.utils.clear_session()
        model = build(trial.suggest_categorical, images.shape, images.num_classes)
        history = model.fit(
            *images.train,
            validation_data=images.val,
            batch_size=size,
            epochs=MAX_EPOCHS,
            verbose=0,
            callbacks=[clock, Reporter(trial)],
        )
        return max(history.history["val_accuracy"])

    with contextlib.suppress(TimeOver):
        study.optimize(objective)
    finish(options, clock, images, "optuna tuned" if options.tuned else "optuna", version=optuna.__version__)


if __name__ == "__main__":
    main()
