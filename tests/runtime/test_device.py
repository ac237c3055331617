"""A model runs on the device that it reports, or not at all."""

import dataclasses
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgechat.runtime import BundleError, ChatModel, DeviceError, UsageError, chat, device, ort
from edgechat.runtime.backend import pad
from edgechat.runtime.bundle import find_bundle, read_bundle
from edgechat.runtime.device import CPU, CUDA, CudaSupport, check_cuda, providers, resolve_device
from edgechat.runtime.ort import OrtBackend

#: out = ConstantOfShape(shape), all float zeros.
CONSTANT_OF_SHAPE = helper.make_model(
    helper.make_graph(
        [helper.make_node("ConstantOfShape", ["shape"], ["out"])],
        "g",
        [helper.make_tensor_value_info("shape", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None])],
    ),
    ir_version=8,
    opset_imports=[helper.make_opsetid("", 18)],
).SerializeToString()
USABLE, NOT = CudaSupport(True, "usable"), CudaSupport(False, "no NVIDIA driver was found")


def test_the_cpu_is_selected_without_checking_cuda(monkeypatch):
    def never() -> CudaSupport:
        raise AssertionError("looked")

    monkeypatch.setattr(device, "check_cuda", never)
    assert resolve_device("cpu", ["fp32"]) == "cpu"


@pytest.mark.parametrize(("state", "chosen"), [(USABLE, "cuda"), (NOT, "cpu")])
def test_auto_selects_cuda_if_it_can_be_used(monkeypatch, state, chosen):
    monkeypatch.setattr(device, "check_cuda", lambda: state)
    for precision in ("fp16", "fp32"):
        assert resolve_device("auto", [precision]) == chosen


@pytest.mark.parametrize("precisions", [["int8"], ["fp32", "int8"]])
def test_int8_runs_on_the_cpu_where_cuda_can_be_used(monkeypatch, precisions):
    monkeypatch.setattr(device, "check_cuda", lambda: USABLE)
    assert resolve_device("auto", precisions) == "cpu"
    with pytest.raises(DeviceError) as raised:
        resolve_device("cuda", precisions)
    assert str(raised.value) == (
        "device cuda cannot be used with an int8 bundle, which ONNX Runtime can compute on the CPU only: "
        "use device cpu, or export with --precision fp16 or fp32"
    )


def test_an_int8_bundle_is_loaded_on_the_cpu_where_cuda_can_be_used(monkeypatch):
    monkeypatch.setattr(device, "check_cuda", lambda: USABLE)
    with ChatModel.load("demo") as model:
        assert model.device == "cpu"
    with pytest.raises(DeviceError, match="device cuda cannot be used with an int8 bundle"):
        ChatModel.load("demo", device="cuda")


def test_all_models_of_an_ensemble_run_on_one_device(monkeypatch):
    """CUDA cannot be used here, so the sessions of an fp32 model on CUDA would fail."""
    demo = read_bundle(find_bundle("demo"))
    fp32 = dataclasses.replace(demo, manifest=dataclasses.replace(demo.manifest, precision="fp32"))
    monkeypatch.setattr(device, "check_cuda", lambda: USABLE)
    monkeypatch.setattr(chat, "_read_bundle", lambda name, _: {"int8": demo, "fp32": fp32}[name])
    for names in (["fp32", "int8"], ["int8", "fp32"]):
        with ChatModel.load_ensemble(names) as model:
            assert model.device == "cpu"
        with pytest.raises(DeviceError, match="device cuda cannot be used with an int8 bundle"):
            ChatModel.load_ensemble(names, device="cuda")


def test_cuda_is_selected_if_it_can_be_used(monkeypatch):
    monkeypatch.setattr(device, "check_cuda", lambda: USABLE)
    assert resolve_device("cuda", ["fp16"]) == "cuda"


def test_cuda_that_cannot_be_used_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(device, "check_cuda", lambda: NOT)
    with pytest.raises(DeviceError, match="device cuda cannot be used: no NVIDIA driver was found"):
        resolve_device("cuda", ["fp32"])


@pytest.mark.parametrize("name", ["gpu", "CPU", "", None, "cuda:0"])
def test_an_unknown_device_is_refused_by_name(name):
    with pytest.raises(UsageError, match="device must be one of auto, cpu, cuda, not") as caught:
        resolve_device(name, ["fp32"])
    assert str(caught.value).endswith(repr(name))


