"""An exception that an app's signal handler raises during a call is not taken for a damaged bundle."""

import errno
import shutil
from pathlib import Path

import pytest

from edgechat.runtime import BundleError, ChatModel
from edgechat.runtime.bundle import find_bundle


class Stop(Exception):  # noqa: N818 - as an app may call it
    pass


OF_AN_APP = [Stop("soft time limit"), TimeoutError("5 s are over")]


class Raising:
    """A session that is interrupted while it runs."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def run(self, *_: object) -> None:
        raise self._error


@pytest.fixture(scope="module")
def demo():
    return find_bundle("demo")


@pytest.mark.parametrize("error", OF_AN_APP, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("graph", ["_encoder", "_decoder"])
def test_an_exception_of_the_app_in_a_step_is_not_changed(demo, monkeypatch, graph, error):
    model = ChatModel.load(demo)
    with monkeypatch.context() as patched:
        patched.setattr(model.backend, graph, Raising(error))
        with pytest.raises(type(error), match=str(error)):
            model.reply("hello")
    assert model.reply("hello").text  # and the model can still be used


@pytest.mark.parametrize("error", OF_AN_APP, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "where",
    [
        "onnxruntime.InferenceSession",
        "edgechat.runtime.text.Tokenizer.from_str",
        "edgechat.runtime.manifest._parse_record",
        "edgechat.runtime.bundle._read_and_check",
    ],
)
def test_an_exception_of_the_app_while_a_bundle_is_loaded_is_not_changed(demo, monkeypatch, where, error):
    def interrupted(*_: object, **__: object) -> None:
        raise error

    if where.startswith("edgechat.runtime.text"):
        where = "edgechat.runtime.text.Tokenizer"
        monkeypatch.setattr(where, type("Interrupted", (), {"from_str": staticmethod(interrupted)}))
    else:
        monkeypatch.setattr(where, interrupted)
    with pytest.raises(type(error), match=str(error)):
        ChatModel.load(demo)


def test_errors_of_onnx_runtime_about_a_damaged_name_are_still_bundle_errors(demo, monkeypatch):
    """Its message contains the bytes of the name, which pybind11 cannot decode."""

    def refused(*_: object, **__: object) -> None:
        b"\xab".decode("utf-8")

    monkeypatch.setattr("onnxruntime.InferenceSession", refused)
    with pytest.raises(BundleError, match=r"encoder\.onnx cannot be run by ONNX Runtime"):
        ChatModel.load(demo)


def test_errors_about_a_file_are_still_bundle_errors(demo, tmp_path, monkeypatch):
    copied = shutil.copytree(demo, tmp_path / "copy")
    (copied / "decoder.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"decoder\.onnx"):
        ChatModel.load(copied)

    def unreadable(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "edgechat.json")

    monkeypatch.setattr("edgechat.runtime.bundle._read_and_check", unreadable)
    with pytest.raises(BundleError, match=r"edgechat\.json cannot be read: Input/output error"):
        ChatModel.load(demo)
