"""int8 and fp16: numbers computed by hand, rows that do not depend on their batch, and quality limits."""

import dataclasses
import threading
import time

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from edgechat.export import ProofError, QualityError, export, exporter
from edgechat.export.bundle_graphs import build_graphs
from edgechat.export.card import model_card
from edgechat.export.exporter import prove_bundle
from edgechat.export.graph_builder import FLOAT, GraphBuilder
from edgechat.export.graphs import build_decoder, build_encoder, graph_spec
from edgechat.export.int8_levels import measure_levels
from edgechat.export.precision import Float16, Float32, Int8
from edgechat.export.proof import prove, prove_batching
from edgechat.export.quality import LIMITS, Quality, compare_with_fp32, measure_step_ms, reasons_against
from edgechat.export.quantize import LEVEL_CHOICES, Levels, choose_levels, quantize_columns, quantized_product
from edgechat.runtime import ChatModel, UsageError
from edgechat.runtime.backend import pad
from edgechat.runtime.bundle import find_bundle, read_bundle
from edgechat.runtime.options import DecodingOptions
from edgechat.runtime.ort import OrtBackend
from edgechat.runtime.scheduler import decode
from edgechat.runtime.teacher_forcing import score_targets
from edgechat.runtime.text import EOS, GO
from edgechat.train.backend import TorchBackend
from edgechat.train.config import load_preset
from edgechat.train.model import ModelConfig, Seq2Seq
from edgechat.train.run import open_run

V = 60
FIXED = Levels(127, 64, 4.0)


def make_model() -> Seq2Seq:
    torch.manual_seed(3)
    config = ModelConfig(layers=2, hidden=32, embedding=12, attention=16, dropout=0.0)
    model = Seq2Seq(config, V).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model


def backend_of(model: Seq2Seq, precision) -> OrtBackend:
    graphs = build_encoder(model, precision), build_decoder(model, precision)
    return OrtBackend(graph_spec(model), *graphs, device="cpu", threads=1)


def sources_of(count: int, longest: int = 12, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(5, V, size=random.integers(1, longest + 1)).tolist() for _ in range(count)]


@pytest.fixture(scope="module")
def model() -> Seq2Seq:
    return make_model()


@pytest.fixture(scope="module")
def exact(model) -> OrtBackend:
    return backend_of(model, Float32())


@pytest.fixture(scope="module")
def int8(model, exact) -> OrtBackend:
    sources = sources_of(8)
    return backend_of(model, Int8(measure_levels(model, exact, sources, sources)))


@pytest.fixture(scope="session")
def int8_folder(tmp_path_factory, run_folder):
    out = tmp_path_factory.mktemp("int8") / "bundle"
    export(run_folder, out, precision="int8", checkpoint="last")
    return out


# --- the numbers ---------------------------------------------------------------------------------


def test_a_column_is_divided_by_its_own_largest_value():
    values, scale = quantize_columns(np.array([[1.0, -4.0], [0.5, 2.0]], dtype=np.float32), 4)
    assert values.tolist() == [[4, -4], [2, 2]]
    assert scale.tolist() == [0.25, 1.0]


def test_a_column_of_zeros_stays_zeros():
    values, _ = quantize_columns(np.zeros((3, 2), dtype=np.float32), 91)
    assert not values.any()


def test_a_product_by_hand():
    # x / 2 * 4 = [4, -2], rounded to even: 1.0 -> 2, -0.75 -> -1.5 -> -2. w = [4, 2] at scale 0.25.
    x, w = np.array([[2.0, -0.75]], dtype=np.float32), np.array([[1.0], [0.5]], dtype=np.float32)
    product = quantized_product(x, w, Levels(4, 4))
    assert product.tolist() == [[(4 * 4 + -2 * 2) * 0.25 * 0.5]]


