"""docs/checks.md and docs/validate.schema.json say what the code does."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from fluxkit.commands.validate import validate
from fluxkit.console import Output
from fluxkit.errors import UserError

_CODE = re.compile(r'"((?:image|face|variety|caption|trigger|dataset|bucket)\.[a-z0-9-]+)"')


def test_every_code_has_a_section_and_every_section_a_code(project_root: Path) -> None:
    sources = (path.read_text() for path in (project_root / "fluxkit" / "dataset").rglob("*.py"))
    emitted = {code for source in sources for code in _CODE.findall(source)}
    sections = re.findall(r"^### (\S+)$", (project_root / "docs" / "checks.md").read_text(), re.MULTILINE)
    assert len(emitted) > 55
    assert set(sections) == emitted
    assert len(sections) == len(set(sections))


def test_sections_name_the_severity(project_root: Path) -> None:
    text = (project_root / "docs" / "checks.md").read_text()
    for code, first in re.findall(r"^### (\S+)\n(.*)$", text, re.MULTILINE):
        assert re.match(r"\*(error|warning|info)\*", first), code


@pytest.fixture(scope="module")
def schema() -> dict[str, object]:
    loaded: dict[str, object] = json.loads((Path(__file__).parents[2] / "docs" / "validate.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(loaded)
    return loaded


def test_the_commands_json_follows_the_schema(
    tmp_path: Path, schema: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fluxkit.toml").write_text('[project]\nname = "p"\ntrigger = "behitek"\n')
    (tmp_path / "dataset").mkdir()
    with pytest.raises(UserError):
        validate(tmp_path, out=Output(as_json=True))
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, schema)
    assert document["version"] == 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"version": 2}, schema)
