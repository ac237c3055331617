"""The package: what can be imported, what the wheel contains, and what an import loads."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import edgechat

ROOT = Path(__file__).parents[1]
FOLDERS = ("cli", "export", "models", "runtime", "train", "tui")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def python(code: str, cwd: Path) -> str:
    """The output of a new interpreter that runs `code` in the folder `cwd`."""
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_importable_only_under_edgechat(name):
    assert importlib.util.find_spec(name) is None
    spec = importlib.util.find_spec(f"edgechat.{name}")
    assert spec is not None
    assert Path(str(spec.origin)) == ROOT / name / "__init__.py"


def test_a_folder_is_importable_only_under_edgechat_in_a_fresh_interpreter(tmp_path):
    code = f"import importlib.util as i, edgechat; print([n for n in {FOLDERS} if i.find_spec(n)])"
    assert python(code, tmp_path) == "[]"


def test_the_runtime_loads_nothing_of_training_command_line_or_chat(tmp_path):
    loaded = python("import edgechat.runtime, sys; print(*sys.modules)", tmp_path).split()
    assert {"edgechat.runtime.chat", "onnxruntime", "numpy", "tokenizers"} <= set(loaded)
    unwanted = (
        "torch",
        "onnx",
        "typer",
        "textual",
        "rich",
        "click",
        "safetensors",
        "sacrebleu",
        "matplotlib",
        "cryptography",
    )
    assert not {name.split(".")[0] for name in loaded} & set(unwanted)
    layers = {name.split(".")[1] for name in loaded if name.startswith("edgechat.")}
    assert layers == {"runtime"}
    assert not {"asyncio", "importlib.resources"} & set(
        loaded
    )  # a tenth of the start-up time, and seldom needed


@pytest.mark.parametrize("command", [["reply", "demo", "hello"], ["chat", "demo"], ["verify", "demo"]])
def test_no_telemetry_is_sent_and_no_file_is_left_in_the_home_folder(tmp_path, command):
    """With telemetry, ONNX Runtime would store an identifier and a queue of events there."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    done = subprocess.run(
        [sys.executable, "-m", "edgechat", *command],
        input="hello\n",
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not list(tmp_path.rglob("*"))


def test_the_runtime_stops_numpy_threads_from_spinning_without_changing_the_environment(tmp_path):
    say = (
        "import os, time, edgechat.runtime; "
        "print(os.environ.get('OPENBLAS_THREAD_TIMEOUT'), time.process_time() - time.thread_time())"
    )
    variable, at_rest = python(say, tmp_path).split()
    assert variable == "None"
    spin = "import os; os.environ['OPENBLAS_THREAD_TIMEOUT'] = '28'; "
    variable, spinning = python(spin + say, tmp_path).split()
    assert variable == "28"  # an explicit setting is respected
    if float(spinning) < 0.01:
        pytest.skip("NumPy has one thread here, or another BLAS")
    assert float(at_rest) < float(spinning) / 4  # CPU seconds of the other threads


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["reply", "--help"], ["train", "--help"]])
def test_help_does_not_load_what_only_training_or_the_chat_need(tmp_path, arguments):
    code = f"""
import sys
from edgechat.cli import main
sys.argv = ["edgechat", *{arguments}]
try:
    main()
except SystemExit:
    print()
    print("loaded", *{{name.split(".")[0] for name in sys.modules}})
"""
    loaded = python(code, tmp_path).splitlines()[-1].split()
    assert loaded[0] == "loaded"
    assert not {"torch", "onnx", "textual", "safetensors", "sacrebleu"} & set(loaded)


def test_every_package_folder_is_listed():
    found = {"edgechat"}
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join(("edgechat", *init.parent.relative_to(ROOT).parts)))
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(found)
    assert set(PYPROJECT["tool"]["setuptools"]["package-dir"]) == {
        "edgechat", *(f"edgechat.{name}" for name in FOLDERS)
    }  # fmt: skip


def test_every_folder_with_python_files_is_a_package():
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path


def test_the_version_has_one_source(tmp_path):
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "edgechat.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", edgechat.__version__)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert edgechat.__version__ in changes


