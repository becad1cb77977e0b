"""What a cluster of two workers makes of a long table is what one process makes, to the bit."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest
from engine_cases import forecaster, in_order, series

from tsm2 import TSM2Forecaster, engines

Cluster = tuple[Callable[[pd.DataFrame], Any], Callable[[Any], pd.DataFrame]]
# Libraries of clusters warn of their own doings.
pytestmark = pytest.mark.filterwarnings("ignore")
START = pd.Timestamp("2024-02-10")


def shuffled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sample(frac=1, random_state=0)


@pytest.fixture(scope="module", params=["dask", "ray", "spark"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Yield what makes a frame of an engine, rows mixed, and what computes one."""
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    if request.param == "dask":
        dd = pytest.importorskip("dask.dataframe", reason="Dask is not installed")
        distributed = pytest.importorskip("distributed", reason="Dask's cluster is not installed")
        how = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        with distributed.LocalCluster(**how) as local, distributed.Client(local):
            yield (
                lambda frame: dd.from_pandas(shuffled(frame), npartitions=5, sort=False),
                lambda frame: frame.compute(),
            )
    elif request.param == "ray":
        ray = pytest.importorskip("ray", reason="Ray is not installed")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield (
            lambda frame: ray.data.from_pandas([shuffled(frame)[k::3] for k in range(3)]),
            lambda frame: frame.to_pandas(),
        )
        ray.shutdown()
    else:
        sql = pytest.importorskip("pyspark.sql", reason="Spark is not installed")
        if shutil.which("java") is None:
            pytest.skip("Spark needs Java, which is not installed")
        os.environ["PYSPARK_PYTHON"] = sys.executable
        builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        builder = builder.config("spark.sql.shuffle.partitions", "3")
        spark = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
        spark.sparkContext.setLogLevel("OFF")
        yield (
            lambda frame: spark.createDataFrame(shuffled(frame)),
            lambda frame: frame.toPandas(),
        )
        spark.stop()


@pytest.fixture(scope="module")
def fitted() -> TSM2Forecaster:
    model: TSM2Forecaster = engines.fit(forecaster(), series(), sample=10)
    return model


def assert_same(got: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """Compare to the bit; engines have types of their own for text and stamps."""
    got, wanted = in_order(got), in_order(wanted)
    assert list(got.columns) == list(wanted.columns)
    for name in wanted.columns:
        assert got[name].tolist() == wanted[name].tolist(), name


def test_a_model_is_sent_to_the_workers(cluster: Cluster, fitted: TSM2Forecaster) -> None:
    put, compute = cluster
    frame = put(series())
    assert_same(compute(engines.predict(fitted, frame)), fitted.predict(series()))
    how: dict[str, Any] = {"start": START, "stride": 3, "coverage": 0.8}
    got = engines.backtest(fitted, frame, partitions=3, **how)
    assert_same(compute(got), fitted.backtest(series(), **how))


def test_a_model_is_fitted_to_a_sample(cluster: Cluster, fitted: TSM2Forecaster) -> None:
    put, _ = cluster
    model = engines.fit(forecaster(), put(series()), sample=10)
    assert_same(model.predict(series()), fitted.predict(series()))


def test_workers_fit_a_model_to_each_group(cluster: Cluster) -> None:
    put, compute = cluster
    frame = series(store=True)
    models = engines.fit(forecaster(), put(frame), fit_by="store", partitions=2)
    wanted = engines.predict(engines.fit(forecaster(), frame, fit_by="store"), frame)
    assert_same(compute(engines.predict(models, put(frame), partitions=2)), wanted)


def test_an_error_in_a_worker_comes_in_our_words(cluster: Cluster, fitted: TSM2Forecaster) -> None:
    put, compute = cluster
    frame = put(series().drop(index=5))
    with pytest.raises(Exception, match=r"(?s)series 's000'.*row 5 should be at 2024-01-06"):
        compute(engines.predict(fitted, frame, partitions=2))
