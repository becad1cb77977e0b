"""Compare models on a table, and measure them by the protocol of the benchmark."""

from contextlib import chdir
from tempfile import TemporaryDirectory

with TemporaryDirectory() as folder, chdir(folder):
    # --8<-- [start:compare]
    import tsm2
    from tsm2.datasets import load_sample

    models = ["RepeatLast", "SeasonalNaive", "TSM2(blocks=0)"]
    found = tsm2.compare(load_sample(600), 24, models=models, windows=3, jobs=2)
    print(found)  # a notebook shows `found` itself
    found.plot(columns=["load"]).savefig("last-window.png")  # the best model on the last window
    found.plot_steps().savefig("steps.png")
    found.to_html("compare.html")
    # --8<-- [end:compare]

    from tsm2.benchmark import run
    from tsm2.benchmark.report import write_report

    models = ["RepeatLast", "SeasonalNaive", "sklearn:Ridge"]
    run("sample", horizons=[24], models=models, seeds=[0], lookback=96, jobs=2, out="mine.csv")
    write_report("mine.csv", "report")