def test_a_fixed_range_is_the_same_for_every_row_and_cuts_off_what_exceeds_it():
    # At range 2: 2 -> 127, -1 -> -63.5 -> -64 (to even). 3 is cut off at 255 - 127, -3 at 0 - 127.
    x, w = np.array([[2.0], [-1.0], [3.0], [-3.0]], dtype=np.float32), np.array([[64.0]], dtype=np.float32)
    product = quantized_product(x, w, Levels(127, 64, 2.0))
    np.testing.assert_allclose(product[:, 0] / 64 / 2 * 127, [127, -64, 128, -127], rtol=1e-6)


@pytest.mark.parametrize("levels", [*LEVEL_CHOICES, FIXED], ids=str)
def test_no_pair_of_products_can_leave_16_bits(levels):
    # What CPUs without VNNI do with the largest bytes: two products of uint8 and int8, added in int16.
    x = np.array([100.0, 100.0])  # exceeds the fixed range of 4; otherwise, the range is that of the row
    step = (levels.fixed_range or x.max()) / levels.max_activation
    qx = np.clip(np.rint(x / step) + levels.max_activation, 0, 255).astype(np.uint8)
    for sign in (1, -1):
        qw, _ = quantize_columns(np.full((2, 1), sign, dtype=np.float32), levels.max_weight)
        exact = int((qx.astype(np.int32) * qw[:, 0]).sum())
        assert abs(exact) > 32_000  # nearly all 16 bits are used
        assert int(np.clip(exact, -32_768, 32_767)) == exact


@pytest.mark.parametrize("wrong", [(127, 65), (91, 91), (128, 1), (1, 0), (127, 65, 1.0), (90, 91, 1.0)])
def test_levels_that_could_saturate_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        Levels(*wrong)


def test_the_levels_with_the_smallest_error_are_chosen():
    # A weight with only two values needs few levels, so the activations get the most; and vice versa.
    random = np.random.default_rng(0)
    coarse = np.sign(random.normal(size=(64, 16))).astype(np.float32)
    fine = random.normal(size=(64, 16)).astype(np.float32)
    assert choose_levels(random.normal(size=(99, 64)).astype(np.float32), coarse) == Levels(127, 64)
    assert choose_levels(np.sign(random.normal(size=(99, 64))).astype(np.float32), fine) == Levels(63, 127)


def test_a_range_is_fixed_for_similar_rows_only():
    random = np.random.default_rng(0)
    weight = random.normal(size=(64, 16)).astype(np.float32)
    x = random.uniform(-1, 1, size=(99, 64)).astype(np.float32)
    assert choose_levels(x, weight, 1.0) == Levels(127, 64, 1.0)
    assert choose_levels(x, weight, 9.0).fixed_range is None
    assert choose_levels(x, weight).fixed_range is None


def test_a_few_rows_do_not_fix_a_range(model, exact):
    def ranges(pairs: int) -> list[float | None]:
        sources = sources_of(pairs)
        return [levels.fixed_range for levels in measure_levels(model, exact, sources, sources).values()]

    assert ranges(8) == [None] * 5
    assert None not in ranges(80)


def test_levels_are_measured_on_one_thread(model, exact, monkeypatch):
    """The last digits of the measured inputs depend on the number of threads."""
    made: list[ort.SessionOptions] = []
    real = ort.InferenceSession

    def session(graph: bytes, options: ort.SessionOptions | None = None, **more) -> ort.InferenceSession:
        made.append(options or ort.SessionOptions())
        return real(graph, options, **more)

    monkeypatch.setattr(ort, "InferenceSession", session)
    measure_levels(model, exact, sources_of(2), sources_of(2))
    assert [options.intra_op_num_threads for options in made] == [1]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("levels", [*LEVEL_CHOICES, FIXED], ids=str)
