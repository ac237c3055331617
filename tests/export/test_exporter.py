"""The exported bundle: sealed, reproducible, and without any of the training data."""

import dataclasses
import json
import re
import shutil
import unicodedata
from pathlib import Path

import pytest
import torch
from tests_corpus import PAIRS

from edgechat.export import ProofError, export
from edgechat.export.exporter import check_bundle_target
from edgechat.runtime import ChatModel, DeviceError, UsageError
from edgechat.runtime.atomic_write import sha256
from edgechat.runtime.bundle import read_bundle
from edgechat.runtime.options import DecodingOptions
from edgechat.train.dialogue import Pair
from edgechat.train.evaluation import distinct_n, evaluate
from edgechat.train.reply_scores import score_greedy_replies
from edgechat.train.run import open_run


def test_two_exports_of_one_checkpoint_give_the_same_bytes(run_folder, bundle_folder, tmp_path):
    export(run_folder, tmp_path / "again", precision="fp32", checkpoint="last")
    first, second = read_bundle(bundle_folder), read_bundle(tmp_path / "again")
    assert first == second
    assert first.manifest.to_bytes() == (bundle_folder / "edgechat.json").read_bytes()


@pytest.mark.parametrize(
    ("decoding", "replies"), [({"prefix": "well " * 99}, None), ({"banned": ("x",)}, ["yes", "no"])]
)
def test_impossible_replies_are_refused_before_graphs_are_built(
    run_folder, tmp_path, monkeypatch, decoding, replies
):
    monkeypatch.setattr(
        "edgechat.export.exporter.build_graphs", lambda *_, **__: pytest.fail("graphs were built")
    )
    with pytest.raises(UsageError, match=next(iter(decoding))):
        export(run_folder, tmp_path / "out", decoding=DecodingOptions(**decoding), replies=replies)
    assert not any(tmp_path.iterdir())


def test_no_path_and_no_line_of_the_data_is_in_the_manifest_or_the_card(run_folder, bundle_folder):
    text = "".join(
        (bundle_folder / name).read_text() for name in ("edgechat.json", "MODEL_CARD.md", "golden.json")
    )
    assert str(run_folder.parent) not in text
    assert "/" not in json.loads((bundle_folder / "edgechat.json").read_text())["provenance"]["data"]
    for prompt, response in PAIRS:
        if len(response) > 8:
            assert response not in text
            assert prompt == "hello" or prompt not in text


def test_times_are_in_the_report_beside_the_bundle(bundle_folder):
    report = json.loads(bundle_folder.with_name(bundle_folder.name + ".report.json").read_text())
    assert report["seconds"] > 0
    assert report["checkpoint"] == "last"


def test_a_bundle_gives_the_replies_that_were_learned_by_heart(run_folder, bundle_folder):
    held_out = {pair.turns[-1] for pair in open_run(run_folder).valid_texts()}
    learned = [(p, r) for p, r in PAIRS if p not in held_out]
    replies = ChatModel.load(bundle_folder).reply_batch([p for p, _ in learned])
    assert sum(str(reply) == r for reply, (_, r) in zip(replies, learned, strict=True)) >= 0.9 * len(learned)


def test_a_run_and_its_bundle_evaluate_to_the_same_figures(run_folder, bundle_folder):
    pairs = [Pair([p], r) for p, r in PAIRS]
    ours = evaluate(open_run(run_folder).load_chat_model("last")[0], pairs)
    theirs = evaluate(ChatModel.load(bundle_folder), pairs)
    assert ours.perplexity == pytest.approx(theirs.perplexity, rel=1e-4)
    assert (ours.exact_match, ours.bleu, ours.chrf) == (theirs.exact_match, theirs.bleu, theirs.chrf)
    assert "tok:13a" in ours.bleu_signature


