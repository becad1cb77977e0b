"""The recipes run from a configuration to a trained model, and go on after a kill."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import image_folders
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tsm2.errors import BackendError, DatasetError, ParameterError, TrainingError

timm = pytest.importorskip("timm", exc_type=ImportError)
for _needed in ("torchvision", "segmentation_models_pytorch", "torchmetrics", "pycocotools"):
    pytest.importorskip(_needed, exc_type=ImportError)

pytestmark = [
    # timm reads an image and leaves its file to be closed when the garbage is collected.
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    # pycocotools knows an older numpy.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning"),
]

RECIPES = Path(__file__).parents[2] / "examples" / "vision"
sys.path += [str(RECIPES), str(Path(__file__).parents[1] / "training")]

captured: Any = import_module("captured")
recorders: Any = import_module("recorders")
recipe: Any = import_module("recipe")
classify: Any = import_module("classify")
segment: Any = import_module("segment")
detect: Any = import_module("detect")

TINY = ["model='test_convnext'", "epochs=3", "batch_size=2", "limit=4"]
FEW = (  # of all that a detector looks at
    "detector_options={min_size=64, max_size=64}",
    *(
        f"detector_options.{name}=8"
        for name in ("rpn_post_nms_top_n_train", "box_detections_per_img")
    ),
    *("detector_options.rpn_post_nms_top_n_test=8", "detector_options.box_batch_size_per_image=8"),
)
KINDS = {
    "digits": classify.Classification,
    "fashion-mnist": classify.Classification,
    "fashion-mnist-cnn": classify.Classification,
    "cifar10": classify.Classification,
    "imagenet": classify.Classification,
    "camvid": segment.Segmentation,
    "ade20k": segment.Segmentation,
    "nuclei": detect.Detection,
    "coco": detect.Detection,
    "coco-36-epochs": detect.Detection,
}


def run(main: Callable[..., None], config: str, out: Path, *changes: str, **paths: Path) -> Any:
    """Run a recipe for three epochs with a small network, and return its result."""
    main(config, out=out, changes=[*TINY, "model_options={}", *changes], device="cpu", **paths)
    return json.loads((out / "result.json").read_text())


def log_of(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open() as file:
        return list(csv.DictReader(file))


def weights_of(out: Path) -> dict[str, Tensor]:
    file = out / "model.safetensors"
    return load_file(file if file.exists() else out / "model" / "model.safetensors")


def run_classify(out: Path, data: Path, *changes: str) -> Any:
    data = data if data.exists() else image_folders.write_classes(data)
    small = "image_size=32", "mixup={}", "precision='no'", "workers=0"
    return run(classify.main, "imagenet", out, *small, *changes, data=data)


def run_segment(out: Path, data: Path, *changes: str) -> Any:
    data = data if data.exists() else image_folders.write_camvid(data)
    return run(segment.main, "camvid", out, "crop=[32, 64]", *changes, data=data)


def run_detect(out: Path, data: Path, *changes: str) -> Any:
    data = data if data.exists() else image_folders.write_instances(data)
    return run(detect.main, "nuclei", out, "limit=2", "batch_size=1", *FEW, *changes, data=data)


RUNS = {"classify": run_classify, "segment": run_segment, "detect": run_detect}


# --- from a configuration to a model --------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_a_run_leaves_its_log_its_result_and_its_model(name: str, tmp_path: Path) -> None:
    result = RUNS[name](tmp_path / "run", tmp_path / "data")
    log = log_of(tmp_path / "run")
    assert [row["epoch"] for row in log] == ["1", "2", "3"]
    assert all(np.isfinite(float(value)) for row in log for value in row.values())
    assert (result["updates"], result["epoch"]) == (6, 3)
    assert result["images"] == {"classify": 12, "segment": 12, "detect": 6}[name]
    weights = weights_of(tmp_path / "run")
    assert all(weight.isfinite().all() for weight in weights.values())
    assert 0 < result["parameters"] <= sum(weight.numel() for weight in weights.values())


def test_digits_need_no_folder(tmp_path: Path) -> None:
    result = run(classify.main, "digits", tmp_path / "run", "image_size=32")
    assert (result["classes"], result["layout"]) == (10, "digits")


def test_fashion_mnist_is_read_from_its_files(tmp_path: Path) -> None:
    data = image_folders.write_fashion_mnist(tmp_path / "data")
    settings = recipe.read_settings(classify.Classification, "fashion-mnist", None)
    train, test, classes = classify.fashion_mnist(settings, data)
    assert (len(train), len(test), classes) == (20, 20, 10)
    image, label = train[7]
    assert (image.size, label, np.asarray(image).max()) == ((28, 28), 7, 175)
    assert run(classify.main, "fashion-mnist", tmp_path / "run", "image_size=32", data=data)


def test_cifar10_may_be_folders_of_classes(tmp_path: Path) -> None:
    data = image_folders.write_classes(tmp_path / "data", parts=("train", "test"))
    assert (
        run(classify.main, "cifar10", tmp_path / "run", "precision='no'", "workers=0", data=data)[
            "classes"
        ]
        == 2
    )


def test_the_classifier_is_read_back_by_timm(tmp_path: Path) -> None:
    run_classify(tmp_path / "run", tmp_path / "data")
    place = f"local-dir:{tmp_path / 'run' / 'model'}"
    model = timm.create_model(place, pretrained=True)
    weights = weights_of(tmp_path / "run")
    assert model.num_classes == 2
    torch.testing.assert_close(dict(model.state_dict()), weights, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["segment", "detect"])
def test_a_trained_classifier_is_the_backbone_of_the_others(name: str, tmp_path: Path) -> None:
    run_classify(tmp_path / "classifier", tmp_path / "images")
    place = f"model='local-dir:{tmp_path / 'classifier' / 'model'}'"
    option = {"segment": "encoder_weights", "detect": "pretrained"}[name]
    still = "optimizer.lr=0.0", "schedule={}", "schedule.sched='constant'"
    RUNS[name](tmp_path / "run", tmp_path / "data", place, f"model_options.{option}=true", *still)
    found = weights_of(tmp_path / "run")
    wanted = weights_of(tmp_path / "classifier")["stem.0.weight"]
    (name_found,) = (key for key in found if key.endswith(("stem_0.weight", "stem.0.weight")))
    torch.testing.assert_close(found[name_found], wanted, rtol=0, atol=0)


@pytest.mark.parametrize("detector", ["faster_rcnn", "retinanet"])
def test_detectors_without_masks(detector: str, tmp_path: Path) -> None:
    options = "detector_options={}", "detector_options.min_size=64", "epochs=1"
    result = run_detect(tmp_path / "run", tmp_path / "data", f"detector='{detector}'", *options)
    assert "bbox_map_50" in result
    assert "segm_map_50" not in result


def test_coco_and_ade20k_layouts(tmp_path: Path) -> None:
    coco = image_folders.write_coco(tmp_path / "coco")
    small = "precision='no'", "workers=0", "epochs=1"
    assert run(detect.main, "coco", tmp_path / "a", *FEW, *small, data=coco)["classes"] == 2
    ade = image_folders.write_ade20k(tmp_path / "ade")
    sizes = "crop=[32, 64]", "held_out_side=64"
    assert run(segment.main, "ade20k", tmp_path / "b", *sizes, *small, data=ade)["classes"] == 150


# --- a run that is killed -------------------------------------------------------------------------


class KilledError(Exception):
    pass


@pytest.mark.parametrize("name", RUNS)
def test_a_run_cut_off_within_an_epoch_ends_as_an_unbroken_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    averaged = "ema_decay=0.5"
    unbroken = RUNS[name](tmp_path / "unbroken", tmp_path / "data", averaged)
    step = recipe.Training._step

    def cut_off(training: Any, batch: Any) -> Any:
        if training.updates == 3:  # in the middle of the second epoch
            raise KilledError
        return step(training, batch)

    with monkeypatch.context() as patch:
        patch.setattr(recipe.Training, "_step", cut_off)
        with pytest.raises(KilledError):
            RUNS[name](tmp_path / "broken", tmp_path / "data", averaged)
    assert len(log_of(tmp_path / "broken")) == 1
    resumed = RUNS[name](tmp_path / "broken", tmp_path / "data", averaged)
    assert log_of(tmp_path / "broken") == log_of(tmp_path / "unbroken")
    assert resumed | {"seconds": 0} == unbroken | {"seconds": 0}
    torch.testing.assert_close(
        weights_of(tmp_path / "broken"), weights_of(tmp_path / "unbroken"), rtol=0, atol=0
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_a_killed_process_goes_on(tmp_path: Path) -> None:
    changes = (
        "model='test_convnext'",
        "model_options={}",
        "epochs=20",
        "batch_size=8",
        "limit=16",
        "image_size=32",
    )
    settings = [word for change in changes for word in ("--set", change)]
    command = [sys.executable, str(RECIPES / "classify.py"), "digits", "--out", "killed"]
    with subprocess.Popen([*command, "--device", "cpu", *settings], cwd=tmp_path) as process:
        while not (tmp_path / "killed" / "log.csv").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert 1 <= len(log_of(tmp_path / "killed")) < 20
    for out in ("killed", "unbroken"):
        classify.main("digits", out=tmp_path / out, changes=list(changes), device="cpu")
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "unbroken")
    torch.testing.assert_close(
        weights_of(tmp_path / "killed"), weights_of(tmp_path / "unbroken"), rtol=0, atol=0
    )


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    run_classify(tmp_path / "run", tmp_path / "data")
    with pytest.raises(
        ParameterError, match="holds a run of other settings: optimizer, seed differ"
    ):
        run_classify(tmp_path / "run", tmp_path / "data", "seed=1", "optimizer.lr=0.5")


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = run_classify(tmp_path / "run", tmp_path / "data")
    assert run_classify(tmp_path / "run", tmp_path / "data") == first


# --- captured steps -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["classify", "segment"])
def test_captured_steps_leave_the_same_weights_and_log(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a tape of what PyTorch does; only a fused AdamW of a CPU reads its rate from a tensor."""
    changes = ["optimizer={opt='adamw', lr=1e-3, fused=true}", "ema_decay=0.5", "gradient_clip=0.5"]
    if name == "classify":
        changes.append("mixup={mixup_alpha=0.8, cutmix_alpha=1.0}")
    taken = RUNS[name](tmp_path / "taken", tmp_path / "data", *changes)
    tapes: list[Any] = []

    def record(*_: Any, **__: Any) -> Any:
        tapes.append(recorders.Tape())
        return tapes[-1]

    monkeypatch.setattr(captured, "find_recorder", record)
    replayed = RUNS[name](tmp_path / "replayed", tmp_path / "data", *changes)
    assert [(tape.recorded, tape.replays) for tape in tapes] == [(1, 6)]
    assert replayed | {"seconds": 0} == taken | {"seconds": 0}
    assert log_of(tmp_path / "replayed") == log_of(tmp_path / "taken")
    torch.testing.assert_close(
        weights_of(tmp_path / "replayed"), weights_of(tmp_path / "taken"), rtol=0, atol=0
    )


