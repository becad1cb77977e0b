"""Files are found, verified and downloaded; a wrong one is never used and never stays."""

import gc
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pooch
import pytest

from tsm2.datasets import Dataset, check, describe, fetch, load, path
from tsm2.errors import DatasetError

CONTENT = b"date,a,b\n2020-01-01 00:00:00,1,2.5\n2020-01-01 01:00:00,3,-4\n"
WRONG = CONTENT.replace(b"2.5", b"2.6")
MINE = Dataset(
    name="Mine",
    file="folder/mine.csv",
    addresses=("http://unused.invalid/mine.csv",),
    bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    rows=2,
    variates=2,
    frequency="h",
    licence="ours",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test an empty cache folder, no data home and a network that is down."""

    def refuse(self: object, url: str, output_file: BinaryIO, pooch: object) -> None:
        output_file.write(CONTENT[:10])  # what came before the line broke
        raise ConnectionError("[Errno 111] foreign words")

    folder = tmp_path / "cache" / "tsm2"
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", refuse)
    monkeypatch.delenv("TSM2_DATA_HOME", raising=False)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def put(folder: Path, file: str = MINE.file, content: bytes = CONTENT) -> Path:
    target = folder / file
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return target


def files_below(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if not file.is_dir()]


# --- what lies on this machine ---


def test_a_file_is_found_at_its_path_or_directly_in_the_data_home(home: Path) -> None:
    flat = put(home, "mine.csv")
    assert path(MINE, data_home=home) == flat
    nested = put(home)
    assert path(MINE, data_home=str(home)) == nested


def test_the_argument_comes_before_the_environment_and_that_before_the_cache(
    home: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_cache = put(cache)
    assert path(MINE) == in_cache
    in_environment = put(tmp_path / "environment")
    monkeypatch.setenv("TSM2_DATA_HOME", str(tmp_path / "environment"))  # read at call
    assert path(MINE) == in_environment
    assert path(MINE, data_home=home) == in_cache  # an empty home; the environment is not asked
    assert path(MINE, data_home=home) == fetch(MINE, data_home=home)
    in_home = put(home)
    assert path(MINE, data_home=home) == in_home


def test_an_empty_environment_variable_is_none(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSM2_DATA_HOME", "")
    assert check(MINE).path == cache / MINE.file


def test_a_data_home_that_is_no_folder_is_an_error(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DatasetError, match=r"data_home is '.*nowhere', which is not a folder"):
        load(MINE, data_home=home / "nowhere")
    monkeypatch.setenv("TSM2_DATA_HOME", str(put(home)))
    with pytest.raises(DatasetError, match=r"TSM2_DATA_HOME is '.*mine\.csv', which is not a"):
        check(MINE)


def test_check_says_what_is_there(home: Path) -> None:
    missing = check(MINE, data_home=home)
    assert (missing.status, missing.path) == ("missing", home / MINE.file)
    assert (missing.expected, missing.found) == (MINE.checksum, None)

    put(home)
    present = check(MINE, data_home=home)
    assert (present.dataset, present.status, present.path) == ("Mine", "present", home / MINE.file)
    assert present.expected == present.found == MINE.checksum

    put(home, content=CONTENT[:-1])
    short = check(MINE, data_home=home)
    assert short.status == "wrong size"
    assert (short.expected, short.found) == (f"{len(CONTENT)} bytes", f"{len(CONTENT) - 1} bytes")

    put(home, content=WRONG)
    wrong = check(MINE, data_home=home)
    assert wrong.status == "wrong checksum"
    assert wrong.expected == MINE.checksum
    assert wrong.found == f"sha256 {hashlib.sha256(WRONG).hexdigest()}"


def test_a_git_blob_id_identifies_a_file_without_sha256(home: Path) -> None:
    # "hello\n" is ce013625... in every git repository
    solar_like = replace(
        MINE, bytes=None, sha256=None, git_blob="ce013625030ba8dba906f756967f9e9ca394464a"
    )
    put(home, content=b"hello\n")
    assert check(solar_like, data_home=home).status == "present"
    put(home, content=b"hallo\n")
    assert check(solar_like, data_home=home).status == "wrong checksum"


@pytest.mark.parametrize("use", [path, fetch, load])
def test_a_wrong_file_is_refused_with_both_checksums(use: Any, home: Path, cache: Path) -> None:
    put(cache)  # the right file further on does not excuse it
    damaged = put(home, content=WRONG)
    with pytest.raises(DatasetError) as caught:
        use(MINE, data_home=home)
    message = str(caught.value)
    assert str(damaged) in message
    assert f"expected {MINE.checksum}" in message
    assert f"found sha256 {hashlib.sha256(WRONG).hexdigest()}" in message
    assert "Delete or move it" in message
    assert damaged.read_bytes() == WRONG


def test_a_file_of_the_wrong_size_is_refused(home: Path) -> None:
    put(home, content=CONTENT + b"\n")
    message = f"wrong size: expected {len(CONTENT)} bytes, found {len(CONTENT) + 1} bytes"
    with pytest.raises(DatasetError, match=message):
        load(MINE, data_home=home)


# --- missing, and no network ---


@pytest.mark.parametrize("download", [True, False])
def test_a_missing_file_says_where_to_get_it_and_where_to_put_it(
    download: bool, home: Path
) -> None:
    record = describe("ETTh1")
    with pytest.raises(DatasetError) as caught:
        load("etth1", data_home=home, download=download)
    message = str(caught.value)
    assert record.file in message
    assert f"put it at {home / record.file}" in message
    assert f"sha256 {record.sha256}" in message
    assert f"Get it from {record.addresses[0]} (2,589,657 bytes" in message
    assert "foreign words" not in message
    assert "Traceback" not in message
    assert ("could not be downloaded" in message) == download
    for address in record.addresses:
        assert (f"{address}: ConnectionError" in message) == download
    assert isinstance(caught.value, OSError)


def test_a_broken_download_leaves_nothing(cache: Path) -> None:
    with pytest.raises(DatasetError, match="ConnectionError"):
        fetch(MINE)
    assert files_below(cache) == []
    assert check(MINE).status == "missing"


def test_an_interrupted_download_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: object, url: str, output_file: BinaryIO, pooch: object) -> None:
        output_file.write(CONTENT[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(MINE)
    assert files_below(cache) == []


def test_a_record_without_address_says_so() -> None:
    with pytest.raises(DatasetError, match="no address is known"):
        fetch(replace(MINE, addresses=()))


def test_a_disk_error_is_told_in_the_words_of_the_system(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, url: str, output_file: str, pooch: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", full)
    with pytest.raises(DatasetError, match=r"mine\.csv: OSError, No space left on device"):
        fetch(MINE)


# --- a real download, from this machine to itself ---


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the right file, a wrong one and one cut short; return the server's address."""
    monkeypatch.undo()  # the network is up again

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            bodies = {"/right.csv": CONTENT, "/wrong.csv": WRONG, "/cut.csv": CONTENT[:-9]}
            if self.path not in bodies:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(bodies[self.path])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture
def online(server: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("TSM2_DATA_HOME", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return server


def test_a_verified_download_lands_in_the_cache_and_loads(online: str, cache: Path) -> None:
    record = replace(MINE, addresses=(f"{online}/right.csv",))
    frame = load(record)
    assert (cache / MINE.file).read_bytes() == CONTENT
    assert files_below(cache) == [cache / MINE.file]
    stamps = pd.DatetimeIndex(["2020-01-01 00:00", "2020-01-01 01:00"], name="date")
    wanted = pd.DataFrame({"a": [1.0, 3.0], "b": [2.5, -4.0]}, index=stamps)
    pd.testing.assert_frame_equal(frame, wanted, check_index_type=False)
    assert load(replace(record, addresses=()), download=False).equals(frame)  # from the cache


def test_a_wrong_download_is_refused_and_leaves_nothing(online: str, cache: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        fetch(replace(MINE, addresses=(f"{online}/wrong.csv",)))
    message = str(caught.value)
    assert f"expected {MINE.checksum}" in message
    assert f"found sha256 {hashlib.sha256(WRONG).hexdigest()}" in message
    assert files_below(cache) == []


def test_a_download_that_is_cut_short_leaves_nothing(online: str, cache: Path) -> None:
    with pytest.raises(DatasetError, match=r"cut\.csv"):
        fetch(replace(MINE, addresses=(f"{online}/cut.csv",)))
    assert files_below(cache) == []


def test_the_next_address_is_tried(online: str, cache: Path) -> None:
    addresses = tuple(f"{online}/{file}.csv" for file in ("absent", "wrong", "cut", "right"))
    assert fetch(replace(MINE, addresses=addresses)) == cache / MINE.file
    assert files_below(cache) == [cache / MINE.file]


def test_a_page_that_is_not_there_is_told_by_its_status(online: str) -> None:
    with pytest.raises(DatasetError, match=r"absent\.csv: HTTP status 404"):
        fetch(replace(MINE, addresses=(f"{online}/absent.csv",)))
    gc.collect()  # a connection left open would be reported here


def test_a_download_without_end_is_cut_off(online: str, cache: Path) -> None:
    record = replace(MINE, bytes=len(CONTENT) - 20, addresses=(f"{online}/right.csv",))
    with pytest.raises(DatasetError, match=f"more than the {len(CONTENT) - 20} bytes expected"):
        fetch(record)
    assert files_below(cache) == []
    gc.collect()  # a connection left open would be reported here
