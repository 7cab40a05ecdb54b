"""The report to send: secrets planted everywhere that it reads, none of them in the archive."""

import json
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from fluxkit.cli import cli
from fluxkit.doctor import redact
from fluxkit.doctor.bundle import tail
from fluxkit.doctor.redact import Private, Redactor, environment
from fluxkit.trainer import runs

CAPTION = 'zorbla müller in a "red" coat, laughing at the old harbour of Antwerp'
SHORT = "zorbla, asleep"
PROMPT = "{trigger} as a pirate queen in a storm of parrots"
SECRETS = (
    "hf_abcdefGHIJKL1234567890", "sk-proj-ABCDEFGH12345678", "s3cr3t-passw0rd",
    "wandb0123456789abcdef0123456789abcdef0",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "anna@example.org", "mirroruser", "mirrorpass",
)  # fmt: skip
PHOTOS = ("Anna Müller 2019.jpg", "beach/IMG_4711.png", "7.webp")
PRIVATE_WORDS = (
    "zorbla",
    "müller",
    "m\\u00fcller",
    "M%C3%BCller",
    "antwerp",
    "pirate",
    "parrots",
    "IMG_4711",
    "beach/",
    "asleep",
)
LOG = """2026-11-24 [INFO] Using HF_TOKEN=hf_abcdefGHIJKL1234567890 for the hub
2026-11-24 [INFO] headers: {{'Authorization': 'Bearer sk-proj-ABCDEFGH12345678'}} wandb_api_key: wandb0123456789abcdef0123456789abcdef0
2026-11-24 [INFO] cookie eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc for anna@example.org
2026-11-24 [INFO] Encoding 'coat, laughing at the old' (cut off)
2026-11-24 [INFO] {caption}
2026-11-24 [INFO] {caption_json}
2026-11-24 [INFO] zorbla as a pirate queen in a storm of parrots
2026-11-24 [ERROR] could not read {photos}/Anna Müller 2019.jpg: truncated
2026-11-24 [ERROR] could not read {photos}/beach/IMG_4711.png, {photos}/7.webp
2026-11-24 [INFO] https://mirroruser:mirrorpass@mirror.example/simple and {home}/.cache/x
Epoch 1/1, Steps:  10%|#| 1/10 [00:01<00:09,  1.00s/it, lr=1e-4, step_loss=0.25]\rEpoch 1/1, Steps:  20%|##| 2/10 [00:02<00:08,  1.00s/it, lr=1e-4, step_loss=0.24]
RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB.
"""  # noqa: E501


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(redact.getpass, "getuser", lambda: "annamueller")
    home = tmp_path / "home" / "annamueller"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    root = home / "zorbla-project"
    for i, name in enumerate(PHOTOS):
        path = root / "dataset" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1030, 1030)).save(path)
        path.with_suffix(".txt").write_text((CAPTION, SHORT, "zorbla")[i], encoding="utf-8")
    (root / "fluxkit.toml").write_text(
        f"""[project]
name = "zorbla-portrait"
trigger = "zorbla"
[dataset]
path = "dataset"
[model]
base = "black-forest-labs/FLUX.1-dev"
[train]
profile = "24gb"  # for Anna Müller
validation_prompt = "zorbla eating an ice cream cone"
[train.options]
hub_token = "{SECRETS[0]}"
train_batch_size = 2
[env]
HF_TOKEN = "{SECRETS[0]}"
MY_THING = "{SECRETS[2]}"
PYTORCH_CUDA_ALLOC_CONF = "expandable_segments:True"
[simpletuner]
version = "4.8.0"
platform = "cpu"
mirror = "https://mirroruser:mirrorpass@mirror.example/simpletuner.git"
"""
    )
    (root / "prompts.toml").write_text(f"[prompts]\nannas_storm = {json.dumps(PROMPT)}\n")
    run = runs.new_run(
        root / "runs",
        {"rehearsal": False, "base": "b", "revision": None, "release": "4.8.0", "steps": 9, "adapter": "lycoris"},
    ).update(status="failed", message=f"{root}/dataset/Anna Müller 2019.jpg is broken, password=s3cr3t-passw0rd")
    config = {
        "--validation_prompt": "zorbla eating an ice cream cone", "--hub_token": SECRETS[0], "--seed": 42,
        "--caption_dropout_probability": 0.1, "--output_dir": str(run.output_dir),
    }  # fmt: skip
    run.config_dir.mkdir()
    (run.config_dir / "config.json").write_text(json.dumps(config))
    (run.config_dir / "user_prompt_library.json").write_text(json.dumps({"annas_storm": PROMPT}))
    text = LOG.format(caption=CAPTION, caption_json=json.dumps(CAPTION), photos=root / "dataset", home=home)
    run.log_file.parent.mkdir()
    run.log_file.write_text(text, encoding="utf-8")
    return root


def contents(archive: Path) -> dict[str, str]:
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name).decode() for name in opened.namelist()}