@pytest.mark.parametrize("detector", ["mask_rcnn", "retinanet"])
def test_captured_passes_of_a_detector_leave_the_same_weights_and_log(
    detector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = [f"detector='{detector}'", "limit=2", "batch_size=1", "ema_decay=0.5"]
    if detector == "mask_rcnn":
        sizes = "dims=[8, 16, 24, 32], blocks=[1, 1, 1, 1], d_state=2, backend='torch'"
        changes += [*FEW, "model='vim2_tiny'", f"model_options={{{sizes}, drop_path_rate=0.2}}"]
    else:
        changes += ["detector_options={min_size=64, max_size=64}", "accumulate=2", "batch_size=2"]
    data = image_folders.write_instances(tmp_path / "data")
    taken = run(detect.main, "nuclei", tmp_path / "taken", *changes, data=data)
    tape = recorders.Tape()
    monkeypatch.setattr(captured, "PAYS", 2)
    monkeypatch.setattr(captured, "find_recorder", lambda *_, **__: tape)
    replayed = run(detect.main, "nuclei", tmp_path / "replayed", *changes, data=data)
    # Six batches, two of them as they are, the others forward and backward.
    assert (tape.warm_ups, tape.recorded, tape.replays) == (3, 2, 8)
    assert replayed | {"seconds": 0} == taken | {"seconds": 0}
    assert log_of(tmp_path / "replayed") == log_of(tmp_path / "taken")
    torch.testing.assert_close(
        weights_of(tmp_path / "replayed"), weights_of(tmp_path / "taken"), rtol=0, atol=0
    )


def test_steps_that_cannot_be_captured_are_refused_when_they_must_be(tmp_path: Path) -> None:
    must = "capture_steps=true"
    with pytest.raises(BackendError, match=r"only CUDA has graphs"):
        run_detect(tmp_path / "a", tmp_path / "a.data", must)
    with pytest.raises(BackendError, match=r"capture_steps=true, but accumulate=2"):
        run_classify(tmp_path / "b", tmp_path / "b.data", must, "accumulate=2", "batch_size=4")
    with pytest.raises(BackendError, match=r"only CUDA has graphs"):
        run_classify(tmp_path / "c", tmp_path / "b.data", must)
    with pytest.raises(ParameterError, match=r"capture_steps 'always' is unknown; known: auto"):
        run_classify(tmp_path / "d", tmp_path / "b.data", "capture_steps='always'")


def test_a_run_goes_on_with_its_steps_captured_or_not(tmp_path: Path) -> None:
    first = run_classify(tmp_path / "run", tmp_path / "data")
    assert run_classify(tmp_path / "run", tmp_path / "data", "capture_steps=false") == first


# --- how training goes ----------------------------------------------------------------------------


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    losses = {
        run_classify(tmp_path / str(seed), tmp_path / "data", f"seed={seed}")["loss"]
        for seed in (0, 1)
    }
    assert len(losses) == 2


def test_accumulated_batches_make_the_update_of_a_whole_one(tmp_path: Path) -> None:
    for accumulate in (1, 2):
        run_classify(
            tmp_path / str(accumulate),
            tmp_path / "data",
            f"accumulate={accumulate}",
            *("batch_size=4", "epochs=2", "model_options={drop_path_rate=0.0}"),
            *("optimizer={opt='sgd', lr=0.1}", "ema_decay=0.0"),
        )
    one, two = (weights_of(tmp_path / str(accumulate)) for accumulate in (1, 2))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_every_epoch_draws_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    step = recipe.Training._step

    def record(training: Any, batch: Any) -> Any:
        seeds.append(torch.initial_seed())
        return step(training, batch)

    monkeypatch.setattr(recipe.Training, "_step", record)
    run_classify(tmp_path / "run", tmp_path / "data")
    assert [seeds[0], seeds[2], seeds[4]] == [seeds[1], seeds[3], seeds[5]]
    assert len(set(seeds)) == 3


def test_a_small_limit_of_the_gradients_leaves_the_weights(tmp_path: Path) -> None:
    plain = "optimizer={}", "optimizer.opt='sgd'", "ema_decay=0.0"
    for name, rate, limit in (("limited", 1.0, 1e-12), ("still", 0.0, 5.0), ("free", 1.0, 5.0)):
        run_classify(
            *(tmp_path / name, tmp_path / "data", *plain, f"gradient_clip={limit}"),
            *(f"optimizer.lr={rate}", "schedule={}", "schedule.sched='constant'"),
        )
    limited, still, free = (weights_of(tmp_path / name) for name in ("limited", "still", "free"))
    torch.testing.assert_close(limited, still, rtol=0, atol=1e-6)
    assert (free["head.fc.weight"] - still["head.fc.weight"]).abs().max() > 1e-3


def test_averaged_weights_are_the_result(tmp_path: Path) -> None:
    run_classify(tmp_path / "run", tmp_path / "data", "ema_decay=0.9")
    kept = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    found = weights_of(tmp_path / "run")
    torch.testing.assert_close(found, dict(kept["average"]), rtol=0, atol=0)
    assert not torch.equal(found["head.fc.weight"], kept["model"]["head.fc.weight"])
    run_classify(tmp_path / "shorter", tmp_path / "data", "ema_decay=0.9", "epochs=2")
    assert not torch.equal(
        found["head.fc.weight"], weights_of(tmp_path / "shorter")["head.fc.weight"]
    )


def test_a_budget_ends_the_run_with_its_schedule_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step = recipe.Training._step

    def record(training: Any, batch: Any) -> Any:
        loss = step(training, batch)
        rates.append(training.optimizer.param_groups[0]["lr"])
        return loss

    monkeypatch.setattr(recipe.Training, "_step", record)
    result = run_classify(
        *(tmp_path / "run", tmp_path / "data", "epochs=100000", "minutes=0.02"),
        *("schedule={}", "schedule.sched='cosine'"),
    )
    assert result["epoch"] < 100000
    assert 1.2 <= result["seconds"] < 60
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.2 * rates[0]


def test_a_budget_is_for_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe.Accelerator, "num_processes", 2)
    with pytest.raises(ParameterError, match=r"minutes=1.0 is for one process.*there are 2"):
        run_classify(tmp_path / "run", tmp_path / "data", "minutes=1.0")