def test_cuda_falls_back_to_the_cpu_for_operations_that_it_cannot_run():
    assert [name for name, _ in providers("cuda")] == [CUDA, CPU]
    assert [name for name, _ in providers("cpu")] == [CPU]


def test_fp32_is_not_rounded_to_tf32_on_cuda(monkeypatch, bundle_folder):
    asked: list[dict[str, str]] = []

    class Session(FakeCudaSession):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            asked.append(dict(self.asked)[CUDA])

        def get_inputs(self) -> list[object]:
            return []

    monkeypatch.setattr(ort.ort, "InferenceSession", Session)
    backend_of(bundle_folder, "cuda")
    assert asked == [{"use_tf32": "0"}] * 2


# --- whether CUDA can be used -----------------------------------------------------------------------


class FakeSession:
    """A session that runs on `running` whatever was requested, like those of ONNX Runtime."""

    running = CPU

    def __init__(self, graph: bytes, options: object, providers: list[str], **_: object) -> None:
        self.asked = providers

    def get_providers(self) -> list[str]:
        return [self.running]


class FakeCudaSession(FakeSession):
    running = CUDA


def a_driver(
    monkeypatch, *, listed: bool = True, preload=lambda: None, session: type = FakeCudaSession
) -> None:
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(device.ort, "get_available_providers", lambda: [CUDA, CPU] if listed else [CPU])
    monkeypatch.setattr(device.ort, "preload_dlls", preload, raising=False)
    monkeypatch.setattr(device.ort, "InferenceSession", session)


def look() -> CudaSupport:
    return check_cuda.__wrapped__()  # without the cached result of an earlier check


def test_a_session_that_runs_on_cuda_makes_it_usable(monkeypatch):
    a_driver(monkeypatch)
    assert look() == USABLE


def test_without_a_driver_there_is_no_cuda(monkeypatch):
    def missing(name: str) -> None:
        raise OSError(name)

    a_driver(monkeypatch)
    monkeypatch.setattr(device.ctypes, "CDLL", missing)
    assert look() == NOT


def test_an_onnxruntime_without_the_provider_is_named_with_the_fix(monkeypatch):
    a_driver(monkeypatch, listed=False)
    state = look()
    assert not state.usable
    assert "install onnxruntime-gpu in its place" in state.reason


def test_a_listed_provider_whose_session_falls_back_is_not_usable(monkeypatch, capsys):
    a_driver(monkeypatch, preload=lambda: print("Failed to load libcublasLt.so.12"), session=FakeSession)
    state = look()
    assert not state.usable
    assert "does not start: Failed to load libcublasLt.so.12" in state.reason
    assert capsys.readouterr().out == ""


def test_other_threads_may_print_while_libraries_are_loaded(monkeypatch, capsys):
    out = sys.stdout

    def preload() -> None:
        sys.stdout.write("of another thread\n")
        print("Failed to load libcublasLt.so.12")

    a_driver(monkeypatch, preload=preload, session=FakeSession)
    assert "does not start: Failed to load libcublasLt.so.12" in look().reason
    assert capsys.readouterr().out == "of another thread\n"
    assert sys.stdout is out


def test_the_libraries_are_loaded_by_onnx_runtimes_own_function(capsys):
    assert isinstance(device._preload_libraries(), str)
    assert capsys.readouterr().out == ""


def test_libraries_that_cannot_be_loaded_are_a_reason_and_not_a_traceback(monkeypatch):
    def preload() -> None:
        raise RuntimeError("no such folder")

    a_driver(monkeypatch, preload=preload)
    assert look() == CudaSupport(False, "the CUDA provider does not start: no such folder")


