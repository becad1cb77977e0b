"""Model folders: what was saved comes back, and what does not fit is named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tsm2.errors import OutputError, SavedModelError
from tsm2.vision import ViM2, ViM2Config, vim2_nano

OWN = ViM2Config(
    patch_size=2, dims=(16, 32), blocks=(1, 1), channel_expand=(2, 1), num_classes=5, d_state=4
)


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ViM2]:
    folder = tmp_path_factory.mktemp("hub") / "deep" / "model"
    model = ViM2(replace(OWN, zero_start=False, drop_path_rate=0.1)).eval()
    model.save_pretrained(folder)
    return folder, model


def test_what_was_saved_comes_back(saved: tuple[Path, ViM2]) -> None:
    folder, model = saved
    again = ViM2.from_pretrained(folder)
    assert again.config == model.config
    assert not again.training
    image = images(2, 3, 9, 12)
    assert torch.equal(again(image), model(image))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_variant_is_written_as_its_name_and_what_differs(tmp_path: Path) -> None:
    vim2_nano(num_classes=3, blocks=(1, 0, 0, 0)).save_pretrained(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["architecture"] == "vim2_nano"
    assert record["model_args"] == {"num_classes": 3, "blocks": [1, 0, 0, 0]}
    assert ViM2.from_pretrained(tmp_path).num_classes == 3


def test_a_model_of_before_the_default_of_the_states_changed_has_those_it_had(
    tmp_path: Path,
) -> None:
    """Such a folder does not name its 16 states: they were the default."""
    model = vim2_nano(num_classes=3, blocks=(1, 0, 0, 0), d_state=16, zero_start=False).eval()
    model.save_pretrained(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    del record["model_args"]["d_state"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    again, image = ViM2.from_pretrained(tmp_path), images(1, 3, 8, 8)
    assert again.config.d_state == 16
    assert torch.equal(again(image), model(image))


def test_a_new_classifier_is_saved_too(saved: tuple[Path, ViM2], tmp_path: Path) -> None:
    model = ViM2.from_pretrained(saved[0])
    model.reset_classifier(9, "max")
    model.save_pretrained(tmp_path)
    again, image = ViM2.from_pretrained(tmp_path), images(1, 3, 8, 8)
    assert again.global_pool == "max"
    assert torch.equal(again(image), model(image))


def test_settings_that_change_no_shape_may_differ(saved: tuple[Path, ViM2]) -> None:
    model = ViM2.from_pretrained(saved[0], drop_path_rate=0.3, dtype=torch.float64)
    assert model.config.drop_path_rate == 0.3
    assert model.norm.weight.dtype == torch.float64


def test_other_classes_and_widths_are_refused_weight_by_weight(saved: tuple[Path, ViM2]) -> None:
    folder, model = saved
    with pytest.raises(SavedModelError, match="reset_classifier") as caught:
        ViM2.from_pretrained(folder, num_classes=7)
    assert "2 weights do not fit" in str(caught.value)
    assert "head.weight: (5, 32) for (7, 32)" in str(caught.value)

    with pytest.raises(SavedModelError) as caught:
        ViM2.from_pretrained(folder, dims=(32, 32), blocks=(1, 2))
    other = ViM2(replace(model.config, dims=(32, 32), blocks=(1, 2))).state_dict()
    stored = load_file(folder / "model.safetensors")
    differing = [n for n, each in other.items() if n not in stored or stored[n].shape != each.shape]
    assert len(differing) > 50
    assert [name for name in differing if name not in str(caught.value)] == []


def test_a_pruned_model_is_not_saved(saved: tuple[Path, ViM2], tmp_path: Path) -> None:
    model = ViM2.from_pretrained(saved[0])
    model.prune_intermediate_layers([0])
    with pytest.raises(SavedModelError, match=r"stages\.1.*pruned model cannot be saved"):
        model.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "is not the config of a saved ViM2"),
        ("config.json", b"{", "is not the config of a saved ViM2"),
        ("config.json", b"[1]", "is not the config of a saved ViM2"),
        ("config.json", b"{}", "is not the config of a saved ViM2"),
        ("config.json", b'{"architecture": "resnet18"}', "is of a model 'resnet18'"),
        (
            "config.json",
            b'{"architecture": "vim2_tiny", "model_args": {"wings": 2}}',
            "settings that no ViM2 has.*'wings'",
        ),
        (
            "config.json",
            b'{"architecture": "vim2_tiny", "model_args": {"dims": 2}}',
            "settings that no ViM2 has",
        ),
        ("model.safetensors", None, "is missing or damaged"),
        ("model.safetensors", b"\x00" * 64, "is missing or damaged"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    ViM2(OWN).save_pretrained(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SavedModelError, match=message):
        ViM2.from_pretrained(tmp_path)


def test_what_is_neither_a_folder_nor_a_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SavedModelError, match="there is no folder"):
        ViM2.from_pretrained(tmp_path / "nowhere")


def test_a_repository_is_fetched(saved: tuple[Path, ViM2], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def fetch(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(saved[0])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    ViM2.from_pretrained("owner/vim2.pets", revision="v2")
    assert asked == [("owner/vim2.pets", "v2", ["config.json", "model.safetensors"])]

    def fail(*_: Any, **__: Any) -> str:
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(SavedModelError, match=r"cannot be fetched .*offline"):
        ViM2.from_pretrained("owner/vim2.pets")


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("")
    with pytest.raises(OutputError, match="cannot write a model to"):
        ViM2(OWN).save_pretrained(tmp_path / "model")