def test_mixed_labels_train(tmp_path: Path) -> None:
    mixing = "mixup={mixup_alpha=0.8, cutmix_alpha=1.0}"
    assert np.isfinite(run_classify(tmp_path / "run", tmp_path / "data", mixing)["loss"])


def test_a_loss_that_leaves_the_numbers_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"became (nan|inf) in epoch \d. Lower lr in"):
        run_classify(
            *(tmp_path / "run", tmp_path / "data", "schedule={}", "schedule.sched='constant'"),
            "optimizer={opt='sgd', lr=1e30}",
        )


def test_pixels_without_a_label_neither_train_nor_break(tmp_path: Path) -> None:
    scores = torch.randn(2, 3, 4, 4, requires_grad=True)
    labels = torch.zeros(2, 4, 4, dtype=torch.int64)
    labels[1] = segment.IGNORED
    segment.pixel_loss(scores, labels).backward()
    assert scores.grad is not None
    assert scores.grad[1].abs().max() == 0
    assert scores.grad[0].abs().max() > 0
    assert segment.pixel_loss(scores[1:], labels[1:]) == 0


def test_scores_of_a_whole_image_lie_where_its_labels_do() -> None:
    image = torch.rand(1, 3, 40, 70)
    sizes = []

    def model(padded: Tensor) -> Tensor:
        sizes.append(padded.shape[-2:])
        return padded

    assert torch.equal(segment.class_scores(model, image, image.shape[-2:]), image)
    assert segment.class_scores(model, image, (80, 140)).shape == (1, 3, 80, 140)
    assert sizes == [(64, 96)] * 2  # what decoders take


