"""Whether the base model can be had, asked before anything is downloaded.

FLUX.1-dev is gated: it wants an account, its licence accepted, and a token. Without this check the refusal comes after
minutes of imports, or in the middle of 24 GB.
"""

from collections.abc import Sequence
from pathlib import Path

from fluxkit.errors import UserError
from fluxkit.files import read_json


class HubUnreachable(UserError):
    """Nobody answered, and the model is not on this machine."""


def has_token() -> bool:
    """Whether a Hub token is set up here; the token itself stays where it is."""
    from huggingface_hub import get_token

    return bool(get_token())


def hub_cache_dir() -> Path:
    """Where the Hub's client keeps what it downloads."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def cached_bytes(base: str) -> int:
    """How much of a Hub id is on this machine, in bytes, unfinished downloads included."""
    blobs = hub_cache_dir() / f"models--{base.replace('/', '--')}" / "blobs"
    return sum(path.stat().st_size for path in blobs.iterdir()) if blobs.is_dir() else 0


def check_base(base: str, revision: str | None = None) -> bool:
    """Check that the base model is there and may be read.

    Args:
        base: a Hub id or a local folder in diffusers format.
        revision: the Hub revision.

    Returns:
        True when the base is on this machine (nothing needs the network).

    Raises:
        UserError: the folder is no FLUX in diffusers format; the Hub knows no such model, refuses this account, or
            can't be reached and the model is not in its cache.
    """
    folder = Path(base).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise UserError(
                f"{folder} is no model in diffusers format: it has no model_index.json.",
                fix='Set [model] base to a Hub id ("black-forest-labs/FLUX.1-dev") or to a folder in diffusers format.',
            )
        return True
    if base.startswith((".", "/", "~")) or base.count("/") != 1:
        raise UserError(f"The base model {base} is not there: no such folder.", fix="Check [model] base.")
    return _check_hub(
        base, revision, "model_index.json", "[model] base", "set [model] base to a local folder in diffusers format"
    )


def check_model(name: str) -> bool:
    """Check that a model of transformers' kind may be read, as `check_base` does for the base model.

    Args:
        name: a Hub id.

    Returns:
        True when only this machine's cache has it: the Hub can't be reached.

    Raises:
        UserError: as `check_base`.
    """
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"There is no model {name}: no such folder, and no id of the Hub.", fix="Check --model.")
    return _check_hub(name, None, "config.json", "--model", "give --model a local folder")


def _check_hub(base: str, revision: str | None, probe: str, setting: str, offline: str) -> bool:
    """Ask the Hub; `probe` is a file that every such model has, `setting` and `offline` are for the messages."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    cached = isinstance(try_to_load_from_cache(base, probe, revision=revision), str)
    try:
        HfApi().auth_check(base)
    except GatedRepoError as error:
        raise UserError(
            f"The Hub does not let this account read {base}: its licence is not accepted, or there is no token.",
            fix=f"Accept the licence at https://huggingface.co/{base}, then run `hf auth login`.",
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"The Hub has no model {base}, or this account may not see it.",
            fix=f"Check {setting}; for a private model run `hf auth login`.",
        ) from error
    except Exception as error:  # a refused connection is requests', httpx's or httpx2's own class, by Hub version
        if cached:
            return True
        raise HubUnreachable(
            f"The model hub can't be reached, and {base} is not in its cache on this machine.",
            fix=f"Check the network, or {offline}.",
        ) from error
    return False


def downloaded(base: str, revision: str | None = None) -> Path | None:
    """A Hub id's snapshot in the cache on this machine, if every part of the model is in it; None otherwise.

    A part is whole when it has a config or a tokenizer's files, and every weight file that it names. Whoever finds the
    model whole need not ask the Hub, which takes a second, or many where the network is bad.
    """
    index = local_file(base, "model_index.json", revision)
    if index is None or Path(base).expanduser().is_dir():
        return None
    parts = [name for name, part in read_json(index).items() if isinstance(part, list) and part[0]]
    return index.parent if parts and all(_is_whole(index.parent / part) for part in parts) else None


def _is_whole(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir() if path.exists()} if folder.is_dir() else set()
    for index in (folder / name for name in names if name.endswith(".safetensors.index.json")):
        if not names.issuperset(read_json(index).get("weight_map", {}).values()):
            return False
    weights = any(name.endswith(".safetensors") for name in names)
    # A model has a config.json and weights; a tokenizer or a scheduler has files of its own.
    return bool(names) and ("config.json" not in names or weights)


def snapshot(base: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder on this machine with a Hub id's files of these patterns, downloaded where the model is not whole."""
    from huggingface_hub import snapshot_download

    return downloaded(base, revision) or Path(snapshot_download(base, revision=revision, allow_patterns=list(patterns)))


def transformer_config(base: str, revision: str | None = None) -> dict[str, object] | None:
    """The transformer's `config.json` where it is on this machine; None where it is not downloaded yet."""
    file = local_file(base, "transformer/config.json", revision)
    return dict(read_json(file)) if file else None


def local_file(base: str, name: str, revision: str | None = None) -> Path | None:
    """A file of the base model, in its local folder or in the Hub's cache on this machine; None where it is not."""
    folder = Path(base).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(base, name, revision=revision)
    except HFValidationError:  # a folder that doesn't exist
        return None
    return Path(cached) if isinstance(cached, str) else None


def adapter_from_hub(name: str) -> Path:
    """Download an adapter.

    Args:
        name: `owner/repository`, where it is the only `.safetensors` file, or `owner/repository/path/to/file`.

    Returns:
        Its file in the Hub's cache on this machine.

    Raises:
        UserError: there is none, this account may not read it, the Hub can't be reached, or it has several.
    """
    from huggingface_hub import HfApi, hf_hub_download

    owner, repository, *inside = name.split("/", 2)
    repo_id = f"{owner}/{repository}"
    try:
        if inside:
            return Path(hf_hub_download(repo_id, inside[0]))
        found = [file for file in HfApi().list_repo_files(repo_id) if file.endswith(".safetensors")]
        if len(found) == 1:
            return Path(hf_hub_download(repo_id, found[0]))
    except Exception as error:  # what the Hub's client raises differs by version, see `_check_hub`
        raise UserError(
            f"The adapter {name} is no file here, and the Hub does not give it: {str(error).splitlines()[0]}",
            fix="Check the path; for a private or gated one run `hf auth login`.",
        ) from error
    raise UserError(
        f"{repo_id} has {len(found)} adapters.",
        fix=f"Name one, as in {repo_id}/{found[0] if found else 'file.safetensors'}.",
    )
