"""What may be committed: nothing large, no data, no machine's own paths, no file too long to read."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
MAX_WEIGHTS_BYTES = 4 << 20
MAX_OTHER_BYTES = 200 << 10
MAX_LINES = 400
MAX_README_WORDS = 900
WEIGHTS = {".safetensors"}
DATA_SUFFIXES = {
    ".npz",
    ".npy",
    ".parquet",
    ".csv",
    ".gz",
    ".zip",
    ".tar",
    ".tgz",
    ".pt",
    ".pth",
    ".pkl",
    ".h5",
    ".mar",
}
NOT_OURS = {".git", ".venv", ".venv-proto", "build", "demo", "dist", "__pycache__"}

# Built from parts, so that this file does not hold what it looks for.
MACHINE_PATHS = re.compile(
    "|".join(f"(?<![\\w.])/{folder}/" for folder in ("work", "home", "root", "Users", "opt/wheels"))
)


def committed_files() -> list[Path]:
    """Files that are committed or would be; without git, every file outside the folders .gitignore names."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        return [path for path in ROOT.rglob("*") if path.is_file() and not is_ignored(path)]
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def is_ignored(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return any(part in NOT_OURS or part.endswith(("_cache", ".egg-info")) for part in parts)


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def is_generated(path: Path) -> bool:
    return "_pb2" in path.name


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""


FILES = committed_files()


def test_the_listing_sees_the_repository() -> None:
    assert {ROOT / "pyproject.toml", ROOT / "fount/address.py"} <= set(FILES)


def test_no_data_set_is_committed() -> None:
    data = [path for path in FILES if path.suffix in DATA_SUFFIXES or path.name.endswith("-ubyte")]
    assert names(data) == []


def test_weights_are_at_most_4_mb() -> None:
    assert names([path for path in FILES if path.suffix in WEIGHTS and path.stat().st_size > MAX_WEIGHTS_BYTES]) == []


def test_weights_stand_in_the_model_store_alone() -> None:
    weights = [path for path in FILES if path.suffix in WEIGHTS]
    assert names([path for path in weights if not path.is_relative_to(ROOT / "model_store")]) == []


def test_nothing_else_is_large() -> None:
    large = [path for path in FILES if path.suffix not in WEIGHTS and path.stat().st_size > MAX_OTHER_BYTES]
    assert names(large) == []


def test_files_are_short_enough_to_read() -> None:
    rooms = [path for path in FILES if path.relative_to(ROOT).parts[0] in {"fount", "service", "handlers"}]
    code = [path for path in rooms if path.suffix == ".py" and not is_generated(path)]
    assert names([path for path in code if len(path.read_text().splitlines()) > MAX_LINES]) == []


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "common", "misc"}
    assert names([path for path in FILES if path.stem in drawers]) == []


def test_the_readme_is_within_900_words() -> None:
    words = (ROOT / "README.md").read_text().split()
    if not words:
        pytest.skip("README.md is empty")
    assert len(words) <= MAX_README_WORDS


def test_no_path_of_one_machine_is_written_down() -> None:
    assert names([path for path in FILES if MACHINE_PATHS.search(text_of(path))]) == []


@pytest.mark.parametrize("path", ["/{}/main/fount", "cd /{}/x", "'/{}/y'"])
@pytest.mark.parametrize("folder", ["work", "home", "root", "Users"])
def test_a_path_of_one_machine_is_found(path: str, folder: str) -> None:
    assert MACHINE_PATHS.search(path.format(folder))


def test_a_path_within_the_project_is_no_machine_s() -> None:
    assert not MACHINE_PATHS.search("service/work/item, ./home/page, benchmarks/root/")


def test_the_change_log_has_an_unreleased_part() -> None:
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


def test_every_pin_is_exact() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_every_declared_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    pinned = {canonical(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {canonical(re.split(r"[^\w.-]", line)[0]) for line in declared} - pinned == set()


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def test_ci_and_hooks_call_make() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    called = [hook["entry"] for hook in hooks] + re.findall(r"^make .*$", (ROOT / ".ci/run").read_text(), re.M)
    assert called == ["make check", "make test", "make install", "make check", "make test"]


def test_every_target_the_documents_name_exists() -> None:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    named = {name for document in documents for name in re.findall(r"`make ([a-z-]+)", document.read_text())}
    assert named - targets() == set()


def test_ci_can_be_run() -> None:
    assert (ROOT / ".ci/run").stat().st_mode & 0o111 == 0o111


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_names_only_files_that_exist(page: Path) -> None:
    named = set(re.findall(r"`((?:protos|fount|service|handlers|tests|benchmarks)/[\w./-]*[\w/])`", page.read_text()))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
