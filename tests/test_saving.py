"""A model folder comes back as it went in, survives interruptions, and says what is wrong."""

import errno
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import forging
import numpy as np
import pytest
import torch
from filelock import FileLock
from forging import forge_weights, weights_file

from tsm2 import saving
from tsm2.errors import OutputError, SavedModelError
from tsm2.saving import FORMAT_VERSION, check_tensors, holds_model, load_folder, save_folder

OLD = {"name": "old"}
NEW = {"name": "new"}
OLD_TENSORS = {"w": torch.zeros(3)}
NEW_TENSORS = {"w": torch.ones(4)}


def save_old(folder: Path) -> None:
    save_folder(folder, kind="Model", config=OLD, tensors=OLD_TENSORS)


def save_new(folder: Path) -> None:
    save_folder(folder, kind="Model", config=NEW, tensors=NEW_TENSORS)


def assert_old_or_new(folder: Path) -> str:
    config, tensors = load_folder(folder, kind="Model")
    assert config in (OLD, NEW)
    torch.testing.assert_close(tensors, OLD_TENSORS if config == OLD else NEW_TENSORS)
    return str(config["name"])


def change_config(folder: Path, **changes: object) -> None:
    forging.change_config(folder, lambda saved: saved | changes)


# --- there and back -------------------------------------------------------------------------------


def test_config_comes_back_with_its_types(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "text": "Straße \ud800 \0",
        "none": None,
        "yes": True,
        "integer": 2**70,
        "float": 0.1 + 0.2,
        "negative zero": -0.0,
        "nested": {"list": [1, (2, [3, ()])], "": {}},
        "columns": ("a", 1, 1.5, ("b", 2), True),
        "infinite": [math.inf, -math.inf],
    }
    save_folder(tmp_path / "model", kind="Model", config=config, tensors={})
    got, tensors = load_folder(tmp_path / "model", kind="Model")
    assert got == config
    assert repr(got) == repr(config)  # 1 == 1.0 == True, but not in their repr
    assert tensors == {}


def test_nan_and_numpy_scalars_come_back_as_python(tmp_path: Path) -> None:
    config = {
        "nan": math.nan,
        "float32": np.float32(0.5),
        "float64": np.float64("nan"),
        "int": np.int8(-3),
        "bool": np.True_,
        "str": np.str_("a"),
    }
    save_folder(tmp_path / "model", kind="Model", config=config, tensors={})
    got, _ = load_folder(tmp_path / "model", kind="Model")
    assert repr(got) == repr(
        {"nan": math.nan, "float32": 0.5, "float64": math.nan, "int": -3, "bool": True, "str": "a"}
    )


def test_tensors_come_back_in_value_dtype_and_shape(tmp_path: Path) -> None:
    base = torch.arange(12, dtype=torch.float64).reshape(3, 4)
    tensors: dict[str, Any] = {
        "float64": np.linspace(0, 1, 5),
        "transposed": base.T,
        "strided": base[:, ::2],
        "view of the same": base[1:],
        "reversed": np.arange(6.0)[::-1],
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "scalar": torch.tensor(3),
        "empty": np.empty((0, 3)),
        "empty rows": torch.empty(2, 0, dtype=torch.float32),
        "bool": np.array([True, False]),
        "bfloat16": torch.ones(2, dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "lazily negated": torch.tensor([1 + 2j]).conj().imag,
        "read-only": np.broadcast_to(np.float32(2), (3,)),
        "nan": torch.tensor([math.nan, math.inf]),
    }
    save_folder(tmp_path / "model", kind="Model", config={}, tensors=tensors)
    _, got = load_folder(tmp_path / "model", kind="Model")
    wanted = {
        name: torch.from_numpy(np.array(each)) if isinstance(each, np.ndarray) else each.detach()
        for name, each in tensors.items()
    }
    torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)
    got["float64"][0] = 7  # in memory of its own, writable


def test_saving_twice_leaves_the_model_and_the_files_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    save_old(folder)
    (folder / "notes.txt").write_text("mine")
    save_new(folder)
    save_new(folder)
    assert assert_old_or_new(folder) == "new"
    assert sorted(each.name for each in folder.iterdir()) == [
        ".lock",
        "config.json",
        weights_file(folder).name,
        "notes.txt",
    ]


