"""Look our dependencies up in the database of known vulnerabilities, where that can be reached.

Two lists are looked up: what is installed, and the lowest version of each package that a user's
installation may have. What ends with 1 is a finding that this repository can mend: in a lowest
version, or in an installed one of a declared dependency that has a mended version. Whatever else is
found is told. A database that cannot be reached, or that knows none of the packages, is told too,
and ends with 0.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

SECONDS = 90
FOR_US = {"bench", "dev", "fuzz"}
"""Extras that no user installs."""

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?>=([0-9.]+)")


def lowest() -> dict[str, str]:
    """Return the lowest version of each dependency that a user may have, by its name."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"]]
    declared += [each for name in extras.keys() - FOR_US for each in extras[name]]
    found = (_REQUIREMENT.match(each) for each in declared)
    return {match[1].lower(): match[2] for match in found if match}


def audited(*arguments: str) -> list[dict[str, Any]] | None:
    """Return what is known of each package, or None where the database cannot be asked."""
    command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off"]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            [*command, "--timeout=10", *arguments],
            capture_output=True,
            check=False,
            timeout=SECONDS,
        )
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return None
    # With no database behind it, pip-audit skips package after package, and calls that a success.
    return packages if any("vulns" in each for each in packages) else None


def main() -> int:
    """Look both lists up; return the exit code."""
    floors, code = lowest(), 0
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{name}=={version}\n" for name, version in floors.items())
        file.flush()
        at_floors = audited("--no-deps", "--disable-pip", "--requirement", file.name)
    for what, packages in (("lowest", at_floors), ("installed", audited("--skip-editable"))):
        if packages is None:
            print(f"{what} versions: skipped, the database of vulnerabilities cannot be reached")
            continue
        for each in packages:
            for finding in each.get("vulns", ()):
                mended = ", ".join(finding["fix_versions"])
                ours = each["name"].lower() in floors and (what == "lowest" or bool(mended))
                code |= ours
                print(
                    f"{'FAILED' if ours else 'warning'}: {what} {each['name']} {each['version']}:"
                    f" {finding['id']}, mended in {mended or 'no version yet'}"
                )
        known = sum("vulns" in each for each in packages)
        print(f"{what} versions: {known} of {len(packages)} packages looked up")
    return code


if __name__ == "__main__":
    sys.exit(main())
