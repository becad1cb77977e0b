"""Lessons: the same by one process or several, and no process is left behind."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from itertools import count, islice
from multiprocessing.process import BaseProcess

import psutil
import pytest
import torch

from tsm2.errors import BackendError
from tsm2.networks.config import NetworkConfig
from tsm2.pretraining import lessons as module
from tsm2.pretraining.lessons import Draw, Lesson, choose_workers, drawn, lessons

DRAWS = [
    Draw((3, 1, number), variates=(1, 4, 2)[number % 3], windows=12, lessons=3, first=number % 2)
    for number in range(5)
]


def assert_same(one: Lesson, two: Lesson) -> None:
    for name, a, b in zip(Lesson._fields, one, two, strict=True):
        assert torch.equal(a, b), name


def test_lessons_have_the_shapes_that_they_promise(zero_sizes: NetworkConfig) -> None:
    lesson = lessons(zero_sizes, DRAWS[1])
    assert lesson.context.shape == lesson.mask.shape == (2, 12, 4, 64)
    assert lesson.static.shape == (2, 12, 4, zero_sizes.n_static)
    assert lesson.target.shape == (2, 12, 4, 8)
    assert [each.target.shape for each in lesson.each()] == 2 * [(12, 4, 8)]
    assert lesson.target.abs().max() <= 15


def test_a_lesson_is_the_same_behind_others_and_alone(zero_sizes: NetworkConfig) -> None:
    whole = lessons(zero_sizes, DRAWS[0]).each()
    assert_same(lessons(zero_sizes, DRAWS[0]._replace(first=2)).each()[0], whole[2])


def test_threads_change_no_number(zero_sizes: NetworkConfig) -> None:
    draw = Draw((0, 1, 2), variates=4, windows=64, lessons=2)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = lessons(zero_sizes, draw)
        torch.set_num_threads(4)
        assert_same(lessons(zero_sizes, draw), one)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.usefixtures("children")
def test_workers_draw_what_one_process_draws_in_the_same_order(zero_sizes: NetworkConfig) -> None:
    wanted = list(drawn(zero_sizes, DRAWS, 0))
    found = list(drawn(zero_sizes, DRAWS, 2))
    assert len(found) == len(DRAWS)
    for one, two in zip(found, wanted, strict=True):
        assert_same(one, two)


def test_a_worker_stays_near_and_its_end_is_told_of(
    zero_sizes: NetworkConfig, children: Callable[[], set[BaseProcess]]
) -> None:
    endless = (DRAWS[0]._replace(seed=(number,)) for number in count())
    with closing(drawn(zero_sizes, endless, 1)) as some:
        next(some)
        assert next(endless).seed == (3,)  # two ahead of the one that came, and no more
        (worker,) = children()
        worker.kill()
        with pytest.raises(BackendError, match="ended before its work"):
            list(islice(some, 3))


@pytest.mark.slow
def test_no_worker_outlives_a_process_that_is_killed() -> None:
    program = (
        "import multiprocessing, time\n"
        "from tsm2.pretraining.lessons import Draw, drawn\n"
        "from tsm2.pretraining.pretrain import default_network\n"
        "some = drawn(default_network(), [Draw((k,), 1, 8, 1) for k in range(99)], 1)\n"
        "next(some)\n"
        "print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            worker = psutil.Process(int(parent.stdout.readline()))
            assert worker.is_running()
        finally:
            parent.kill()
    try:
        assert worker.wait(timeout=60) is None  # it is gone, however it ended
    except psutil.TimeoutExpired:
        worker.kill()
        raise


def test_workers_take_the_cores_that_training_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(module, "cpu_count", lambda: 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert choose_workers(None, cuda) == 15
    assert choose_workers(None, cpu) == 12
    assert choose_workers(0, cuda) == 0
    assert choose_workers(40, cpu) == 40
    monkeypatch.setattr(module, "cpu_count", lambda: 2)
    assert choose_workers(None, cpu) == 0
    monkeypatch.setattr(module, "cpu_count", lambda: 200)
    assert choose_workers(None, cuda) == 32