def test_saving_again_repairs_damaged_weights(tmp_path: Path) -> None:
    save_old(tmp_path)
    weights_file(tmp_path).write_bytes(b"")
    save_old(tmp_path)
    assert_old_or_new(tmp_path)


def test_config_file_says_who_wrote_it(tmp_path: Path) -> None:
    save_old(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["format"] == "tsm2-model"
    assert saved["format_version"] == FORMAT_VERSION
    assert set(saved["versions"]) == {"tsm2", "torch", "numpy", "pandas"}
    assert saved["weights"]["bytes"] == weights_file(tmp_path).stat().st_size
    assert weights_file(tmp_path).name == saved["weights"]["file"]


# --- what cannot be saved -------------------------------------------------------------------------


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"a": [1, {"b": object()}]}, r"config\['a'\]\[1\]\['b'\] is <object"),
        ({"a": {1, 2}}, r"config\['a'\] is \{1, 2\} of type builtins.set"),
        ({"a": print}, r"config\['a'\]"),
        ({"a": 1j}, "complex"),
        ({"a": np.zeros(2)}, "numpy.ndarray"),
        ({"a": np.datetime64("2024-01-01")}, "datetime.date"),
        ({"a": np.longdouble(1)}, "longdouble"),
        ({"a": b"x"}, "bytes"),
        ({"a": Text("x")}, "Text"),
        ({"a": {1: 2}}, r"config\['a'\] has the key 1"),
        ({"$tuple": []}, r"config has the key '\$tuple'"),
        ({"a": 10**5000}, "cannot be written as JSON"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_what_json_cannot_hold_is_named_before_anything_is_written(
    tmp_path: Path, config: dict[str, Any], where: str
) -> None:
    with pytest.raises(SavedModelError, match=where):
        save_folder(tmp_path / "model", kind="Model", config=config, tensors={})
    assert not list(tmp_path.iterdir())


def test_a_config_that_contains_itself_is_refused(tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SavedModelError, match="contains itself"):
        save_folder(tmp_path / "model", kind="Model", config={"loop": loop}, tensors={})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("objects", np.array([object()])),
        ("text", np.array(["a"])),
        ("long", np.zeros(2, dtype=np.longdouble)),
        ("sparse", torch.eye(2).to_sparse()),
        ("complex", torch.ones(2, dtype=torch.complex64)),
        ("nowhere", torch.empty(2, device="meta")),
        ("__metadata__", torch.ones(2)),
    ],
)
def test_tensors_that_safetensors_cannot_hold_are_named(
    tmp_path: Path, name: str, values: Any
) -> None:
    with pytest.raises(SavedModelError, match=f"tensor '{name}' .* cannot be saved"):
        save_folder(tmp_path / "model", kind="Model", config={}, tensors={name: values})
    assert not list(tmp_path.iterdir())


# --- where nothing may be overwritten -------------------------------------------------------------


