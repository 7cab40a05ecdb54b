"""Values that the pinned release takes and then dies on: worked around, or refused with the reason."""

from typing import Any

from fluxkit.errors import UserError
from fluxkit.rendering.settings import COMMAND_LINE, PROJECT, KnownDefect, RenderRequest, Setting


def apply_defects(document: dict[str, Any], settings: dict[str, Setting], request: RenderRequest) -> list[str]:
    """Replace what nobody asked for by what works, in place; return a note for each.

    Args:
        document: the rendered `config.json`.
        settings: its options with their origins.
        request: which holds the defects.

    Raises:
        UserError: the user asked for such a value, or nothing can stand in for it; all in one message.
    """
    notes, refused = [], []
    for defect in request.defects:
        setting = settings.get(defect.option)
        if setting is None or not _meets(defect, setting.value):
            continue
        said = f"{defect.option} {setting.value!r} does not work with SimpleTuner {request.release}: {defect.reason}"
        if defect.replacement is None or setting.origin == COMMAND_LINE or setting.origin.startswith(PROJECT):
            refused.append(said)
            continue
        settings[defect.option] = Setting(defect.replacement, f"SimpleTuner {request.release}")
        document[f"--{defect.option}"] = defect.replacement
        notes.append(f"{said} fluxkit sets it to {defect.replacement!r}.")
    if refused:
        raise UserError(" ".join(refused), fix="Take the option out of [train.options] or -o, or pin another release.")
    return notes


def _meets(defect: KnownDefect, value: Any) -> bool:
    if defect.value is None:
        return True
    # Some options take a list, or text with commas.
    several = value if isinstance(value, list) else str(value).split(",")
    return str(defect.value).lower() in [str(one).strip().lower() for one in several]
