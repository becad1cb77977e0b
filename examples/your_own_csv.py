"""A CSV file on the command line: fit, forecast, measure. Takes half a minute."""

import os
import subprocess
import sys
from pathlib import Path

AIRLINE = (Path(__file__).parent / "data" / "airline.csv").read_text(encoding="utf-8")


def run(command: str) -> None:
    """Run a command as a terminal would, and print what it says."""
    print(f"$ {command}")
    call = [sys.executable, "-W", "ignore", "-m", *command.replace("tsm2", "tsm2.cli", 1).split()]
    terminal = os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(call, env=terminal, capture_output=True, text=True, check=False)
    print(done.stdout + done.stderr)
    done.check_returncode()


Path("sales.csv").write_text(AIRLINE, encoding="utf-8")
Path("known.csv").write_text("\n".join(AIRLINE.splitlines()[:121]) + "\n", encoding="utf-8")
# --8<-- [start:fit]
run(
    "tsm2 fit known.csv --horizon 12 --set validation_fraction=0.3 --set random_state=0 --out model"
)
# --8<-- [end:fit]
# --8<-- [start:predict]
run("tsm2 predict model known.csv --coverage 0.8 --out forecast.csv --plot forecast.png")
print("\n".join(Path("forecast.csv").read_text(encoding="utf-8").splitlines()[:4]))
# --8<-- [end:predict]
# --8<-- [start:backtest]
run("tsm2 backtest model sales.csv --start 1959-01 --stride 1")
# --8<-- [end:backtest]
# --8<-- [start:card]
print(Path("model", "README.md").read_text(encoding="utf-8"))
# --8<-- [end:card]