def test_a_session_that_cannot_be_created_is_a_reason_and_not_a_traceback(monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error 35")

    a_driver(monkeypatch, session=refused)
    assert look() == CudaSupport(False, "the CUDA provider does not start: CUDA error 35")


def test_the_probe_is_a_graph_that_runs():
    session = device.ort.InferenceSession(device._IDENTITY_GRAPH, providers=[CPU])
    assert session.run(None, {"x": [1.5]})[0].tolist() == [1.5]


# --- the sessions of a bundle -----------------------------------------------------------------------


def backend_of(bundle_folder, chosen: str) -> OrtBackend:
    bundle = read_bundle(bundle_folder)
    files = bundle.files
    return OrtBackend(
        bundle.manifest.graphs, files["encoder.onnx"], files["decoder.onnx"], device=chosen, threads=1
    )


def test_a_model_runs_on_the_provider_that_it_reports(bundle_folder):
    backend = backend_of(bundle_folder, "cpu")
    assert backend._encoder.get_providers()[0] == backend._decoder.get_providers()[0] == CPU


def test_a_session_that_silently_falls_back_is_refused_by_name(bundle_folder, monkeypatch):
    monkeypatch.setattr(ort.ort, "InferenceSession", FakeSession)
    with pytest.raises(DeviceError, match=r"encoder\.onnx should run on cuda, but .* fell back to CPU"):
        backend_of(bundle_folder, "cuda")


def test_a_graph_that_onnx_runtime_refuses_is_one_sentence(bundle_folder, monkeypatch):
    def refuses(*_: object, **__: object) -> None:
        raise RuntimeError("no\nkernel")

    monkeypatch.setattr(ort.ort, "InferenceSession", refuses)
    with pytest.raises(BundleError, match=r"^encoder\.onnx cannot be run by ONNX Runtime: no kernel$"):
        backend_of(bundle_folder, "cpu")


NO_MEMORY = pytest.mark.parametrize(
    "error",
    [
        MemoryError("std::bad_alloc"),
        RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Exception during loading: std::bad_alloc"),
        RuntimeError("[ONNXRuntimeError] : 1 : Failed to allocate memory for requested buffer of size 9"),
        RuntimeError("[ONNXRuntimeError] : 6 : Available memory of 1 is smaller than requested bytes of 2"),
        RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory ; GPU=0"),
    ],
    ids=["C++", "loading", "arena", "limit", "CUDA"],
)


@NO_MEMORY
def test_a_session_without_enough_memory_is_not_the_bundles_fault(bundle_folder, monkeypatch, error):
    def short(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ort.ort, "InferenceSession", short)
    with pytest.raises(DeviceError, match=r"^encoder\.onnx needs more memory than is available: [^\n]+$"):
        backend_of(bundle_folder, "cpu")


@NO_MEMORY
def test_a_step_without_enough_memory_is_not_the_bundles_fault(bundle_folder, error):
    class Session:
        def run(self, *_: object) -> None:
            raise error

    backend = backend_of(bundle_folder, "cpu")
    backend._encoder = Session()
    with pytest.raises(DeviceError, match=r"^encoder\.onnx needs more memory than is available: [^\n]+$"):
        backend.encode(*pad([[5]]))


def test_out_of_memory_errors_are_recognized(bundle_folder):
    """With a real error of ONNX Runtime, for a tensor of a petabyte."""
    shape = ort.ort.InferenceSession(CONSTANT_OF_SHAPE, providers=[CPU])
    with pytest.raises(DeviceError, match="needs more memory than is available"):
        ort._run("x.onnx", shape, ["out"], {"shape": np.array([1 << 48])})


def test_graphs_that_do_not_fit_the_state_map_are_refused_by_name(bundle_folder):
    bundle = read_bundle(bundle_folder)
    encoder = bundle.files["encoder.onnx"]
    with pytest.raises(BundleError, match=r"decoder\.onnx: input or output '.*' does not fit the state map"):
        OrtBackend(bundle.manifest.graphs, encoder, encoder, device="cpu", threads=1)


def test_sizes_that_do_not_fit_the_graphs_are_one_sentence(bundle_folder):
    import dataclasses

    bundle = read_bundle(bundle_folder)
    spec = bundle.manifest.graphs
    attn = next(tensor for tensor in spec.state if tensor.first == "zeros")
    narrow = dataclasses.replace(attn, shape=("M", attn.shape[1] - 1))
    state = tuple(narrow if tensor == attn else tensor for tensor in spec.state)
    with pytest.raises(BundleError, match=r"^decoder\.onnx: 'attn' declares '48' where it must have 47$"):
        OrtBackend(
            dataclasses.replace(spec, state=state),
            bundle.files["encoder.onnx"],
            bundle.files["decoder.onnx"],
            device="cpu",
            threads=1,
        )


def test_a_run_that_fails_is_one_sentence(bundle_folder):
    backend = backend_of(bundle_folder, "cpu")
    state = backend.encode(*pad([[5, 6]]))
    with pytest.raises(BundleError, match=r"^decoder\.onnx does not fit its manifest: [^\n]+$"):
        backend.step(state, np.array([1, backend.vocab_size]), np.array([0, 0]), 3)