def test_the_graph_computes_that_product(levels, biased):
    random = np.random.default_rng(1)
    weight = random.normal(size=(40, 24)).astype(np.float32)
    bias = random.normal(size=24).astype(np.float32) * biased
    x = random.normal(size=(7, 40)).astype(np.float32)
    if levels.fixed_range is None:
        x *= np.logspace(-3, 3, 7, dtype=np.float32)[:, None]
    x[3] = 0
    g = GraphBuilder("product")
    name = g.weight("bias", bias) if biased else None
    y = Int8({"w": levels}).linear(g, g.input("x", FLOAT, ["N", 40]), "w", weight, name)
    g.output("y", y, FLOAT, ["N", 24])
    (found,) = ort.InferenceSession(g.build(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(found, quantized_product(x, weight, levels) + bias, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found, x @ weight + bias, atol=0.03 * np.abs(x @ weight).max())
    assert np.array_equal(found[3], bias)


def test_every_sentence_has_two_rows_in_measurements_and_proofs(model):
    """With one row, the attention product would use another kernel than in a reply."""
    rows: list[int] = []

    class Counted(OrtBackend):
        def step(self, state, tokens, parents, candidates, *, return_logp=False):
            rows.append(len(tokens) // len(state.memory["keys"]))
            return super().step(state, tokens, parents, candidates, return_logp=return_logp)

    backend = backend_of(model, Float32())
    backend.__class__ = Counted
    sources = sources_of(3)
    measure_levels(model, backend, sources, sources)
    compare_with_fp32(backend, backend, sources, sources)
    score_targets(backend, sources, sources)
    assert set(rows) == {2}
    prove(TorchBackend(model), backend, sources, sources, max_length=3)
    assert set(rows) == {2, 5}  # 5 is the beam


# --- rows do not depend on their batch -----------------------------------------------------------------


def test_a_row_gives_the_same_bits_alone_and_in_a_batch(model):
    random = np.random.default_rng(2)
    weight = random.normal(size=(64, 48)).astype(np.float32)
    g = GraphBuilder("product")
    y = Int8({"w": LEVEL_CHOICES[0]}).linear(g, g.input("x", FLOAT, ["N", 64]), "w", weight)
    g.output("y", y, FLOAT, ["N", 48])
    session = ort.InferenceSession(g.build(), providers=["CPUExecutionProvider"])
    x = random.normal(size=(65, 64)).astype(np.float32)
    x[1:] *= 50  # other rows are far larger: with one scale for all, row 0 would vanish
    (alone,), (among,) = session.run(None, {"x": x[:1]}), session.run(None, {"x": x})
    assert np.array_equal(alone[0], among[0])


@pytest.mark.parametrize("beam", [1, 5])
def test_int8_replies_are_the_same_alone_in_ragged_batches_and_at_any_padding(int8, beam):
    sources = sources_of(64)
    options = DecodingOptions(beam=beam, n_best=beam, normalize="none")
    alone = decode(int8, sources, options, max_length=14, batch_size=1)
    for batch_size in (2, 3, 7, 31, 64):
        for start in range(0, 64, batch_size):
            part = sources[start : start + batch_size]
            padded = [*part, [5] * 40]  # one long source pads all others
            got = decode(int8, padded, options, max_length=14, batch_size=len(padded))
            for ours, theirs in zip(alone[start : start + batch_size], got, strict=False):
                if min(ours.min_gap, theirs.min_gap) >= 1e-4:
                    assert [h.tokens for h in ours.hypotheses()] == [h.tokens for h in theirs.hypotheses()]
                    a, b = ([h.score for h in s.hypotheses()] for s in (ours, theirs))
                    assert a == pytest.approx(b, abs=1e-2)


def test_the_proof_fails_if_replies_depend_on_the_batch(model, exact):
    class OneScaleForAll(OrtBackend):
        """Like the usual dynamic quantization of ONNX Runtime: rounding depends on the largest value."""

        def step(self, state, tokens, parents, candidates, *, return_logp=False):
            largest = max(float(np.abs(value).max()) for value in state.recurrent.values())
            coarse = {k: np.rint(v / largest * 6) * largest / 6 for k, v in state.recurrent.items()}
            state = state._replace(recurrent={k: v.astype(np.float32) for k, v in coarse.items()})
            return super().step(state, tokens, parents, candidates, return_logp=return_logp)

    other = backend_of(model, Float32())
    other.__class__ = OneScaleForAll
    sources = sources_of(32)
    with pytest.raises(ProofError, match="between batch 1 and batch 2"):
        prove_batching(other, sources, precision="int8", max_length=12)
    assert prove_batching(exact, sources, precision="fp32", max_length=12).worst_reply_logp < 1e-5


# --- size and quality ----------------------------------------------------------------------------


def test_int8_graphs_of_the_small_preset_leave_room_for_its_tokenizer():
    config = load_preset("small")
    model = Seq2Seq(config.model, config.data.vocab_size)
    levels = dict.fromkeys(
        (
            "cells.0.weight",
            "cells.1.weight",
            "attention.query.weight",
            "attention_vector.weight",
            "output.weight",
        ),
        LEVEL_CHOICES[0],
    )
    precision = Int8(levels)
    size = len(build_encoder(model, precision)) + len(build_decoder(model, precision))
    assert size <= 17.8e6


def test_every_large_weight_is_stored_in_the_precision(model):
    for precision, kind in ((Float16(), onnx.TensorProto.FLOAT16), (None, onnx.TensorProto.INT8)):
        chosen = precision or Int8(
            measure_levels(model, backend_of(model, Float32()), sources_of(2), sources_of(2))
        )
        for graph in (build_encoder(model, chosen), build_decoder(model, chosen)):
            for weight in onnx.load_from_string(graph).graph.initializer:
                if np.prod(weight.dims) > 10 * V:
                    assert weight.data_type == kind, weight.name


def test_the_card_reports_no_change_of_an_infinite_perplexity():
    manifest = read_bundle(find_bundle("demo")).manifest
    beside = {**manifest.quality["against_fp32"], "perplexity": np.inf, "fp32_perplexity": np.inf}
    card = model_card(dataclasses.replace(manifest, quality={**manifest.quality, "against_fp32": beside}))
    assert "perplexity\nchanges by +0.00%," in card


def test_the_card_names_near_ties_only_if_there_are_any():
    manifest = read_bundle(find_bundle("demo")).manifest
    assert "near tie" not in model_card(manifest)
    int8 = {**manifest.proof["int8"], "near_ties": 2}
    card = model_card(dataclasses.replace(manifest, proof={**manifest.proof, "near_ties": 1, "int8": int8}))
    assert "are the same token by token,\nexcept for 1 near tie.\n" in card
    assert "alone and in batches of 2, 7, 64,\nexcept for 2 near ties.\n" in card


@pytest.mark.parametrize(("count", "said"), [(1, "1 reply"), (7, "7 replies")])
def test_the_card_describes_the_closed_set(count, said):
    manifest = read_bundle(find_bundle("demo")).manifest
    assert "It repeats and recombines" in model_card(manifest)
    quality = {**manifest.quality, "closed_set": {"replies": count}}
    card = model_card(dataclasses.replace(manifest, quality=quality))
    assert "recombines" not in card
    assert f"| reply | closed set: {said}, in `replies.json` |" in card
    assert "Whatever the prompt, it gives one of the replies of its closed set." in card


def test_graphs_compared_with_themselves_have_no_error(exact, int8):
    sources, targets = sources_of(40), [[*s[:4], EOS] for s in sources_of(40, seed=9)]
    same = compare_with_fp32(exact, exact, sources, targets)
    assert (same.agreement, same.mean_logp, same.worst_logp, same.perplexity_change) == (1.0, 0.0, 0.0, 0.0)
    assert same.tokens == sum(map(len, targets))
    other = compare_with_fp32(exact, int8, sources, targets)
    assert 0 < other.mean_logp < other.worst_logp < 2
    assert other.fp32_perplexity == same.perplexity != other.perplexity
    src, src_len = pad([sources[0]])
    logps = []
    for backend in (exact, int8):
        out, _ = backend.step(
            backend.encode(src, src_len),
            np.full(2, GO, dtype=np.int64),
            np.zeros(2, dtype=np.int64),
            1,
            return_logp=True,
        )
        logps.append(out.logp[0, targets[0][0]])
    one = compare_with_fp32(exact, int8, sources[:1], [targets[0][:1]])
    assert one.worst_logp == one.mean_logp == pytest.approx(abs(logps[0] - logps[1]), abs=1e-6)


GOOD = Quality(9, 99, 1.0, 10.0, 10.0, 0.01, 0.1)


@pytest.mark.parametrize(
    ("worse", "said"),
    [
        ({"agreement": 0.94}, "94.0% of tokens agree"),
        ({"perplexity": 10.3}, "perplexity changes by +3.00%"),
        ({"perplexity": float("nan")}, "perplexity changes by +nan%"),
        ({"mean_logp": 0.2}, "the mean log-probability error is 0.200, but at most 0.1 is allowed"),
        ({"worst_logp": float("nan")}, "the worst log-probability error is nan"),
    ],
)
def test_each_exceeded_limit_is_reported_with_its_figures(worse, said):
    ms = {"fp32": 1.0, "int8": 0.5}
    assert reasons_against("int8", GOOD, size=1, fp32_size=4, ms=ms) == []
    (reason,) = reasons_against("int8", dataclasses.replace(GOOD, **worse), size=1, fp32_size=4, ms=ms)
    assert said in reason


def test_step_times_exclude_the_warm_up_and_other_threads():
    class Stepping:
        """Slow at first, while another thread works. Records the order of all steps."""

        def __init__(self, name: str) -> None:
            self.name = name

        def encode(self, *_: object) -> None:
            pass

        def step(self, *_: object) -> None:
            spend(0.05 if self.name not in steps else 0.001)
            steps.append(self.name)

    def spend(seconds: float) -> None:
        start = time.thread_time()
        while time.thread_time() < start + seconds:
            pass

    def other() -> None:
        while not over.is_set():
            spend(0.001)

    steps: list[str] = []
    over = threading.Event()
    thread = threading.Thread(target=other)
    thread.start()
    try:
        ms = measure_step_ms({"fp32": Stepping("fp32"), "int8": Stepping("int8")}, [5])
    finally:
        over.set()
        thread.join()
    assert steps == ["fp32", "int8"] * 31  # the first turn warms up
    assert all(1 <= ms[name] < 1.5 for name in ("fp32", "int8"))


def test_graphs_that_are_neither_smaller_nor_faster_are_refused():
    (reason,) = reasons_against("fp16", GOOD, size=4, fp32_size=4, ms={"fp32": 1.0, "fp16": 1.0})
    assert "no smaller (4 bytes, fp32 4) and no faster (1.00 ms per step, fp32 1.00)" in reason
    assert reasons_against("fp16", GOOD, size=4, fp32_size=4, ms={"fp32": 1.0, "fp16": 0.9}) == []
    assert reasons_against("fp16", GOOD, size=3, fp32_size=4, ms={"fp32": 1.0, "fp16": 2.0}) == []


# --- bundles -------------------------------------------------------------------------------------


def test_an_int8_bundle_records_its_cost_and_replies(int8_folder, bundle_folder):
    small, large = read_bundle(int8_folder), read_bundle(bundle_folder)
    assert small.size < 0.45 * large.size
    manifest = small.manifest
    assert manifest.precision == "int8"
    assert manifest.quality["against_fp32"]["agreement"] >= LIMITS["int8"].agreement
    assert manifest.quality["forced"] is False
    assert manifest.proof["int8"]["replies"] > 0
    assert "int8 graphs of this bundle were compared" in small.files["MODEL_CARD.md"].decode()
    assert str(ChatModel.load(int8_folder).reply("turn left twice")) == "LEFT LEFT"


def test_with_few_held_out_pairs_a_bundle_is_tested_on_training_pairs_too(run_folder, int8_folder):
    run, quality = open_run(run_folder), read_bundle(int8_folder).manifest.quality
    held_out, learned = len(run.valid_pairs), len(run.train_pairs)
    assert 0 < held_out < 500
    assert quality["valid_pairs"] == held_out
    assert quality["against_fp32"]["pairs"] == min(500, held_out + learned)
    exact = build_graphs(run.load_model("last")[0], "fp32", ([], [])).fp32_backend
    pairs = [
        (run.valid_pairs.source(i).tolist(), run.valid_pairs.target(i).tolist()) for i in range(held_out)
    ]
    sources, targets = zip(*pairs, strict=True)
    fp32 = compare_with_fp32(exact, exact, sources, targets).perplexity
    assert quality["valid_perplexity"] == pytest.approx(fp32, rel=0.2)  # on the held-out pairs only
    assert quality["against_fp32"]["perplexity"] < quality["valid_perplexity"]


def test_two_int8_exports_give_the_same_bytes(run_folder, int8_folder, tmp_path):
    export(run_folder, tmp_path / "again", precision="int8", checkpoint="last")
    for name in ("edgechat.json", "encoder.onnx", "decoder.onnx"):
        assert (tmp_path / "again" / name).read_bytes() == (int8_folder / name).read_bytes()


def test_a_precision_beyond_its_limits_is_refused_unless_allowed(run_folder, tmp_path, monkeypatch):
    strict = dataclasses.replace(LIMITS["int8"], mean_logp=0.0)
    monkeypatch.setitem(LIMITS, "int8", strict)
    refused = (
        r"int8 is not good enough for this model: the mean log-probability error is 0\.\d+, but at most 0.0"
    )
    with pytest.raises(QualityError, match=refused):
        export(run_folder, tmp_path / "out", precision="int8")
    assert list(tmp_path.iterdir()) == []
    exported = exporter.export(run_folder, tmp_path / "out", precision="int8", allow_beyond_limits=True)
    assert exported.manifest.quality["forced"] is True
    assert "written with --beyond-limits" in (tmp_path / "out" / "MODEL_CARD.md").read_text()


def test_fp16_halves_the_size_and_keeps_the_replies(run_folder, bundle_folder, tmp_path):
    exported = export(run_folder, tmp_path / "half", precision="fp16", checkpoint="last")
    assert exported.size < 0.7 * read_bundle(bundle_folder).size
    assert str(ChatModel.load(tmp_path / "half").reply("turn left twice")) == "LEFT LEFT"


def test_a_bundle_is_proved_only_against_its_own_run(
    run_folder, bundle_folder, int8_folder, tmp_path, monkeypatch
):
    for folder in (bundle_folder, int8_folder):
        assert prove_bundle(read_bundle(folder), run_folder)["replies"] > 0
    bundle = read_bundle(int8_folder)
    gone = dataclasses.replace(bundle.manifest, provenance={"checkpoint": "last", "steps": 7})
    with pytest.raises(UsageError, match=r"at step 7, but in .* that is now step [0-9]+: export"):
        prove_bundle(dataclasses.replace(bundle, manifest=gone), run_folder)
    other = dataclasses.replace(bundle, files={**bundle.files, "tokenizer.json": b"{}"})
    with pytest.raises(UsageError, match="another tokenizer"):
        prove_bundle(other, run_folder)
    # The same step, but other weights.
    steps = bundle.manifest.provenance["steps"]
    from edgechat.train.run import Run

    real = Run.load_model

    def other_weights(self, which="best"):
        model, position = real(self, which)
        with torch.no_grad():
            model.output.bias += torch.linspace(-2, 2, len(model.output.bias))
        return model, dataclasses.replace(position, step=steps)

    monkeypatch.setattr(Run, "load_model", other_weights)
    with pytest.raises(ProofError, match="int8 graphs differ too much from those in fp32"):
        prove_bundle(bundle, run_folder)
    quality = {**bundle.manifest.quality, "forced": True}  # as in a bundle written with --beyond-limits
    forced = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, quality=quality))
    assert any("of tokens agree" in reason for reason in prove_bundle(forced, run_folder)["beyond_limits"])
    with pytest.raises(ProofError, match="differ from the PyTorch model"):
        prove_bundle(read_bundle(bundle_folder), run_folder)
