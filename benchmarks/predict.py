"""How long one forecast takes, from DataFrame to DataFrame, on one core.

The tables have ETTh1's shape, seven hourly variates; what they hold does not matter for the time,
so they are drawn, and the model is trained for one epoch. With onnxruntime installed, the exported
network is timed beside ours: it gets an array and gives one, without tables around it.
"""

import argparse
import os
import platform
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from timing import Task, hardware, interleave, versions

from tsm2 import TSM2Forecaster

VARIATES = 7
SIZES = ((96, 24), (96, 96), (512, 96))  # lookback, horizon; the first is the estimator's default
LIMIT = 10.0  # milliseconds that a forecast may take


def fitted(lookback: int, horizon: int) -> tuple[TSM2Forecaster, pd.DataFrame]:
    rows = 2 * (lookback + horizon)
    index = pd.date_range("2016-07-01", periods=rows, freq="h")
    values = np.random.default_rng(0).standard_normal((rows, VARIATES)).cumsum(axis=0)
    frame = pd.DataFrame(values, index, list("abcdefg"))
    model = TSM2Forecaster(
        lookback, horizon, max_epochs=1, validation_fraction=0.0, device="cpu", random_state=0
    )
    return model.fit(frame), frame


def onnx_task(model: TSM2Forecaster, folder: str) -> Task | None:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        return None
    model.to_onnx(Path(folder) / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(Path(folder) / "model.onnx", options)
    inputs = {"context": model.context_[None]}
    return lambda: session.run(None, inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"{hardware(1)}, medians of {options.rounds} rounds")
    print(
        f"Python {platform.python_version()}, {versions('torch', 'numba', 'onnxruntime')}, float32"
    )
    for lookback, horizon in SIZES:
        model, frame = fitted(lookback, horizon)
        history = frame.tail(lookback)
        contexts = model.context_[None]
        with TemporaryDirectory() as folder:
            tasks: dict[str, Task | None] = {
                "predict(frame)": lambda model=model, history=history: model.predict(history),
                "predict()": model.predict,
                "forecast_contexts(array)": lambda model=model, contexts=contexts: (
                    model.forecast_contexts(contexts, model.horizon)
                ),
                "onnxruntime": onnx_task(model, folder),
            }
            present = {name: task for name, task in tasks.items() if task is not None}
            timings = interleave(present, rounds=options.rounds, threads=1)
        for name, timing in timings.items():
            took = 1e3 * timing.seconds
            verdict = "" if took < LIMIT else f"  OVER {LIMIT:.0f} ms"
            print(f"lookback {lookback:3}, horizon {horizon:2}: {name:25} {took:7.2f} ms{verdict}")


if __name__ == "__main__":
    main()