def in_wheel() -> set[str]:
    """The files of the source tree that belong in the wheel, by their names in it."""
    found = {f"edgechat/{path.name}" for path in (ROOT / "src" / "edgechat").iterdir() if path.is_file()}
    data = {"tui": (".tcss", ".html"), "models": (".toml",)}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            demo = folder == "models" and path.parent.name == "demo"
            if path.is_file() and (path.suffix == ".py" or path.suffix in data.get(folder, ()) or demo):
                found.add(f"edgechat/{path.relative_to(ROOT)}")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the tree with the setuptools that is installed."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed here")
    copy = tmp_path_factory.mktemp("wheel") / "tree"
    copy.mkdir()
    for name in ("src", *FOLDERS):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        ".",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
    ]
    done = subprocess.run([*build, "out"], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (copy / "out").iterdir()
    assert path.name.startswith(f"edgechat-{edgechat.__version__}-py3-none-any")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_files_of_the_tree_and_no_others(wheel):
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == in_wheel()


def test_the_wheel_holds_each_file_byte_for_byte(wheel):
    for name in sorted(in_wheel()):
        inner = name.removeprefix("edgechat/")
        path = ROOT / inner if (ROOT / inner).exists() else ROOT / "src" / "edgechat" / inner
        assert wheel.read(name) == path.read_bytes(), name


def test_the_wheel_has_the_command_and_the_license(wheel):
    info = {name.split("/", 1)[1]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert b"edgechat = edgechat.cli:main" in wheel.read(info["entry_points.txt"])
    assert "licenses/LICENSE" in info


def test_an_installed_wheel_runs_without_the_tree(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    code = f"""
import sys
sys.meta_path = [f for f in sys.meta_path if "editable" not in str(f).lower()]
sys.path.insert(0, {str(tmp_path / "site")!r})
import edgechat, edgechat.runtime
from edgechat.train.config import preset_names
print(edgechat.__file__, edgechat.runtime.__file__, *preset_names())
"""
    root, runtime, *presets = python(code, tmp_path).split()
    assert Path(root).is_relative_to(tmp_path)
    assert Path(runtime).is_relative_to(tmp_path)
    assert {"tiny", "small", "base", "classic"} <= set(presets)


#: Home folders of people and of build machines, which no tracked file may name.
_MACHINE = re.compile(rb"(?<![\w.~/-])(?:/home/\w|/Users/\w|/root/|[A-Z]:\\\\?Users)")


def test_no_tracked_file_names_a_folder_of_a_developers_machine():
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is not a git checkout, or git is missing")
    names = [Path(name) for name in listed.stdout.decode().split("\0") if name]
    assert Path("pyproject.toml") in names
    for name in names:
        if (ROOT / name).is_file() and name != Path(__file__).relative_to(ROOT):
            content = (ROOT / name).read_bytes()
            found = _MACHINE.search(content)
            assert b"\0" in content[:4096] or not found, f"{name}: {found}"


@pytest.mark.parametrize(
    ("package", "command", "sentence"),
    [
        ("typer", ["--help"], "edgechat: the command line needs typer: pip install typer"),
        ("annotated_doc", ["--help"], "edgechat: the command line needs typer: pip install typer"),
        (
            "torch",
            ["train", "--dry-run", "chatterbot", "--tokenizer", "x"],
            "needs torch: pip install torch\n",
        ),
    ],
)
def test_a_missing_package_is_named_in_one_sentence(tmp_path, package, command, sentence):
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{package!r}] = None\n")
    done = subprocess.run(
        [sys.executable, "-m", "edgechat", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_eval_of_a_bundle_needs_no_torch_and_names_only_what_it_lacks(tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "hello", "response": "hi"}\n')
    code = """
import sys
sys.modules.update(dict.fromkeys({missing}))
from edgechat.cli import main
sys.argv = ["edgechat", "eval", "demo", "--data", "pairs.jsonl", "--json"]
try:
    main()
except SystemExit as end:
    print(end.code)
"""
    done = python(code.format(missing=["torch"]), tmp_path).splitlines()
    assert json.loads(done[0])["pairs"] == 1
    missing = ["torch", "onnx", "sacrebleu", "matplotlib"]
    done = subprocess.run(
        [sys.executable, "-c", code.format(missing=missing)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == "edgechat: this command needs sacrebleu.metrics: pip install sacrebleu\n"