def test_a_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        save_old(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"


def test_a_folder_of_other_files_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("mine")
    with pytest.raises(OutputError, match=r"no tsm2 model \(data.csv\)"):
        save_old(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["data.csv"]


@pytest.mark.parametrize("text", ["{}", "no JSON", '{"format": "other"}', "[]"])
def test_a_model_of_another_library_is_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(OutputError, match="something else than a tsm2 model"):
        save_old(tmp_path)
    assert (tmp_path / "config.json").read_text() == text


@pytest.mark.parametrize("place", ["file/model", "file/deeper/model", "nul\0"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written to"):
        save_old(tmp_path / place)


def test_a_config_that_points_outside_does_not_delete_there(tmp_path: Path) -> None:
    save_old(tmp_path / "model")
    (tmp_path / "precious").write_text("mine")
    change_config(tmp_path / "model", weights={"file": "../precious"})
    save_new(tmp_path / "model")
    assert (tmp_path / "precious").exists()
    assert load_folder(tmp_path / "model", kind="Model")[0] == NEW


# --- interruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False], ids=["replacing", "first"])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_a_full_disk_at_any_call_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, before: bool
) -> None:
    folder = tmp_path / "model"
    for nth in range(10):
        if before:
            save_old(folder)
        with monkeypatch.context() as patch:
            fail_at_call(patch, call, nth)
            message = None
            try:
                save_new(folder)
            except OutputError as error:
                message = str(error)
        if message is None:
            break  # there was no nth call
        assert "No space left" in message
        if before:
            last_fsync = call == "fsync" and nth == 3  # the folder's, after the deciding step
            assert assert_old_or_new(folder) == ("new" if last_fsync else "old")
            assert len(list(folder.iterdir())) == 3
        elif holds_model(folder):
            assert_old_or_new(folder)
    assert nth >= 2
    assert assert_old_or_new(folder) == "new"


def fail_at_call(patch: pytest.MonkeyPatch, call: str, nth: int) -> None:
    left = nth
    real_open = Path.open

    def is_due() -> bool:
        nonlocal left
        left -= 1
        return left == -1

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call in ("fsync", "replace"):
        real = getattr(os, call)
        patch.setattr(os, call, lambda *given: full() if is_due() else real(*given))
        return

    def open_and_fail(self: Path, mode: str = "r", **how: Any) -> Any:
        if "x" not in mode:
            return real_open(self, mode, **how)
        due = is_due()
        if due and call == "open":
            full()
        stream: Any = real_open(self, mode, buffering=0)
        if due:
            stream.close()
            stream = HalfFull(self)
        return stream

    patch.setattr(Path, "open", open_and_fail)


class HalfFull:
    """A file that takes half of what is written and then reports a full disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "HalfFull":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.path.write_bytes(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a killed process is a forked one")
@pytest.mark.parametrize("way", ["kill", "raise"])
@pytest.mark.parametrize("before", [True, False], ids=["replacing", "first"])
def test_a_stop_at_any_line_leaves_a_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, before: bool
) -> None:
    """Every line that touches the disk, stopped by the kernel or by Ctrl-C."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # slow; a killed process needs none
    outcomes = []
    nth, ended = 0, False
    while not ended:
        folder = tmp_path / str(nth)
        if before:
            save_old(folder)
        ended = save_in_a_process_stopped_at(folder, nth, way)
        if before or (folder / "config.json").exists():
            outcomes.append(assert_old_or_new(folder))
        save_new(folder)  # whatever is left does not stop the next save
        assert assert_old_or_new(folder) == "new"
        nth += 1
    assert nth > 50
    assert outcomes == sorted(outcomes, reverse=True)  # old until one line, new from there on
    assert set(outcomes) == ({"old", "new"} if before else {"new"})


def save_in_a_process_stopped_at(folder: Path, nth: int, way: str) -> bool:
    """Return whether the save ended before its nth line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, Python 3.12
        child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.settrace(stopper(nth, way))
            save_new(folder)
            code = 0
        except KeyboardInterrupt:
            code = 3
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 3)
    return code == 0


def stopper(nth: int, way: str) -> Any:
    disk = {"_write_model", "_replace_file", "_remove_unused", "check_replaceable"}
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        code = frame.f_code
        if code.co_filename != saving.__file__ or code.co_name not in disk:
            return None if code.co_name != "save_folder" else trace
        if event == "line":
            lines += 1
            if lines == nth + 1:
                if way == "kill":
                    os._exit(3)
                raise KeyboardInterrupt
        return trace

    return trace


def test_a_config_that_cannot_be_read_for_a_moment_costs_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_old(tmp_path)
    with monkeypatch.context() as patch:
        read = Path.read_bytes
        calls = iter([True] * 3)  # of the checks before the write

        def read_some(self: Path) -> bytes:
            if next(calls, False):
                return read(self)
            raise OSError(errno.EMFILE, "Too many open files")

        patch.setattr(Path, "read_bytes", read_some)
        fail_at_call(patch, "replace", 1)
        with pytest.raises(OutputError, match="No space left"):
            save_new(tmp_path)
    assert assert_old_or_new(tmp_path) == "old"


# --- several at once ------------------------------------------------------------------------------

SAVER = """
import sys, torch
from tsm2.saving import save_folder
k = int(sys.argv[2])
for n in range(40):
    which = (n + k) % 3  # the same models come again and again, from others too
    tensors = {"w": torch.full((20_000,), float(which))}
    save_folder(sys.argv[1], kind="Model", config={"which": which}, tensors=tensors)
"""


def test_savers_that_meet_lose_nothing_and_readers_see_whole_models(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    savers = [subprocess.Popen([sys.executable, "-c", SAVER, folder, str(k)]) for k in range(3)]
    loads = 0
    while any(saver.poll() is None for saver in savers):
        if holds_model(folder):
            config, tensors = load_folder(folder, kind="Model")
            assert (tensors["w"] == config["which"]).all()
            loads += 1
    assert [saver.wait() for saver in savers] == [0, 0, 0]
    assert loads
    load_folder(folder, kind="Model")
    assert len(list(folder.iterdir())) == 3  # config, weights and lock; nothing is left over


def test_a_save_waits_for_another_and_says_if_it_never_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_old(tmp_path)
    monkeypatch.setattr(saving, "_LONGEST_WAIT", 0.1)
    with FileLock(tmp_path / ".lock"), pytest.raises(OutputError, match="another save to"):
        save_new(tmp_path)
    assert assert_old_or_new(tmp_path) == "old"


def test_where_nothing_can_be_locked_saves_still_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    save_old(tmp_path)
    save_new(tmp_path)
    assert assert_old_or_new(tmp_path) == "new"
    assert len(list(tmp_path.glob("model-*"))) == 1


def test_the_next_save_removes_what_killed_ones_left(tmp_path: Path) -> None:
    save_old(tmp_path)
    for name in (".config.json.0123abcd.part", "model-0123456789ab.safetensors"):
        (tmp_path / name).write_text("half of it")
    (tmp_path / "model-mine.safetensors").write_text("mine")
    save_new(tmp_path)
    names = {".lock", "config.json", "model-mine.safetensors"}
    assert {each.name for each in tmp_path.iterdir()} - names == {
        json.loads((tmp_path / "config.json").read_text())["weights"]["file"]
    }


# --- damage ---------------------------------------------------------------------------------------


def test_no_flipped_bit_of_the_config_loads_another_model(tmp_path: Path) -> None:
    config = {"level": "last", "scale": 0.1, "stamps": ["2024-01-01T00:00:00"], "order": (1, 2)}
    save_folder(tmp_path, kind="Model", config=config, tensors=OLD_TENSORS)
    file = tmp_path / "config.json"
    whole = file.read_bytes()
    refused = 0
    for at in range(len(whole)):
        for bit in range(8):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            try:
                assert load_folder(tmp_path, kind="Model")[0] == config  # of white space alone
            except SavedModelError:
                refused += 1
    assert refused > 0.8 * 8 * len(whole)


def test_models_of_before_the_checksum_load(tmp_path: Path) -> None:
    save_old(tmp_path)
    file = tmp_path / "config.json"
    saved = json.loads(file.read_text()) | {"format_version": 1}
    del saved["sha256"]
    file.write_text(json.dumps(saved))
    assert assert_old_or_new(tmp_path) == "old"
    file.write_text(json.dumps(saved | {"format_version": 2}))
    with pytest.raises(SavedModelError, match="edited or damaged: its sha256 is not None"):
        load_folder(tmp_path, kind="Model")


@pytest.mark.parametrize(
    ("path", "reason"), [("", "is empty"), ("a\0b", "no path"), ("a" * 5000, "no path")]
)
def test_a_path_that_no_file_system_takes_is_refused(path: str, reason: str) -> None:
    with pytest.raises(SavedModelError, match=reason):
        load_folder(path, kind="Model")
    with pytest.raises(OutputError):
        save_old(path)  # type: ignore[arg-type]


# --- what cannot be loaded ------------------------------------------------------------------------


def damage_nothing_there(folder: Path) -> Path:
    return folder / "other"


def damage_a_file(folder: Path) -> Path:
    return folder / "config.json"


def damage_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def damage_no_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"format": "tsm2-model"')


def damage_not_utf8(folder: Path) -> None:
    (folder / "config.json").write_bytes(b'{"\xff": 1}')


def damage_deep_json(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


def damage_bare_nan(folder: Path) -> None:
    (folder / "config.json").write_text('{"format": "tsm2-model", "x": NaN}')


def damage_huge_config(folder: Path) -> None:
    with (folder / "config.json").open("r+b") as stream:
        stream.truncate(2**27)  # sparse


def damage_other_format(folder: Path) -> None:
    change_config(folder, format="pytorch")


def damage_newer_format(folder: Path) -> None:
    change_config(folder, format_version=3, versions={"tsm2": "7.1"})


def damage_version_is_text(folder: Path) -> None:
    change_config(folder, format_version="1")


def damage_other_kind(folder: Path) -> None:
    change_config(folder, kind="Other")


def damage_weights_gone(folder: Path) -> None:
    weights_file(folder).unlink()


def damage_weights_cut(folder: Path) -> None:
    file = weights_file(folder)
    file.write_bytes(file.read_bytes()[:-1])


def damage_weights_edited(folder: Path) -> None:
    file = weights_file(folder)
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")


def damage_weights_elsewhere(folder: Path) -> None:
    change_config(folder, weights={"file": "../weights.safetensors", "bytes": 1, "sha256": ""})


def damage_weights_unnamed(folder: Path) -> None:
    change_config(folder, weights=None)


def damage_huge_header(folder: Path) -> None:
    forge_weights(folder, (2**60).to_bytes(8, "little") + b"{}")


def damage_no_header(folder: Path) -> None:
    forge_weights(folder, b"")


def damage_no_safetensors(folder: Path) -> None:
    forge_weights(folder, (4).to_bytes(8, "little") + b"junk")


def damage_unknown_dtype(folder: Path) -> None:
    header = b'{"w":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
    forge_weights(folder, len(header).to_bytes(8, "little") + header + b"\0")


def damage_config_is_a_list(folder: Path) -> None:
    change_config(folder, config=[])


def damage_unknown_tag(folder: Path) -> None:
    change_config(folder, config={"a": {"$python": "print()"}})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_nothing_there, "other does not exist"),
        (damage_a_file, "config.json is a file"),
        (damage_no_config, "has no config.json"),
        (damage_no_json, "cannot be read: Expecting"),
        (damage_not_utf8, "cannot be read: 'utf-8'"),
        (damage_deep_json, "cannot be read: (maximum recursion|Stack overflow)"),
        (damage_bare_nan, "NaN is not JSON"),
        (damage_huge_config, "larger than any config"),
        (damage_other_format, "was not written by tsm2"),
        (damage_newer_format, r"by tsm2 7.1 in format 3, .* up to 2. .* 'tsm2>=7.1'"),
        (damage_version_is_text, "no valid format_version, got '1'"),
        (damage_other_kind, "of kind 'Other', but 'Model' is needed"),
        (damage_weights_gone, "weights .* cannot be read: .*No such file"),
        (damage_weights_cut, "has .* bytes, but .* were written: it is truncated"),
        (damage_weights_edited, "edited or damaged: its sha256"),
        (damage_weights_elsewhere, "names no weights file of tsm2: '../weights"),
        (damage_weights_unnamed, "names no weights file of tsm2: None"),
        (damage_huge_header, "header of 1152921504606846976 bytes in a file of 10"),
        (damage_no_header, "header of 0 bytes in a file of 0"),
        (damage_no_safetensors, "not readable safetensors"),
        (damage_unknown_dtype, "not readable safetensors"),
        (damage_config_is_a_list, "has no config"),
        (damage_unknown_tag, "unknown tag"),
    ],
    ids=lambda value: "" if isinstance(value, str) else value.__name__.removeprefix("damage_"),
)
def test_loading_says_what_is_wrong(tmp_path: Path, damage: Any, reason: str) -> None:
    save_old(tmp_path)
    path = damage(tmp_path) or tmp_path
    with pytest.raises(SavedModelError, match=reason):
        load_folder(path, kind="Model")


def test_no_module_that_runs_code_at_load_is_used() -> None:
    source = Path(saving.__file__).read_text()
    for name in ("import pickle", "torch.load", "joblib", "importlib", "eval("):
        assert name not in source


# --- names and shapes -----------------------------------------------------------------------------


def test_tensors_that_fit_pass() -> None:
    check_tensors({"a": torch.zeros(2, 3), "b": torch.tensor(1)}, {"b": (), "a": (2, 3)})


def test_every_tensor_that_does_not_fit_is_named() -> None:
    with pytest.raises(SavedModelError) as caught:
        check_tensors({"a": torch.zeros(2), "b": torch.zeros(3)}, {"b": (1, 3), "c": ()})
    for part in ("'c' is missing", "'a' is unexpected", r"'b' has shape (3,), but (1, 3)"):
        assert part in str(caught.value)
