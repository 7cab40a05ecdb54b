import pytest

from fluxkit.trainer.progress import ProgressReader, Step, parse_step

LINE = "Epoch 1/1, Steps:  67%|██████▋   | 2/3 [00:10<00:05,  5.01s/it, lr=1e-5, step_loss=0.5]"


def test_a_step_line_is_read_whole() -> None:
    step = parse_step(LINE)
    assert step == Step(step=2, total=3, loss=0.5, learning_rate=1e-5, seconds_per_step=5.01)


@pytest.mark.parametrize("name", ["grad_norm", "grad_absmax"])  # grad_clip_method decides
def test_the_gradients_norm_is_read(name: str) -> None:
    step = parse_step(LINE.replace("0.5]", f"0.5, {name}=0.0562]"))
    assert step is not None
    assert step.gradient_norm == 0.0562


def test_iterations_per_second_become_seconds_per_step() -> None:
    step = parse_step(LINE.replace("5.01s/it", "2.00it/s"))
    assert step is not None
    assert step.seconds_per_step == pytest.approx(0.5)


def test_colours_do_not_matter() -> None:
    assert parse_step(f"\x1b[36m{LINE}\x1b[0m") == parse_step(LINE)


@pytest.mark.parametrize("loss", ["nan", "inf"])
def test_a_diverged_loss_is_read(loss: str) -> None:
    step = parse_step(LINE.replace("0.5]", f"{loss}]"))
    assert step is not None
    assert str(step.loss) == loss


@pytest.mark.parametrize(
    "line", ["", "Steps", "Steps: 5%|x| 1/", "lr=1e-5, step_loss=0.5", "Fetching 12%|x| 1/3 [00:01]"]
)
def test_other_lines_are_no_steps(line: str) -> None:
    assert parse_step(line) is None


def test_broken_numbers_never_harm() -> None:
    step = parse_step("Steps: 5%|x| 1/9 [00:01<?, ..s/it, lr=e, step_loss=-]")
    assert step == Step(1, 9, None, None, None)


def test_what_a_real_run_printed_becomes_its_stages_and_steps() -> None:
    """Lines of SimpleTuner 4.8.0, in their order; each step is drawn with the loss of the step before first."""
    stages: list[str] = []
    steps: list[tuple[int, float | None]] = []
    reader = ProgressReader(stages.append, lambda step: steps.append((step.step, step.loss)))
    for line in (
        "[RANK 0] 2026-11-24 03:01:05,852 [INFO] Configuring data backend: p-64: {'id': 'p-64'}",
        "[RANK 0] [INFO] (id=p-64) Initialise text embed pre-computation using the textfile caption strategy.",
        "[RANK 0] [INFO] (id=p-64) Creating VAE latent cache: vae_cache_dir='cache/vae-64'",
        "[RANK 0] [INFO] Executing VAE cache update..",
        "[RANK 0] [INFO] Loading diffusion model from tiny",
        "[RANK 0] [INFO] Quantising FluxTransformer2DModel with {'model_precision': 'int8-quanto'}",
        "[RANK 0] [INFO] Quantising FluxTransformer2DModel. Using int8-quanto.",
        "2026-11-24 03:01:06|[LyCORIS]-[0;32mINFO[0m: Create LyCORIS Module",
        "Epoch 1/1 Steps:   0%|          | 0/4 [00:00<?, ?it/s]",
        "Epoch 1/1, Steps:  25%|██▌       | 1/4 [00:08<00:25,  8.46s/it]",
        "Epoch 1/1, Steps:  25%|██▌       | 1/4 [00:08<00:25,  8.46s/it, lr=0.0001, step_loss=1.45]",
        "Epoch 1/1, Steps:  50%|█████     | 2/4 [00:08<00:07,  3.67s/it, lr=0.0001, step_loss=1.45]",
        "Epoch 1/1, Steps:  50%|█████     | 2/4 [00:08<00:07,  3.67s/it, lr=7.24e-5, step_loss=1.55]",
        "Processing validation prompts:   0%|          | 0/3 [00:00<?, ?it/s]",
        "Processing validation prompts:  33%|███▎      | 1/3 [00:00<00:00,  4.32it/s]",
    ):
        reader.feed(line)
    assert stages == [
        "Reading the dataset",
        "Encoding captions",
        "Caching latents",
        "Loading the base model",
        "Quantizing the base model",
        "Making the adapter",
        "Making validation images",
    ]
    assert steps == [(1, 1.45), (2, 1.55)]
    assert reader.last is not None
    assert reader.last.step == 2
