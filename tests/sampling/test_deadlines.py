from pathlib import Path

from fluxkit.sampling.deadlines import GENEROUS, LEAST_SECONDS, UNKNOWN_IMAGE_SECONDS, UNKNOWN_LOAD_SECONDS, Deadlines
from fluxkit.sampling.plan import plan_jobs
from fluxkit.sampling.work import Task


def tasks(count: int, *, steps: int = 20, width: int = 1024) -> list[Task]:
    jobs = plan_jobs({"a": "x"}, seeds=range(count), width=width, height=1024, num_inference_steps=steps)
    return [Task(str(number), job, Path("x.png")) for number, job in enumerate(jobs)]


def test_before_anything_was_measured_nobody_is_hurried() -> None:
    deadlines = Deadlines()
    assert deadlines.to_make(tasks(4)) == 4 * UNKNOWN_IMAGE_SECONDS
    assert deadlines.to_load(download=False) == deadlines.to_load(download=True) == UNKNOWN_LOAD_SECONDS


def test_a_lease_may_take_many_times_what_the_slowest_took_by_its_size_and_steps() -> None:
    deadlines = Deadlines()
    deadlines.made(tasks(4), 200.0)  # 50 s an image
    deadlines.made(tasks(4), 40.0)  # a faster one hurries nobody
    assert deadlines.to_make(tasks(2)) == GENEROUS * 100
    assert deadlines.to_make(tasks(2, steps=40)) == GENEROUS * 200
    assert deadlines.to_make(tasks(2, width=512)) == GENEROUS * 50


def test_quick_images_leave_time_for_what_happens_now_and_then() -> None:
    deadlines = Deadlines()
    deadlines.made(tasks(4), 0.4)
    assert deadlines.to_make(tasks(1)) == LEAST_SECONDS


def test_loading_is_measured_too_but_a_download_is_another_thing() -> None:
    deadlines = Deadlines()
    deadlines.loaded(60.0)
    deadlines.loaded(0.0)  # the next lease of the same model
    assert deadlines.to_load(download=False) == GENEROUS * 60
    assert deadlines.to_load(download=True) == UNKNOWN_LOAD_SECONDS


def test_what_the_user_says_counts() -> None:
    deadlines = Deadlines(30.0)
    deadlines.made(tasks(4), 1000.0)
    assert deadlines.to_make(tasks(4)) == 120.0
