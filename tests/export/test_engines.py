"""The examples of the page, which let other programs run shards: their commands, run as they do."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from msgconv_async.export.shards import Shard
from msgconv_async.sandbox import CLIENT_ID, CLIENT_SECRET
from tests.export.collecting import DAY, World, in_postgres
from tests.export.killing import EDGE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "msgconv_async" / "export" / "README.md").read_text(encoding="utf-8")
SHARDS = PAGE.partition("### In shards\n")[2].partition("\n### ")[0]
HOME = "/srv/metrics"
ANALYZE = shutil.which("systemd-analyze")


def example(kind: str) -> str:
    [found] = re.findall(rf"^```{kind}\n(.*?)^```", SHARDS, re.DOTALL | re.MULTILINE)
    return str(found)


def of_systemd(instance: int) -> list[str]:
    """Return what an instance of the unit executes."""
    unit = ConfigParser(interpolation=None)
    unit.read_string(example("ini"))
    assert HOME == unit["Service"]["WorkingDirectory"]
    return shlex.split(unit["Service"]["ExecStart"].replace("%i", str(instance)))


def of_airflow(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return what the mapped tasks execute, by a stand-in: Airflow is larger than all of this."""
    commands: list[list[str]] = []

    def bash(*, append_env: bool, cwd: str) -> Any:
        assert (True, HOME) == (append_env, cwd)
        return lambda function: SimpleNamespace(
            expand=lambda *, shard: commands.extend(["bash", "-c", function(it)] for it in shard)
        )

    def dag(*, max_active_runs: int, **_: Any) -> Any:
        assert 1 == max_active_runs
        return lambda function: function

    sdk = ModuleType("airflow.sdk")
    sdk.__dict__.update(dag=dag, task=SimpleNamespace(bash=bash))
    monkeypatch.setitem(sys.modules, "airflow", ModuleType("airflow"))
    monkeypatch.setitem(sys.modules, "airflow.sdk", sdk)
    exec(compile(example("py"), "README.md", "exec"), {})  # noqa: S102
    return commands


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder as the examples have it: accounts without a secret, and a virtual environment."""
    home = tmp_path / "metrics"
    home.mkdir()
    (home / ".venv").symlink_to(sys.prefix)
    return home


@contextmanager
def running(command: list[str], home: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    command = [part.replace(HOME, str(home)) for part in command]
    with subprocess.Popen(  # noqa: S603 - the examples under test
        command, cwd=home, stderr=subprocess.PIPE, text=True, env=os.environ | settings
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_systemd_kubernetes_and_airflow_run_their_shards_at_once(
    home: Path, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of each, into the same tables: the first as an instance, a pod and a mapped task."""
    job = yaml.safe_load(example("yaml"))
    assert ("batch/v1", "Job") == (job["apiVersion"], job["kind"])
    assert ("Indexed", 8, 8) == tuple(
        job["spec"][name] for name in ("completionMode", "completions", "parallelism")
    )
    assert 1e9 < job["spec"]["backoffLimit"]  # restarts count all the job's life
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert HOME == container["workingDir"]
    mapped = of_airflow(monkeypatch)
    assert [f"{number}/8" for number in range(1, 9)] == [each[2].split()[-1] for each in mapped]

    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", database)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SECRET", CLIENT_SECRET)
    with World(accounts=12) as world:
        monkeypatch.setenv("MSGCONV_BASE_URL", world.sandbox.url)
        lines = [f'[credentials.all]\nkind = "client"\nclient_id = "{CLIENT_ID}"']
        lines.append('client_secret_env = "SECRET"')
        lines += [f'[[accounts]]\nid = "{id_}"\ncredentials = "all"' for id_ in world.ids]
        (home / "accounts.toml").write_text("\n".join(lines))
        with (
            running(of_systemd(1), home) as unit,
            running(container["command"], home, JOB_COMPLETION_INDEX="1") as pod,
            running(mapped[2], home) as task,
        ):
            for process, ends in ((unit, False), (pod, False), (task, True)):
                assert process.stderr is not None
                assert " rows in " in (said := process.stderr.readline())
                assert ends == ("next round" not in said)
                if not ends:
                    process.terminate()
            assert [143, 143, 0] == [each.wait(20) for each in (unit, pod, task)]
        dealt = {id_ for id_ in world.ids if any(Shard(n, 8).holds(id_) for n in (1, 2, 3))}
        truth = world.truth(EDGE - DAY, EDGE)["account_metrics"]
    found = in_postgres(database)["account_metrics"]
    assert {key: row for key, row in truth.items() if key[0] in dealt} == found
    assert dealt


@pytest.mark.skipif(ANALYZE is None, reason="systemd is not there")
def test_systemd_understands_the_unit(home: Path, tmp_path: Path) -> None:
    """Without a warning, for an instance of it."""
    unit = tmp_path / "msgconv@1.service"
    unit.write_text(example("ini").replace(HOME, str(home)), encoding="utf-8")
    done = subprocess.run(  # noqa: S603
        [str(ANALYZE), "verify", unit], capture_output=True, text=True, check=False
    )
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
