"""What the package index knows of SimpleTuner: which releases there are, when each came, which Python each wants."""

import json
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime

from packaging.version import InvalidVersion, Version

from fluxkit.errors import InstallError

_DEFAULT_INDEX = "https://pypi.org/simple"
_WHEEL = re.compile(r"simpletuner-(?P<version>[^-]+)-py3-none-any\.whl")
SECONDS = 30.0


@dataclass(frozen=True)
class Published:
    """A release on the package index.

    Args:
        version: as the index writes it.
        uploaded: when its wheel came.
        requires_python: the interpreters that it says it supports.
    """

    version: str
    uploaded: datetime
    requires_python: str


def published() -> dict[str, Published]:
    """Every final SimpleTuner release that has a wheel and was not withdrawn, oldest first.

    Asks the index that uv would ask (PEP 691 and 700).

    Raises:
        InstallError: it can't be reached, or gives no upload times.
    """
    address = f"{_index().rstrip('/')}/simpletuner/"
    request = urllib.request.Request(address, headers={"Accept": "application/vnd.pypi.simple.v1+json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310  # the user's own index
            files = json.load(answer)["files"]
        found = [_release(file) for file in files if not file.get("yanked")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InstallError(
            f"The package index can't be asked for SimpleTuner's releases: {error}",
            fix="Check the network and the proxy (HTTPS_PROXY, UV_DEFAULT_INDEX), then run the same command again.",
        ) from error
    releases = sorted((one for one in found if one), key=lambda one: Version(one.version))
    return {one.version: one for one in releases}


def _index() -> str:
    return os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL") or _DEFAULT_INDEX


def _release(file: dict[str, str]) -> Published | None:
    match = _WHEEL.fullmatch(file["filename"])
    if match is None:
        return None
    try:
        if Version(match["version"]).is_prerelease:
            return None
    except InvalidVersion:
        return None
    uploaded = datetime.fromisoformat(file["upload-time"])
    return Published(match["version"], uploaded, file.get("requires-python") or ">=3.10")
