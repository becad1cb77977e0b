"""Run a model without Python's tables around it: ONNX, threads, another device."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from tempfile import TemporaryDirectory

import numpy as np

from tsm2 import TSM2Forecaster
from tsm2.datasets import load_sample

frame = load_sample(1000)
model = TSM2Forecaster(lookback=96, horizon=24, max_epochs=1, random_state=0).fit(frame)

with TemporaryDirectory() as folder, chdir(folder):
    # --8<-- [start:onnx]
    import onnxruntime

    model.to_onnx("model.onnx")
    session = onnxruntime.InferenceSession("model.onnx")
    histories = frame.tail(96).to_numpy()[None]  # (batch, lookback, variates), in their own units
    (forecasts,) = session.run(["forecast"], {"context": histories})  # (batch, horizon, variates)
    # --8<-- [end:onnx]
    print("largest difference:", np.abs(forecasts[0] - model.predict().to_numpy()).max().round(6))

    # --8<-- [start:serve]
    model.save("model")
    served = TSM2Forecaster.load("model", device="cpu")  # wherever it was trained
    requests = [frame.iloc[:rows] for rows in (500, 700, 900)]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(served.predict, requests))
    # --8<-- [end:serve]
    print("answers:", len(answers))

    served.plot(requests[-1], columns=["load"], title="One answer").savefig("answer.png")
