"""Leases: every task once, whoever dies."""

import random
from pathlib import Path

import pytest

from fluxkit.sampling.leases import DEATHS, LeaseBook
from fluxkit.sampling.plan import plan_jobs
from fluxkit.sampling.work import Task, batch_of, model_of


def tasks(count: int, adapters: tuple[str, ...] = ("final",), steps: tuple[int, ...] = (4,)) -> list[Task]:
    jobs = plan_jobs({"p": "ohwx"}, seeds=range(count), adapters=adapters, num_inference_steps=steps)
    return [Task(f"{job.adapter}-{job.num_inference_steps}-{job.seed}", job, Path("x.png")) for job in jobs]


def finish(book: LeaseBook, worker: int) -> list[str]:
    keys = [task.key for task in book.take(worker)]
    assert all(book.done(key) for key in keys)
    book.returned(worker, died=False)
    return keys


def test_every_task_is_leased_once_and_a_lease_is_one_batch_shape() -> None:
    all_tasks = tasks(10, ("a", "b"), (4, 8))
    book = LeaseBook(all_tasks, workers=2, batch=4)
    seen = []
    while book.undone:
        for worker in (0, 1):
            lease = book.take(worker)
            assert len({batch_of(task.job) for task in lease}) <= 1
            seen += [task.key for task in lease if book.done(task.key)]
            book.returned(worker, died=False)
    assert sorted(seen) == sorted(task.key for task in all_tasks)


def test_workers_keep_their_model_and_share_the_models_out() -> None:
    book = LeaseBook(tasks(40, ("a", "b")), workers=2, batch=4)
    first = [model_of(book.take(worker)[0].job) for worker in (0, 1)]
    assert sorted(first) == [("a", 1.0), ("b", 1.0)], "not both on the same"
    for worker in (0, 1):
        book.returned(worker, died=False)
        assert model_of(book.take(worker)[0].job) == first[worker], "no change of model without need"


def test_leases_shrink_towards_the_end() -> None:
    book = LeaseBook(tasks(100), workers=2, batch=4)
    sizes = []
    while book.undone:
        sizes.append(len(finish(book, len(sizes) % 2)))
    assert sizes[0] == 16
    assert sizes[-1] <= 4
    assert sizes == sorted(sizes, reverse=True)


def test_what_a_dead_worker_held_is_made_by_another_alone_and_last() -> None:
    book = LeaseBook(tasks(20), workers=2, batch=4)
    held = book.take(0)
    book.done(held[0].key)
    assert book.returned(0, died=True) == []
    later = [finish(book, 1) for _ in range(99) if book.undone]
    assert sorted(key for lease in later for key in lease) == sorted(task.key for task in tasks(20) if task != held[0])
    assert later[-len(held) + 1 :] == [[task.key] for task in held[1:]]


def test_a_task_that_kills_its_worker_is_given_up_and_the_others_are_made() -> None:
    poison = "final-4-5"
    book = LeaseBook(tasks(12), workers=2, batch=4)
    made: list[str] = []
    failed = []
    deaths = worker = 0
    while book.undone:
        lease = [task.key for task in book.take(worker)]
        if poison in lease:
            deaths += 1
            failed += book.returned(worker, died=True)
            worker += 1
        else:
            made += [key for key in lease if book.done(key)]
            book.returned(worker, died=False)
    assert deaths == DEATHS
    assert sorted(made) == sorted(task.key for task in tasks(12) if task.key != poison)
    assert [one.key for one in failed] == [poison]
    assert failed[0].reason == "The image of 'p', seed 5, ended its worker 3 times."


def test_a_worker_that_dies_while_loading_is_no_ones_fault() -> None:
    book = LeaseBook(tasks(4), workers=1, batch=4)
    for worker in range(10):
        assert len(book.take(worker)) == 4
        assert book.returned(worker, died=True, blame=False) == []


@pytest.mark.parametrize("seed", range(20))
def test_whatever_dies_every_task_has_one_outcome(seed: int) -> None:
    chance = random.Random(seed)
    book = LeaseBook(tasks(30, ("a", "b")), workers=3, batch=2)
    outcomes: list[str] = []
    holding: dict[int, list[str]] = {0: [], 1: [], 2: []}
    while book.undone:
        worker = chance.choice(list(holding))
        if not holding[worker]:
            book.returned(worker, died=False)
            holding[worker] = [task.key for task in book.take(worker)]
        elif chance.random() < 0.15:
            outcomes += [one.key for one in book.returned(worker, died=True, blame=chance.random() < 0.7)]
            del holding[worker]
            holding[max([*holding, worker]) + 1] = []
        else:
            key = holding[worker].pop(0)
            outcomes += [key] if book.done(key) else []
            assert not book.done(key), "heard of twice, counted once"
    assert sorted(outcomes) == sorted(task.key for task in tasks(30, ("a", "b")))