def test_the_classifier_and_the_segmenter_learn(tmp_path: Path) -> None:
    quick = "optimizer.lr=3e-3", "schedule.warmup_epochs=0"
    found = run_classify(tmp_path / "a", tmp_path / "a.data", *quick, "limit=12", "ema_decay=0.0")
    assert found["accuracy"] == 1
    found = run_segment(tmp_path / "b", tmp_path / "b.data", *quick, "epochs=25")
    assert found["pixel_accuracy"] > 0.6  # of four classes
    assert found["mean_iou"] > 0.4


# --- what is read ---------------------------------------------------------------------------------


def test_objects_of_a_coco_file(tmp_path: Path) -> None:
    data = image_folders.write_coco(tmp_path)
    settings = recipe.read_settings(detect.Detection, "coco", None)
    train, val = detect.open_images(settings, data)
    assert (len(train), len(val)) == (3, 4)  # the image without objects trains nothing
    assert train.labels == {3: 1, 90: 2}
    assert all(objects["iscrowd"].sum() == 0 for _, objects in train)
    assert sum(int(objects["iscrowd"].sum()) for _, objects in val) == 3
    assert len(val[0][1]["boxes"]) == 0


@pytest.mark.parametrize("layout", ["coco", "instances"])
def test_boxes_surround_their_masks_also_when_mirrored(layout: str, tmp_path: Path) -> None:
    write = {"coco": image_folders.write_coco, "instances": image_folders.write_instances}[layout]
    settings = recipe.read_settings(
        detect.Detection, "nuclei", [f"layout='{layout}'", "vertical_flips=true"]
    )
    train, _ = detect.open_images(settings, write(tmp_path))
    torch.manual_seed(0)
    for image, objects in [train[index] for index in range(len(train)) for _ in range(4)]:
        assert image.dtype == torch.float32
        assert 0 <= image.min() < image.max() <= 1
        for box, mask in zip(objects["boxes"], objects["masks"], strict=True):
            rows, columns = mask.nonzero(as_tuple=True)
            wanted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == [float(edge) for edge in wanted]
            assert image[:, mask].mean() > 0.6 > image.mean()  # the bright disc itself


