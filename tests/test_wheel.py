"""The built wheel, alone in an empty environment, runs the README's job."""

import collections
import re
import subprocess
import sys
from pathlib import Path

from tests.published import records

ROOT = Path(__file__).resolve().parent.parent


def _run(*command: object, cwd: Path) -> str:
    words = [str(part) for part in command]
    result = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_readme_job_runs_from_the_wheel_in_an_empty_environment(tmp_path):
    pip = (sys.executable, "-m", "pip")
    _run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT, cwd=ROOT)
    (wheel,) = tmp_path.glob("raystream-*.whl")
    _run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    bin_dir = tmp_path / "venv" / "bin"
    install = (bin_dir / "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(*install, "--no-compile", wheel, cwd=tmp_path)  # Of what is installed, the job imports little.
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (job,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "job.py").write_text(job, encoding="utf-8")
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")

    _run(bin_dir / "raystream", "run", "-p", "2", "job.py", cwd=tmp_path)

    largest: dict[str, int] = {}
    for word, seen in records(tmp_path / "out" / "words"):
        largest[word] = max(seen, largest.get(word, 0))
    assert largest == collections.Counter(word.lower() for word in readme.split())
