"""The Jinja side: which era's template serves a release, and values that arrive as they are."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from packaging.version import Version

from fluxkit.errors import UserError
from fluxkit.resources import resource


def render_template(name: str, release: Version, **context: object) -> Any:
    """Render a JSON document and parse it back.

    Args:
        name: the document's file name; its template is `<name>.j2`.
        release: the pinned release; the newest era that is not newer and has the template serves it.
        context: what the template uses; one that is missing is an error (`StrictUndefined`).

    Raises:
        UserError: no era serves the release, or a value is none that JSON can carry.
    """
    root = resource("templates", "simpletuner")
    eras = [Version(path.name) for path in root.iterdir() if (path / f"{name}.j2").is_file()]
    serving = [era for era in eras if era <= release]
    if not serving:
        raise UserError(f"SimpleTuner {release} is too old for fluxkit.", fix=f"Pin {min(eras)} or a later release.")
    template = _environment(root).get_template(f"{max(serving)}/{name}.j2")
    return json.loads(template.render(**context))


@cache
def _environment(root: Path) -> jinja2.Environment:
    # JSON is no HTML: escaping would turn a prompt's quotes into &#34;. `tojson` quotes every value instead.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(root),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701
    )
    environment.filters["tojson"] = _to_json
    return environment


def _to_json(value: object) -> str:
    if isinstance(value, jinja2.Undefined):
        raise jinja2.UndefinedError(f"the template uses a value that is not given: {value!r}")
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"SimpleTuner's files can't hold the value {value!r}: {error}.",
            fix="Use text, a number, true or false, or a list or table of them.",
        ) from error
