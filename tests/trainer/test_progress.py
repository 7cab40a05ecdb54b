import pytest

from fluxkit.trainer.progress import ProgressReader, Step, parse_step

LINE = "Epoch 1/1, Steps:  67%|██████▋   | 2/3 [00:10<00:05,  5.01s/it, lr=1e-5, step_loss=0.5]"


def test_a_step_line_is_read_whole() -> None:
    step = parse_step(LINE)
    assert step == Step(step=2, total=3, loss=0.5, learning_rate=1e-5, seconds_per_step=5.01)
    assert step.seconds_left == pytest.approx(5.01)


def test_iterations_per_second_become_seconds_per_step() -> None:
    step = parse_step(LINE.replace("5.01s/it", "2.00it/s"))
    assert step is not None
    assert step.seconds_per_step == pytest.approx(0.5)


def test_colours_do_not_matter() -> None:
    assert parse_step(f"\x1b[36m{LINE}\x1b[0m") == parse_step(LINE)


@pytest.mark.parametrize("loss", ["nan", "inf"])
def test_a_diverged_loss_is_shown(loss: str) -> None:
    step = parse_step(LINE.replace("0.5]", f"{loss}]"))
    assert step is not None
    assert f"loss {loss}" in step.describe()


@pytest.mark.parametrize(
    "line", ["", "Steps", "Steps: 5%|x| 1/", "lr=1e-5, step_loss=0.5", "Fetching 12%|x| 1/3 [00:01]"]
)
def test_other_lines_are_no_steps(line: str) -> None:
    assert parse_step(line) is None


def test_broken_numbers_never_harm() -> None:
    step = parse_step("Steps: 5%|x| 1/9 [00:01<?, ..s/it, lr=e, step_loss=-]")
    assert step == Step(1, 9, None, None, None)


def test_each_step_and_stage_is_reported_once() -> None:
    stages: list[str] = []
    steps: list[int] = []
    reader = ProgressReader(stages.append, lambda step: steps.append(step.step))
    for line in (
        "Quantising FluxTransformer2DModel",
        "Quantizing model",
        LINE.replace(", lr=1e-5, step_loss=0.5", ""),  # tqdm draws the bar before the loss is known
        LINE,
        LINE,
        LINE.replace("2/3", "3/3"),
    ):
        reader.feed(line)
    assert stages == ["Quantizing the base model"]
    assert steps == [2, 3]
