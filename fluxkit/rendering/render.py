"""From a request to the files that SimpleTuner reads: JSON through Jinja, parsed back before it is believed."""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.version import Version

from fluxkit.files import write_text
from fluxkit.rendering.defects import apply_defects
from fluxkit.rendering.layering import config_layers, dataset_layers, environment_of, lycoris_layers, resolutions_of
from fluxkit.rendering.profiles import ProfileSettings, load_profile
from fluxkit.rendering.settings import PROJECT, Layers, RenderRequest, Setting
from fluxkit.rendering.templates import render_template
from fluxkit.rendering.traps import check_schedule, check_texts, pick_validation_prompt

FLUX_DEV = "black-forest-labs/FLUX.1-dev"
# Options that the trainer's caches depend on, with the value that says nothing: another one gets caches of its own.
_LATENTS_DEPEND_ON = {
    "pretrained_vae_model_name_or_path": None, "vae_dtype": "bf16", "aspect_bucket_rounding": 2,
}  # fmt: skip
_TEXT_DEPENDS_ON = {
    "text_encoder_1_precision": "no_change", "text_encoder_2_precision": "no_change", "tokenizer_max_length": None,
    "pretrained_t5_model_name_or_path": None, "t5_padding": "unmodified",
}  # fmt: skip


@dataclass(frozen=True)
class Rendered:
    """The rendered config of one run.

    Args:
        documents: file name → its JSON value.
        settings: option → value and origin; LyCORIS's as `lycoris.…`, image backends' as `dataset.…` (a tuple where
            they differ), `env.…`.
        env: for the trainer's process.
        notes: what the user should know, e.g. a profile setting that the pinned release lacks.
    """

    documents: Mapping[str, object]
    settings: Mapping[str, Setting]
    env: Mapping[str, str]
    notes: tuple[str, ...]


def render(request: RenderRequest, accepts: Callable[[str], bool] | None = None) -> Rendered:
    """Render every file for the pinned release, in memory.

    Args:
        request: what to render.
        accepts: whether the pinned release knows an option; None takes every one for known.

    Raises:
        UserError: an unknown profile, an option that a field of fluxkit owns, a value that JSON can't carry or that
            SimpleTuner would read as something else.
    """
    profile, notes = _fitting(request.candidate or load_profile(request.profile, request.release), request, accepts)
    settings: dict[str, Setting] = {}
    documents: dict[str, object] = {"config.json": _config(request, profile, settings, notes)}
    documents["multidatabackend.json"] = _backends(request, profile, settings)
    if request.adapter == "lycoris":
        layers = Layers(lycoris_layers(request, profile))
        documents["lycoris_config.json"] = _document("lycoris_config.json", request, layers)
        settings |= {f"lycoris.{name}": setting for name, setting in layers.used.items()}
    documents["user_prompt_library.json"] = _document("user_prompt_library.json", request, Layers(()))
    env = environment_of(request, profile)
    settings |= {f"env.{name}": Setting(value, f"profile {profile.name}") for name, value in env.items()}
    settings |= {f"env.{name}": Setting(value, f"{PROJECT} [env]") for name, value in request.env.items()}
    check_texts(documents)
    return Rendered(documents, settings, {**env, **request.env}, tuple(notes))


def rendered_texts(rendered: Rendered) -> dict[str, str]:
    """Text of every file by its name, as `write_rendered` writes it."""
    return {name: _text(document) for name, document in rendered.documents.items()}


def write_rendered(rendered: Rendered, config_dir: Path) -> None:
    """Write every document into `config_dir`, each atomically; `config.json`, which names the others, last."""
    for name in sorted(rendered.documents, key=lambda name: name == "config.json"):
        write_text(config_dir / name, _text(rendered.documents[name]))


def diff_rendered(rendered: Rendered, config_dir: Path) -> str:
    """A unified diff from the files in `config_dir` to what would be written; empty when nothing would change."""
    paths = {name: config_dir / name for name in rendered.documents}
    there = {name: path.read_text(encoding="utf-8", errors="replace") for name, path in paths.items() if path.is_file()}
    return _diff(there, {name: _text(document) for name, document in rendered.documents.items()})


def diff_documents(before: Rendered, after: Rendered) -> str:
    """A unified diff between two renderings of a project; empty when they are the same."""
    return _diff(*({name: _text(document) for name, document in each.documents.items()} for each in (before, after)))


