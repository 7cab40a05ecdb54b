"""What `train --dry-run --json` prints, launched by hand, is what `fluxkit train` launches."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fluxkit.console import Output
from tests.commands.test_train import FINISH, Trainer, run_train

RECORD = """
files = {{str(path.relative_to('config')): path.read_text() for path in sorted(Path('config').rglob('*'))}}
seen = {{"argv": sys.argv, "cwd": os.getcwd(), "env": dict(os.environ), "files": files}}
Path({record!r}).write_text(json.dumps(seen))
"""


def by_hand(plan: dict[str, Any]) -> None:
    for name, text in plan["files"].items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    subprocess.run(plan["argv"], cwd=plan["cwd"], env=plan["env"], check=True, capture_output=True)


def test_argv_folder_environment_and_config_are_those_of_a_launch_by_hand(
    project: Path, trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record.json"
    trainer(RECORD.format(record=str(record)) + FINISH)
    run_train(project, dry_run=True, out=Output(as_json=True))
    plan = json.loads(capsys.readouterr().out)
    assert not Path(plan["cwd"]).exists()
    by_hand(plan)
    hand = json.loads(record.read_text())
    shutil.rmtree(plan["cwd"])
    run = run_train(project)
    assert run is not None
    assert run.record.id == plan["run"]
    mine = json.loads(record.read_text())
    # fluxkit's ear, the one thing that it adds.
    config = json.loads(mine["files"]["config.json"])
    webhook = Path(config.pop("--webhook_config"))
    assert webhook.parent == run.config_dir
    del mine["files"][webhook.name]
    mine["files"]["config.json"] = json.dumps(config, indent=4, ensure_ascii=False) + "\n"
    assert mine == hand
    assert mine["env"] == plan["env"]
