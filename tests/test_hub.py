from pathlib import Path

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from fluxkit.errors import UserError
from fluxkit.hub import check_base, transformer_config


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