def test_a_validation_scores_replies_as_an_evaluation_does(bundle_folder):
    model, pairs = (
        ChatModel.load(bundle_folder),
        [Pair([p], r) for p, r in [*PAIRS[:9], ("hello", "hi the\u0301re")]],
    )
    whole = evaluate(model, pairs, DecodingOptions(beam=1))
    assert 0 < whole.exact_match < 1
    assert score_greedy_replies(model, pairs) == {
        "exact_match": whole.exact_match,
        "bleu": whole.bleu,
        "chrf": whole.chrf,
    }


def test_distinct_counts_different_words_over_all_words():
    assert distinct_n([["a", "b", "a"], ["a"]], 1) == 2 / 4
    assert distinct_n([["a", "b", "a"], ["a"]], 2) == 2 / 2
    assert distinct_n([[]], 1) == 0.0


@pytest.mark.parametrize("options", [{"min_length": 9_999}, {"beam": 1000, "max_length": 1000}])
def test_defaults_that_a_bundle_may_not_have_are_wrong_use(run_folder, tmp_path, options):
    (name, value), *_ = options.items()
    with pytest.raises(UsageError, match=f"^{name} is {value}, "):
        export(run_folder, tmp_path / "bundle", decoding=DecodingOptions(**options))
    assert not list(tmp_path.iterdir())


def test_a_failing_proof_writes_nothing(run_folder, tmp_path, monkeypatch):
    from edgechat.export import bundle_graphs

    def other_weights(model, precision):
        with torch.no_grad():
            model.output.bias[5] += 1.0
        graph = real(model, precision)
        with torch.no_grad():
            model.output.bias[5] -= 1.0
        return graph

    real = bundle_graphs.build_decoder
    monkeypatch.setattr(bundle_graphs, "build_decoder", other_weights)
    with pytest.raises(ProofError):
        export(run_folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_reply_that_is_too_long_is_refused_before_anything_is_proved(run_folder, tmp_path):
    said: list[str] = []
    with pytest.raises(UsageError, match="reply 2 of the closed set, 'hi hi hi"):
        export(
            run_folder, tmp_path / "b", checkpoint="last", replies=["hi", "hi " * 200], progress=said.append
        )
    assert said == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        ([], "replies: must be a list of 1 to"),
        (["ok", ""], "replies: reply 2 must be text of 1 to"),
        (["ok", " "], "replies: reply 2 must be text of 1 to"),
        ("ok", "replies: must be a list of 1 to"),
        (["ok", 1], "replies: reply 2 must be text of 1 to"),
    ],
)
def test_a_closed_set_that_could_not_be_loaded_is_refused_first(run_folder, tmp_path, replies, said):
    for run in (run_folder, tmp_path / "no run"):
        with pytest.raises(UsageError, match=f"^{said}"):
            export(run, tmp_path / "b", replies=replies)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_has_its_closed_set_as_it_will_be_loaded(run_folder, tmp_path):
    export(run_folder, tmp_path / "b", precision="fp32", replies=[" hi there ", "e\u0301"])
    assert json.loads((tmp_path / "b" / "replies.json").read_bytes()) == ["hi there", "\u00e9"]


def test_an_fp32_export_is_not_compared_with_itself(run_folder, bundle_folder, tmp_path, monkeypatch):
    def compared(*_: object) -> None:
        pytest.fail("the graphs were compared with themselves")

    monkeypatch.setattr("edgechat.export.exporter.compare_with_fp32", compared)
    quality = export(run_folder, tmp_path / "b", precision="fp32", checkpoint="last").manifest.quality
    assert quality == {
        "valid_pairs": 2,
        "valid_perplexity": read_bundle(bundle_folder).manifest.quality["valid_perplexity"],
    }


def test_an_export_without_calibration_says_why_but_a_lack_of_memory_ends_it(
    run_folder, tmp_path, monkeypatch
):
    said: list[str] = []
    result = export(run_folder, tmp_path / "b", precision="fp32", progress=said.append)
    assert result.manifest.calibration is None
    assert any(line.startswith("the bundle gives no confidence: the run holds out 2 pairs") for line in said)

    def no_memory(*_: object) -> None:
        raise DeviceError("decoder.onnx needs more memory than is available")

    monkeypatch.setattr("edgechat.export.exporter.calibrate", no_memory)
    with pytest.raises(DeviceError, match="needs more memory"):
        export(run_folder, tmp_path / "c", precision="fp32")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.ONNX"])
