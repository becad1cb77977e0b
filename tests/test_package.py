"""The package as a whole: what importing it costs, which way imports point, what ships."""

import ast
import re
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import tsm2

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tsm2"
MODULES = sorted(
    module.name
    for module in walk_packages(tsm2.__path__, "tsm2.")
    if not module.name.endswith("__main__")
)

LAYERS = {  # a module may import its own layer and those of smaller number
    "errors": 0,
    "metrics": 1,
    "replacing": 1,
    "saving": 1,
    "tables": 1,
    "kernels": 1,
    "networks": 2,
    "prepared": 2,
    "datasets": 2,
    "parameters": 3,
    "vision": 3,
    "training": 3,
    "fitted": 4,
    "backtest_files": 4,
    "pretraining": 4,
    "fitting": 5,
    "model_card": 5,
    "backtesting": 5,
    "backtest_request": 5,
    "plotting": 6,
    "refitting": 6,
    "estimator": 6,
    "forecaster": 7,
    "adapters": 8,
    "engines": 8,
    "benchmark": 8,
    "demo": 9,
    "cli": 10,
}
ORDERS = {  # within a package, a module may import those before it
    "networks": [
        "patches",
        "mixers",
        "heads",
        "dropout",
        "blocks",
        "covariates",
        "config",
        "tsm2",
        *("periods", "classical", "ensemble", "combined", "zero", "pretrained"),
    ],
    "tables": [
        *("ragged", "gaps", "quantiles", "wall_clocks", "business", "frequencies", "holidays"),
        *(
            "calendars",
            "stamps",
            "labels",
            "cells",
            "containers",
            "layout",
            "series",
            "covariates",
            "read",
            "write",
            "spreadsheet",
        ),
        *("time_columns", "date_formats", "dates", "csv"),
    ],
    "prepared": [
        *(
            "scaling",
            "logarithms",
            "nonnegative",
            "windows",
            "roles",
            "coding",
            "codings",
            "seasons",
            "splits",
            "walk",
            "prepared",
        ),
    ],
    "training": [
        "blocks",
        *("memory", "progress", "ema", "checkpoints", "optimization", "moments", "ridge"),
        *(
            "linear_choice",
            "told",
            "missed",
            "simple",
            "leading",
            "start",
            "choices",
            "position",
            "capture",
            "processes",
            "bounds",
        ),
        *("recording", "step", "fit", "recipe", "choosing"),
        *("callbacks", "loop", "ensembles"),
    ],
    "fitted": [
        *("adaptive", "rolling", "calibration", "inspection", "explanation", "floor", "model"),
        *("exporting", "pretrained", "saved", "what_if"),
    ],
}
TRITON_PARTS = ("backend", "conv", "rows", "scan", "segments")
PEERS = {  # modules that need them
    "tsm2.adapters.darts": "darts",
    "tsm2.adapters.neuralforecast": "neuralforecast",
    "tsm2.adapters.sktime": "sktime",
    "tsm2.kernels.mamba_ssm_backend": "selective_scan_cuda",
    "tsm2.engines.dask_frames": "dask.dataframe",
    "tsm2.engines.ray_datasets": "ray",
    "tsm2.engines.spark_frames": "pyspark",
    "tsm2.vision.timm": "timm",
    "tsm2.vision.detection": "torchvision",
} | {f"tsm2.kernels.triton_{part}": "triton" for part in TRITON_PARTS}
OPTIONAL = (
    "darts",
    "sktime",
    "neuralforecast",
    "triton",
    "mamba_ssm",
    "matplotlib",
    "typer",
    "polars",
)
VISION_MAY_IMPORT = {"errors", "kernels", "networks", "vision"}


LOOK_AT_KINDS = {  # of containers; the command line reads and writes files of its own
    *(f"tables/{name}.py" for name in ("read", "write", "layout", "covariates")),
    *(f"cli/{name}.py" for name in ("files", "known", "pictures", "commands/forecast")),
}
KIND = re.compile(r"""(layout_?|given|variates)\.(series|kind)\b|series=["'](one|long|list|dict)""")


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return result.stdout


