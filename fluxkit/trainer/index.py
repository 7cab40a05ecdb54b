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
_FILE = re.compile(r"[^-]+-(?P<version>[^-]+)((-[^-]+)?-[^-]+-[^-]+-[^-]+\.whl|\.tar\.gz)")
SECONDS = 30.0


@dataclass(frozen=True)
class Published:
    """A release on the package index.

    Args:
        version: as the index writes it.
        uploaded: when it came.
        requires_python: the interpreters that it says it supports.
    """

    version: str
    uploaded: datetime
    requires_python: str


def published(index: str = "", package: str = "simpletuner") -> dict[str, Published]:
    """Every final release that was not withdrawn, oldest first.

    Args:
        index: its address; the one that uv would ask (PEP 691 and 700) when empty.
        package: which package's; of SimpleTuner only releases with a wheel count.

    Raises:
        InstallError: it can't be reached, or gives no upload times.
    """
    address = f"{(index or _index()).rstrip('/')}/{package}/"
    request = urllib.request.Request(address, headers={"Accept": "application/vnd.pypi.simple.v1+json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310  # the user's own index
            files = json.load(answer)["files"]
        wheels = [file for file in files if file["filename"].endswith(".whl")]
        wanted = wheels if package == "simpletuner" else files
        found = [_release(file) for file in wanted if not file.get("yanked")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InstallError(
            f"The package index can't be asked for the releases of {package}: {error}",
            fix="Check the network and the proxy (HTTPS_PROXY, UV_DEFAULT_INDEX), then run the same command again.",
        ) from error
    releases = sorted((one for one in found if one), key=lambda one: Version(one.version))
    return {one.version: one for one in releases}


def _index() -> str:
    return os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL") or _DEFAULT_INDEX


def _release(file: dict[str, str]) -> Published | None:
    match = _FILE.fullmatch(file["filename"])
    if match is None:
        return None
    try:
        if Version(match["version"]).is_prerelease:
            return None
    except InvalidVersion:
        return None
    uploaded = datetime.fromisoformat(file["upload-time"])
    return Published(match["version"], uploaded, file.get("requires-python") or ">=3.10")