def bundled_without_secrets(planted: Path, archive: Path) -> tuple[dict[str, str], str]:
    """What is in a bundle, none of which may be private; what was said."""
    done = CliRunner().invoke(cli, ["doctor", "--offline", "-C", str(planted), "--bundle", str(archive)])
    assert done.exit_code == 0, done.output
    found = contents(archive)
    everything = "\n".join((*found, *found.values())).casefold()
    private = (*SECRETS, *PRIVATE_WORDS, *PHOTOS, str(planted), "annamueller", "ice cream", "annas_storm", "harbour")
    assert [secret for secret in private if secret.casefold() in everything] == []
    return found, done.output


def test_none_of_the_planted_secrets_is_in_the_archive_and_what_helps_is(planted: Path, tmp_path: Path) -> None:
    found, said = bundled_without_secrets(planted, tmp_path / "report.zip")
    (run,) = [name for name in found if name.endswith("run.json")]
    log = found[run.replace("run.json", "log.txt")]
    assert "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB." in log
    assert "could not read <photo>: truncated" in log
    assert "Steps:  20%" in log
    assert "Steps:  10%" not in log
    assert json.loads(found[run])["status"] == "failed"
    config = json.loads(found[run.replace("run.json", "config.json")])
    assert config["--seed"] == 42
    assert config["--caption_dropout_probability"] == 0.1
    assert config["--validation_prompt"] == "<6 words>"
    assert "train_batch_size = 2" in found["fluxkit.toml"]
    assert 'PYTORCH_CUDA_ALLOC_CONF = "expandable_segments:True"' in found["fluxkit.toml"]
    assert "black-forest-labs/FLUX.1-dev" in found["fluxkit.toml"]
    assert json.loads(found["prompts.json"]) == {"prompt-1": 10}
    assert json.loads(found["doctor.json"])["findings"]
    for name in found:  # what is in it is listed on the screen
        assert name in said


@pytest.mark.parametrize("broken", ["[[[ no TOML\n", "unknown_key = 3\n"])
def test_a_project_whose_settings_are_broken_keeps_its_secrets_too(planted: Path, tmp_path: Path, broken: str) -> None:
    for name in ("fluxkit.toml", "prompts.toml"):
        (planted / name).write_text((planted / name).read_text() + broken)
    found, _ = bundled_without_secrets(planted, tmp_path / "report.zip")
    assert any(name.endswith("log.txt") for name in found)


def test_photos_and_weights_never_get_in(planted: Path, tmp_path: Path) -> None:
    archive = tmp_path / "report.zip"
    CliRunner().invoke(cli, ["doctor", "--offline", "-C", str(planted), "--bundle", str(archive)])
    assert {Path(name).suffix for name in contents(archive)} == {".json", ".toml", ".txt"}


def test_without_a_name_it_goes_into_this_folder_and_json_names_it(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["doctor", "--offline", "-C", str(planted), "--json", "--bundle"])
    report = json.loads(done.stdout)
    assert Path(report["bundle"]["file"]).name.startswith("fluxkit-report-")
    assert [each["name"] for each in report["bundle"]["entries"]] == list(contents(Path(report["bundle"]["file"])))


def test_outside_a_project_there_is_a_report_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["doctor", "--offline", "--bundle", "report.zip"])
    assert done.exit_code == 0
    assert list(contents(tmp_path / "report.zip")) == ["about.json", "doctor.json"]


@pytest.mark.parametrize(
    "text",
    [
        "SECRET_ACCESS_KEY: abcdef12345", "my-api-key=abcdef12345", '"password": "abcdef12345"', "Basic abcdef12345",
        "ghp_abcdef12345", "https://x/y?X-Amz-Signature=abcdef12345&a=1", "ftp://abcdef12345@host/",
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_taken_out(text: str) -> None:
    assert "abcdef12345" not in Redactor(Private()).text(text)


@pytest.mark.parametrize(
    "text",
    ["Steps: 10/100", "torch==2.11.0 --hash=sha256:0123abcd", "step_loss=0.25", "Token indices sequence length is 77"],
)
def test_what_helps_stays(text: str) -> None:
    assert Redactor(Private(photos=("1.jpg", "a.png"), words=("ohwx",))).text(text) == text


def test_a_short_name_goes_only_where_it_stands_alone() -> None:
    redactor = Redactor(Private(words=("ann",), photos=("1.jpg",)))
    assert (
        redactor.text("ann and Ann, ann_1024, channel 1, 1.jpg") == "<name> and <name>, <name>_1024, channel 1, <photo>"
    )


def test_env_shows_what_is_set_and_few_values() -> None:
    assert environment({"HF_TOKEN": "x", "NAME": "Anna", "OMP_NUM_THREADS": "2", "CUDA_API_KEY": "y"}) == {
        "HF_TOKEN": "<value>", "NAME": "<value>", "OMP_NUM_THREADS": "2", "CUDA_API_KEY": "<value>",
    }  # fmt: skip


def test_a_long_log_is_cut_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("".join(f"line {i}\n" for i in range(5000)))
    lines = tail(log).splitlines()
    assert lines[-1] == "line 4999"
    assert len(lines) < 600
    assert tail(tmp_path / "absent.log") == ""