def imported_modules(file: Path) -> set[str]:
    """Name the tsm2 modules that a file imports anywhere, as "networks.tsm2"."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.removeprefix("tsm2.") for name in names if name.startswith("tsm2.")}


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_imports_point_one_way(file: Path) -> None:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    if parts == ("__init__",):
        return
    layer = LAYERS[parts[0]]
    for name in imported_modules(file):
        target = name.split(".")[0]
        if target in LAYERS:
            assert LAYERS[target] < layer or target == parts[0], f"{file.name} imports {name}"


def test_kinds_of_containers_are_looked_at_where_tables_are_read_and_written() -> None:
    files = {str(file.relative_to(PACKAGE)): file for file in PACKAGE.rglob("*.py")}
    looking = {name for name, file in files.items() if KIND.search(file.read_text("utf-8"))}
    assert looking == LOOK_AT_KINDS


@pytest.mark.parametrize("package", ORDERS)
def test_imports_within_a_package_point_one_way(package: str) -> None:
    order = ORDERS[package]
    for place, name in enumerate(order):
        for imported in imported_modules(PACKAGE / package / f"{name}.py"):
            home, _, module = imported.partition(".")
            if home == package and module.split(".")[0] in order:
                assert order.index(module.split(".")[0]) < place, f"{name} imports {module}"


@pytest.mark.parametrize("package", ["tables", "prepared", "training", "fitted"])
def test_every_module_has_its_place_in_the_order(package: str) -> None:
    modules = {file.stem for file in (PACKAGE / package).glob("*.py")} - {"__init__"}
    assert modules == set(ORDERS[package])


@pytest.mark.parametrize("file", sorted((PACKAGE / "vision").glob("*.py")), ids=lambda f: f.name)
def test_vision_shares_kernels_and_networks_with_forecasting_and_nothing_else(file: Path) -> None:
    assert {name.split(".")[0] for name in imported_modules(file)} <= VISION_MAY_IMPORT


def test_forecasting_does_not_import_vision() -> None:
    for file in set(PACKAGE.rglob("*.py")) - set((PACKAGE / "vision").glob("*.py")):
        assert not any(name.startswith("vision") for name in imported_modules(file)), file


def test_importing_vision_loads_no_vision_library_and_nothing_of_forecasting() -> None:
    output = run_python(
        "import sys\nfrom tsm2.vision import vim2_nano\nvim2_nano()\n"
        "print([name for name in ('timm', 'torchvision', 'huggingface_hub', 'onnx', "
        "'matplotlib', 'tsm2.forecaster', 'tsm2.tables', 'tsm2.training') "
        "if name in sys.modules])"
    )
    assert output.strip() == "[]"


@pytest.mark.parametrize("name", ["tsm2", *MODULES])
def test_the_public_surface_is_what_all_says(name: str) -> None:
    if name in PEERS:
        pytest.importorskip(PEERS[name])
    module = import_module(name)
    if name.split(".")[-1].startswith("_") or not module.__doc__:
        pytest.fail(f"{name} has no docstring")
    assert hasattr(module, "__all__"), f"{name} has no __all__"
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert getattr(module, public) is not None


def test_importing_tsm2_loads_nothing_else() -> None:
    output = run_python(
        "import sys\n"
        "before = set(sys.modules)\n"
        "import tsm2\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - sys.stdlib_module_names))"
    )
    assert output.strip() == "['tsm2']"


def test_importing_the_forecaster_loads_nothing_optional() -> None:
    output = run_python(
        "import sys\nfrom tsm2 import TSM2Forecaster\n"
        f"print([name for name in {(*OPTIONAL, 'numba')!r} if name in sys.modules])"
    )
    assert output.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Forecaster'"):
        tsm2.Forecaster  # noqa: B018
    assert "TSM2Forecaster" in dir(tsm2)


def test_the_wheel_holds_tsm2_alone(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"tsm2", f"tsm2-{tsm2.__version__}.dist-info"}
    assert "tsm2/py.typed" in names
    tables = [name for name in names if name.endswith((".nbi", ".nbc", ".csv"))]
    assert tables == ["tsm2/benchmark/published.csv"]
