"""What a rehearsal replaces in the config that a real run would have."""

from dataclasses import replace
from typing import Any

from fluxkit.rendering.render import render
from fluxkit.rendering.settings import RenderRequest, Setting


def rehearsal_changes(request: RenderRequest) -> list[tuple[str, Any, Any]]:
    """What the request's rehearsal replaces: setting, real value, rehearsed value; None where a side has none.

    Raises:
        UserError: as `render.render`.
    """
    real = render(replace(request, rehearsal=None)).settings
    mine = render(request).settings
    absent = Setting(None, "")
    return [
        (name, before, after)
        for name in dict.fromkeys((*real, *mine))
        if (before := real.get(name, absent).value) != (after := mine.get(name, absent).value)
    ]
