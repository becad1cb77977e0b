"""What the command line says of the rows of a file."""

import pandas as pd
import pytest

from tsm2.cli.known import name_other_frequencies


def test_a_second_frequency_that_fits_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    name_other_frequencies(pd.date_range("2024-01-08", "2024-01-12"), "D")
    said = " ".join(capsys.readouterr().err.split())
    assert "taken to be 'D' apart, but 'B' would explain them as well" in said
    assert "--set frequency=B" in said
    name_other_frequencies(pd.date_range("2024-01-08", periods=40), "D")
    name_other_frequencies(pd.RangeIndex(5), 1)
    assert capsys.readouterr().err == ""