def test_labels_follow_their_pixels(tmp_path: Path) -> None:
    data = image_folders.write_camvid(tmp_path)
    settings = recipe.read_settings(segment.Segmentation, "camvid", ["crop=[32, 64]", "jitter={}"])
    view = segment.training_view(settings)
    images = segment.LabelledImages(data / "train", data / "trainannot", settings, view)
    torch.manual_seed(0)
    image, labels = images[0]
    assert (image.shape, labels.shape) == ((3, 32, 64), (32, 64))
    shown = set(labels.unique().tolist())
    assert shown <= {0, 1, 2, 3, segment.IGNORED}
    for label in shown & {0, 1, 2}:  # red, green and blue
        assert image[:, labels == label].mean(1).argmax() == label


def test_labels_that_count_from_one_are_read_from_zero(tmp_path: Path) -> None:
    data = image_folders.write_ade20k(tmp_path)
    settings = recipe.read_settings(segment.Segmentation, "ade20k", ["held_out_side=64"])
    folders = data / "images" / "validation", data / "annotations" / "validation"
    images = segment.LabelledImages(*folders, settings, segment.held_out_view(settings))
    image, labels = images[0]
    assert (image.shape, labels.shape) == ((3, 64, 85), (72, 96))  # labels keep their size
    assert labels.unique().tolist() == [0, 1, 2, 3, segment.IGNORED]


