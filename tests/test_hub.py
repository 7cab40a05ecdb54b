import json
import shutil
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from fluxkit.errors import UserError
from fluxkit.hub import check_base, downloaded, snapshot, transformer_config
from fluxkit.sampling.tiny_flux import make_tiny_flux


def answer(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    def auth_check(self: object, repo_id: str) -> None:  # noqa: ARG001 - the Hub client's signature
        if error:
            raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", auth_check)


def hub_error(kind: type[Exception], status: int) -> Exception:
    response = httpx2.Response(status, request=httpx2.Request("HEAD", "https://hub.invalid"))
    return kind("refused", response=response)


def test_a_licence_that_was_not_accepted_is_named_with_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, hub_error(GatedRepoError, 403))
    with pytest.raises(UserError, match="licence is not accepted") as caught:
        check_base("black-forest-labs/FLUX.1-dev")
    assert "huggingface.co/black-forest-labs/FLUX.1-dev" in caught.value.fix
    assert "hf auth login" in caught.value.fix


def test_an_unknown_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, hub_error(RepositoryNotFoundError, 404))
    with pytest.raises(UserError, match="no model nobody/nothing"):
        check_base("nobody/nothing")


def test_no_network_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, httpx2.ConnectError("Name or service not known"))
    with pytest.raises(UserError, match="can't be reached"):
        check_base("black-forest-labs/FLUX.1-dev")


def test_access_is_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, None)
    assert check_base("black-forest-labs/FLUX.1-dev") is False


def test_a_local_folder_needs_no_network(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model_index\.json"):
        check_base(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{}")
    assert check_base(str(tmp_path)) is True


@pytest.mark.parametrize("base", ["/not/there", "./nothing", "flux"])
def test_a_folder_that_is_not_there_is_not_taken_for_a_hub_id(base: str) -> None:
    with pytest.raises(UserError, match="no such folder"):
        check_base(base)


def test_the_transformer_config_of_a_local_base(tmp_path: Path) -> None:
    assert transformer_config(str(tmp_path)) is None
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text('{"num_layers": 19}')
    assert transformer_config(str(tmp_path)) == {"num_layers": 19}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot of a model in the Hub's cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--flux"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    return make_tiny_flux(repository / "snapshots" / ("0" * 40))


def test_a_model_that_is_here_whole_is_not_asked_for_at_the_hub(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the Hub"))
    assert downloaded("someone/flux") == cached
    assert snapshot("someone/flux", None, ["transformer/*"]) == cached
    assert downloaded("someone/flux", "another-revision") is None
    assert downloaded("someone/else") is None


PARTS = (
    "vae/diffusion_pytorch_model.safetensors", "text_encoder_2/model.safetensors",
    "tokenizer", "scheduler", "transformer",
)  # fmt: skip


@pytest.mark.parametrize("gone", PARTS)
def test_a_download_that_was_cut_short_is_not_whole(cached: Path, gone: str) -> None:
    path = cached / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert downloaded("someone/flux") is None


def test_every_part_of_a_split_file_has_to_be_there(cached: Path) -> None:
    folder = cached / "transformer"
    (weights,) = folder.glob("*.safetensors")
    weights.rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert downloaded("someone/flux") is None
    # A link to a blob that is gone is no file.
    (folder / names["b"]).symlink_to(cached / "blobs" / "gone")
    assert downloaded("someone/flux") is None
    (folder / names["b"]).unlink()
    (folder / names["b"]).write_bytes(b"")
    assert downloaded("someone/flux") == cached
