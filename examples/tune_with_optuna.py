"""Search for settings, and give up early on those that do badly. Takes about half a minute."""

import optuna
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit

from tsm2 import TSM2Forecaster
from tsm2.datasets import load_sample

history = load_sample(900)
base = TSM2Forecaster(lookback=96, horizon=24, max_epochs=3, random_state=0)

# --8<-- [start:grid]
search = GridSearchCV(
    base,
    {"blocks": [0, 1], "learning_rate": [1e-3, 1e-2]},
    cv=TimeSeriesSplit(2, test_size=48),  # always the rows before, then those after
).fit(history)
# --8<-- [end:grid]
print("grid search:", search.best_params_)


# --8<-- [start:optuna]
class Prune:
    """Report every epoch's validation loss to a trial, and end it if others did better by then."""

    def __init__(self, trial):
        self.trial = trial

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch":
            losses = estimator.history_["validation_loss"]
            self.trial.report(losses.iloc[-1], step=len(losses))
            if self.trial.should_prune():
                raise optuna.TrialPruned


def objective(trial):
    model = TSM2Forecaster(
        lookback=96,
        horizon=24,
        max_epochs=3,
        features=trial.suggest_categorical("features", [8, 16]),
        learning_rate=trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
        random_state=0,
    )
    model.set_callbacks(Prune(trial)).fit(history)
    return model.history_["validation_loss"].min()


study = optuna.create_study(
    sampler=optuna.samplers.TPESampler(seed=0), pruner=optuna.pruners.MedianPruner(2)
)
study.optimize(objective, n_trials=6)
# --8<-- [end:optuna]
print("optuna:", study.best_params)
print("pruned:", len(study.get_trials(states=[optuna.trial.TrialState.PRUNED])))

trials = study.trials_dataframe()
axes = trials.plot.scatter(
    x="params_learning_rate", y="value", c="#d1495b", figsize=(6, 3), logx=True
)
axes.set_ylabel("validation loss")
axes.figure.savefig("search.png")