def test_the_paper_is_what_its_configurations_say() -> None:
    imagenet = recipe.read_settings(classify.Classification, "imagenet", None)
    assert (imagenet.epochs, imagenet.batch_size) == (300, 1024)
    assert imagenet.optimizer == {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.05}
    assert imagenet.schedule["warmup_epochs"] == 20
    ade = recipe.read_settings(segment.Segmentation, "ade20k", None)
    assert (ade.crop, ade.batch_size, ade.optimizer["lr"]) == ([512, 512], 16, 6e-5)
    for name, epochs in (("coco", 12), ("coco-36-epochs", 36)):
        coco = recipe.read_settings(detect.Detection, name, None)
        assert (coco.epochs, coco.optimizer["lr"], coco.detector) == (epochs, 1e-4, "mask_rcnn")


def test_fashion_mnist_compares_networks_of_a_size_trained_alike() -> None:
    configs = [
        recipe.read_settings(classify.Classification, name, None)
        for name in ("fashion-mnist", "fashion-mnist-cnn")
    ]
    sizes = []
    for config in configs:
        model = timm.create_model(config.model, num_classes=10, in_chans=1, **config.model_options)
        sizes.append(sum(weight.numel() for weight in model.parameters()))
        assert model.eval()(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
        assert model.forward_features(torch.zeros(1, 1, 28, 28)).shape[2:] == (4, 4)
    assert sizes == [128_070, 129_390]
    assert replace(configs[0], model="", model_options={}) == replace(
        configs[1], model="", model_options={}
    )


def test_digits_are_a_small_network() -> None:
    config = recipe.read_settings(classify.Classification, "digits", None)
    model = timm.create_model(config.model, num_classes=10, in_chans=1, **config.model_options)
    assert sum(weight.numel() for weight in model.parameters()) <= 100_000


def test_every_configuration_is_one_of_a_recipe() -> None:
    names = {file.stem for file in recipe.CONFIGS.glob("*.toml")}
    assert names == set(KINDS)
    for name, kind in KINDS.items():
        recipe.read_settings(kind, name, None)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epoch=3", r"setting 'epoch' is unknown; .*Did you mean 'epochs'"),
        ("epochs='3'", r"epochs must be int, got '3'"),
        ("epochs=true", r"epochs must be int, got True"),
        ("epochs=0", r"epochs must be at least 1, got 0"),
        ("minutes=-1.0", r"minutes must be positive, got -1.0"),
        ("ema_decay=1.0", r"ema_decay must be in \[0, 1\), got 1.0"),
        ("precision='half'", r"precision 'half' is unknown; known: no, bf16"),
        ("layout='folders'", r"layout 'folders' is unknown; .*Did you mean 'folder'"),
        ("model=vim2_tiny", r"--set 'model=vim2_tiny' is not TOML.*needs quotes"),
        ("channels=1", r"mean and std need a value for each of 1 channels"),
        ("accumulate=1024", r"mixes pairs, so batch_size / accumulate must be even"),
    ],
)
def test_settings_that_are_refused(change: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        recipe.read_settings(classify.Classification, "imagenet", [change])


def test_settings_that_are_missing_are_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("layout = 'digits'")
    with pytest.raises(ParameterError, match=r"mine.toml: .*missing.*'model', 'epochs'"):
        recipe.read_settings(classify.Classification, str(tmp_path / "mine.toml"), None)


def test_an_unknown_configuration_names_those_there_are() -> None:
    with pytest.raises(ParameterError, match=r"no configuration file 'cifar'; .*cifar10, coco"):
        recipe.read_settings(classify.Classification, "cifar", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("augment.colour=1", r"\[augment\]: .*colour"),
        ("view.crop=1", r"\[view\]: .*crop"),
        ("model_options.depth=1", r"model or \[model_options\]: .*depth"),
        ("optimizer.rate=1", r"\[optimizer\]: .*rate"),
        ("schedule.warmup=1", r"\[schedule\]: .*warmup"),
        ("mixup.alpha=1", r"\[mixup\]: .*alpha"),
        ("batch_size=16", r"there are 4 training images, fewer than batch_size=16"),
        ("accumulate=3", r"batch_size=2 does not divide among 3 batches"),
        ("model='vim3_tiny'", r"model or \[model_options\]: Unknown model \(vim3_tiny\)"),
    ],
)
def test_options_that_a_function_does_not_take(change: str, message: str, tmp_path: Path) -> None:
    with pytest.raises((ParameterError, DatasetError), match=message):
        run_classify(tmp_path / "run", tmp_path / "data", change)