def _diff(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    pieces = []
    for name in dict.fromkeys((*before, *after)):
        old, new = (texts.get(name, "").splitlines(keepends=True) for texts in (before, after))
        pieces.append("".join(difflib.unified_diff(old, new, f"a/{name}", f"b/{name}")))
    return "".join(pieces)


def expected_modules(transformer_config: Mapping[str, Any], lycoris: Mapping[str, Any]) -> int | None:
    """How many modules the default preset finds in a FLUX transformer: 342 in the full one.

    Args:
        transformer_config: the transformer's `config.json`.
        lycoris: the rendered LyCORIS config, or the user's part of it.

    Returns:
        None where the target modules were changed or the transformer's layers are not known.
    """
    preset = lycoris.get("apply_preset", {})
    if set(preset) - {"target_module", "module_algo_map"}:
        return None
    if sorted(preset.get("target_module", ["Attention", "FeedForward"])) != ["Attention", "FeedForward"]:
        return None
    double, single = (transformer_config.get(name) for name in ("num_layers", "num_single_layers"))
    if not isinstance(double, int) or not isinstance(single, int):
        return None
    # A double block: 8 projections of its Attention and 2 of each of its 2 FeedForwards; a single block: q, k and v.
    return 12 * double + 3 * single


def _fitting(
    profile: ProfileSettings, request: RenderRequest, accepts: Callable[[str], bool] | None
) -> tuple[ProfileSettings, list[str]]:
    """The profile without what the pinned release lacks, and a note for each such option."""
    lacking = [name for name in profile.options if accepts is not None and not accepts(name)]
    notes = [
        f"SimpleTuner {request.release} has no option {name}: the profile {profile.name} sets it, it was left out, "
        "and the profile's measured memory does not hold without it."
        for name in lacking
    ]
    if request.candidate is None and profile.name != request.profile:
        notes.insert(
            0,
            f"SimpleTuner {request.release} is too old for the profile {request.profile}: it gets {profile.name}.",
        )
    options = {name: value for name, value in profile.options.items() if name not in lacking}
    return replace(profile, options=options), notes


def _config(request: RenderRequest, profile: ProfileSettings, settings: dict[str, Setting], notes: list[str]) -> object:
    layers = Layers(config_layers(request, profile))
    rehearsal = request.rehearsal
    document: Any = _document(
        "config.json",
        request,
        layers,
        path=lambda name: str(request.config_dir / name),
        validation_prompt=pick_validation_prompt(request.validation_prompt, request.prompts),
        revision=request.revision if rehearsal is None else None,
        # The flavour is known for FLUX.1-dev; a folder holds it or a fine-tune of it, as far as fluxkit supports.
        dev=rehearsal is not None or request.base == FLUX_DEV or Path(request.base).expanduser().is_dir(),
        resolutions=resolutions_of(request),
    )
    check_schedule({name: setting.value for name, setting in layers.used.items()})
    settings |= layers.used
    notes += apply_defects(document, settings, request)
    return document


def _backends(request: RenderRequest, profile: ProfileSettings, settings: dict[str, Setting]) -> object:
    base = request.base if request.rehearsal is None else str(request.rehearsal.base)
    base_hash = _short_hash([base, request.revision])
    latents, text = (_unusual(settings, names) for names in (_LATENTS_DEPEND_ON, _TEXT_DEPENDS_ON))
    backends, used = [], []
    for resolution in resolutions_of(request):
        layers = Layers(dataset_layers(request, profile))
        values = _document("backend.json", request, layers, resolution=resolution)
        # Latents belong to their VAE: a rehearsal's must never be taken for the real model's.
        # The id becomes part of file names, beside the photos too.
        subject = re.sub(r"\W+", "-", request.trigger)
        parts = [values, base_hash, *([request.dataset_digest] if request.dataset_digest else []), *latents]
        name = f"{subject}-{resolution}-{_short_hash(parts)}"
        backends.append({"id": name, "cache_dir_vae": str(request.cache_dir / "vae" / name), "settings": values})
        used.append(layers.used)
    settings |= {f"dataset.{key}": _together([each[key] for each in used]) for key in used[0]}
    text_hash = _short_hash([base, request.revision, *text]) if text else base_hash
    text_cache = str(request.cache_dir / "text" / text_hash)
    return _document("multidatabackend.json", request, Layers(()), backends=backends, text_cache=text_cache)


def _unusual(settings: Mapping[str, Setting], names: Mapping[str, Any]) -> list[Any]:
    """What of `names` is set to something else than usual."""
    values = {name: settings[name].value for name in names if name in settings}
    return [[name, value] for name, value in values.items() if value not in (None, names[name])]


def _document(name: str, request: RenderRequest, layers: Layers, **context: object) -> object:
    release = Version(request.release)
    return render_template(
        name,
        release,
        request=request,
        option=layers.option,
        rest=layers.rest,
        since=lambda version: release >= Version(version),
        **context,
    )


def _together(backends: list[Setting]) -> Setting:
    """One setting of all image backends: its value where they agree, else their values in order."""
    values = [setting.value for setting in backends]
    agreed = all(value == values[0] for value in values)
    return Setting(values[0] if agreed else tuple(values), backends[0].origin)


def _short_hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def _text(document: object) -> str:
    return json.dumps(document, indent=4, ensure_ascii=False) + "\n"
