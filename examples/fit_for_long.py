"""A fit that may be cut off at any moment, is watched, and ends in time. Takes some seconds."""

from contextlib import chdir
from tempfile import TemporaryDirectory

from tsm2 import TSM2Forecaster
from tsm2.datasets import load_sample

history = load_sample(1200)

with TemporaryDirectory() as folder, chdir(folder):
    # --8<-- [start:checkpoint]
    model = TSM2Forecaster(lookback=96, horizon=24, max_epochs=3, random_state=0)
    model.fit(history, checkpoint="fit", max_time="1s")  # a job with a limit; or one that is killed
    print("epochs so far:", model.n_iter_)
    model.fit(history, checkpoint="fit")  # the same call again: on to the end
    # --8<-- [end:checkpoint]
    unbroken = TSM2Forecaster(lookback=96, horizon=24, max_epochs=3, random_state=0).fit(history)
    print("as if in one go:", model.predict().equals(unbroken.predict()))


# --8<-- [start:callback]
class StopWhenGoodEnough:
    """End a fit at a validation loss; any object with these four methods is a callback."""

    def __init__(self, loss):
        self.loss = loss

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch":  # the other task is the fit as a whole
            return estimator.history_["validation_loss"].iloc[-1] < self.loss
        return False


model = TSM2Forecaster(lookback=96, horizon=24, max_epochs=50, random_state=0)
model.set_callbacks(StopWhenGoodEnough(0.9)).fit(history)
# --8<-- [end:callback]
print("epochs until good enough:", model.n_iter_)

history = model.history_.set_index("epoch")
axes = history[["train_loss", "validation_loss"]].plot(figsize=(7, 3), marker="o")
axes.set_ylabel("loss, standardised")
axes.figure.savefig("losses.png")