@pytest.mark.parametrize("config", [name for name in KINDS if name != "digits"])
def test_data_that_are_not_there(config: str, tmp_path: Path) -> None:
    kind = KINDS[config].__module__
    for paths, message in (
        ({}, "there is no --data.* needs --data FOLDER with"),
        ({"data": tmp_path}, "has no .* needs --data FOLDER with"),
    ):
        with pytest.raises(DatasetError, match=message):
            run(import_module(kind).main, config, tmp_path / "run", **paths)


def test_classes_that_differ_between_the_parts_are_named(tmp_path: Path) -> None:
    data = image_folders.write_classes(tmp_path / "data")
    (data / "val" / "red").rename(data / "val" / "blue")
    with pytest.raises(DatasetError, match="same classes; only one of them has blue, red"):
        run_classify(tmp_path / "run", data)


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / "data" / part).mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"A layout of folders is .*/train/CLASS/"):
        run_classify(tmp_path / "run", tmp_path / "data")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    data = image_folders.write_fashion_mnist(tmp_path / "data")
    (data / "train-labels-idx1-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(DatasetError, match=r"train-labels-idx1-ubyte.gz is damaged"):
        run(classify.main, "fashion-mnist", tmp_path / "run", data=data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("classes=3", r"labels \[3\]; with classes=3, first_label=0 they go from 0 to 2"),
        ("ignored_label=12", r"labels \[11\]; .* and 12 is ignored"),
        ("crop=[32, 40]", r"crop must be two multiples of 32, got \[32, 40\]"),
        ("shorter_side=[64, 32]", r"shorter_side must be a range"),
        ("decoder='upernett'", r"decoder, model or \[model_options\]: .*upernett"),
    ],
)
def test_segmentations_that_are_refused(change: str, message: str, tmp_path: Path) -> None:
    with pytest.raises((ParameterError, DatasetError), match=message):
        run_segment(tmp_path / "run", tmp_path / "data", change)


def test_an_image_without_labels_is_named(tmp_path: Path) -> None:
    data = image_folders.write_camvid(tmp_path / "data")
    (data / "trainannot" / "2.png").unlink()
    with pytest.raises(DatasetError, match=r"trainannot/2.png is missing"):
        run_segment(tmp_path / "run", data)


def test_objects_of_other_sizes_than_their_image_are_refused(tmp_path: Path) -> None:
    data = image_folders.write_instances(tmp_path / "data")
    (data / "train" / "images" / "0.png").unlink()
    image_folders._save(data / "train" / "images" / "0.png", np.zeros((50, 60, 3), dtype=np.uint8))
    with pytest.raises(DatasetError, match=r"0.png has \(50, 60\) pixels, its objects \(96, 96\)"):
        run_detect(tmp_path / "run", data)


def test_the_command_ends_with_one_message(tmp_path: Path) -> None:
    script = str(RECIPES / "classify.py")
    command = [sys.executable, script, "fashion-mnist", "--out", str(tmp_path / "run")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: there is no --data.")
    assert "Traceback" not in result.stderr