def test_a_folder_does_not_get_the_name_of_a_file(tmp_path, name):
    with pytest.raises(UsageError, match=r"would be a folder: .* ends with \.edgechat$"):
        check_bundle_target(tmp_path / name, force=True)
    (tmp_path / name).mkdir()  # which somebody wants
    check_bundle_target(tmp_path / name, force=True)


def test_a_bundle_is_only_replaced_with_force_and_another_folder_never(bundle_folder, tmp_path):
    copy = tmp_path / "bundle"
    shutil.copytree(bundle_folder, copy)
    with pytest.raises(UsageError, match="exists"):
        check_bundle_target(copy, force=False)
    check_bundle_target(copy, force=True)
    (copy / "notes.txt").write_bytes(b"")
    with pytest.raises(UsageError, match="holds other files too"):
        check_bundle_target(copy, force=True)
    mine = tmp_path / "photos"
    mine.mkdir()
    (mine / "cat.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match="not a bundle"):
        check_bundle_target(mine, force=True)
    check_bundle_target(Path(tmp_path / "new"), force=False)
    (tmp_path / "empty").mkdir()
    check_bundle_target(tmp_path / "empty", force=False)


@pytest.mark.parametrize("force", [True, False])
def test_a_bundle_in_the_current_folder_is_not_replaced(bundle_folder, tmp_path, monkeypatch, force):
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    monkeypatch.chdir(tmp_path / "bundle")
    for out in (Path(), tmp_path / "bundle"):
        with pytest.raises(UsageError, match=f"^{re.escape(str(out))} is the current folder"):
            check_bundle_target(out, force=force)


def test_a_reply_in_another_normal_form_still_matches_exactly(bundle_folder):
    model = ChatModel.load(bundle_folder)
    prompt, response = "turn left twice", "LEFT LEFT"
    assert str(model.reply(prompt)) == response

    class Accented:
        """The model, as if it had learned to put an accent after its reply."""

        codec, backend = model.codec, model.backend

        def reply_turns(self, *arguments, **options):
            return [
                dataclasses.replace(reply, text=unicodedata.normalize("NFC", reply.text + " e\u0301"))
                for reply in model.reply_turns(*arguments, **options)
            ]

    assert evaluate(Accented(), [Pair([prompt], response + " e\u0301")]).exact_match == 1.0


def test_an_export_reads_each_file_of_its_run_once(run_folder, tmp_path, monkeypatch):
    names: list[str] = []
    read_bytes = Path.read_bytes

    def recorded(path: Path) -> bytes:
        if path.is_relative_to(run_folder):
            names.append(str(path.relative_to(run_folder)))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", recorded)
    export(run_folder, tmp_path / "bundle", precision="int8", allow_beyond_limits=True)
    large = [name for name in names if not name.startswith("checkpoints/") and name != "run.json"]
    assert sorted(large) == [
        "corpus/train.safetensors", "corpus/valid.safetensors", "tokenizer.json", "valid.jsonl",
    ]  # fmt: skip


def test_held_out_text_may_hold_any_line_break(run_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    pairs = [Pair(["a\u2028b\u0085c"], "d\u2029e")] * len(open_run(run).valid_texts())
    lines = "".join(json.dumps(pair._asdict(), ensure_ascii=False) + "\n" for pair in pairs)
    (run / "valid.jsonl").write_text(lines, encoding="utf-8")
    info = json.loads((run / "run.json").read_text())
    info["files"]["valid.jsonl"] = sha256(lines.encode())
    (run / "run.json").write_text(json.dumps(info))
    assert open_run(run).valid_texts() == pairs
