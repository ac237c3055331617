"""`edgechat.json`: a manifest round trips to the same bytes, and a wrong one raises a BundleError."""

import dataclasses
import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechat.runtime.atomic_write import sha256
from edgechat.runtime.calibration import Calibration
from edgechat.runtime.errors import BundleError
from edgechat.runtime.manifest import FileEntry, Manifest, ModelSpec, StateTensor, TextSpec
from edgechat.runtime.options import DecodingOptions

PLAIN = Manifest(
    model=ModelSpec(
        layers=2, hidden=8, embedding=4, attention=6, memory=8, vocab_size=300, reverse_source=True,
        attention_kind="bahdanau", input_feeding=True,
    ),
    text=TextSpec(
        pad=0, go=1, eos=2, unk=3, separator=4, turns=1, speakers="alternate", max_source=20, max_target=10,
        truncation="oldest", normalization="NFC",
    ),
    precision="fp32",
    opset=18,
    memory=("keys", "values", "bias"),
    state=(StateTensor("h", "next_h", (2, "M", 8), "encoder"), StateTensor("attn", "a", ("M", 8), "zeros")),
    decoding=DecodingOptions(beam=3, normalize="average"),
    files={"tokenizer.json": FileEntry("ab" * 32, 12)},
    provenance={"data": "données.jsonl", "steps": 7},
    proof={"replies": 1, "worst_logp": 1e-6},
    quality={"valid_perplexity": None},
)  # fmt: skip

_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=80)
    | st.sampled_from(["0" * 64, "0" * 65, f'\n  "sha256": "{"0" * 64}"', "a" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_notes = st.dictionaries(st.text(max_size=8), _values, max_size=4)


def seal(values: dict[str, Any], *, added: str = "") -> bytes:
    """A manifest of any values as sealed bytes, with `added` text at its beginning."""
    text = "{" + added + json.dumps(values | {"sha256": "0" * 64}, ensure_ascii=False)[1:]
    return text.replace("0" * 64, sha256(text.encode())).encode()


def plain() -> dict[str, Any]:
    return json.loads(PLAIN.to_bytes())


def test_a_manifest_round_trips_to_the_same_bytes():
    raw = PLAIN.to_bytes()
    assert Manifest.from_bytes(raw) == PLAIN
    assert Manifest.from_bytes(raw).to_bytes() == raw


@given(notes=_notes, hashes=st.dictionaries(st.text(max_size=8), st.integers(0, 2**40), max_size=3))
def test_any_manifest_round_trips_to_the_same_bytes(notes, hashes):
    files = {name: FileEntry(sha256(name.encode()), size) for name, size in hashes.items()}
    manifest = dataclasses.replace(PLAIN, provenance=notes, files=files)
    raw = manifest.to_bytes()
    assert Manifest.from_bytes(raw) == manifest
    assert Manifest.from_bytes(raw).to_bytes() == raw


def test_the_seal_is_the_hash_of_the_bytes_with_its_digits_zeroed():
    raw = PLAIN.to_bytes()
    seal = json.loads(raw)["sha256"]
    assert sha256(raw.replace(seal.encode(), b"0" * 64)) == seal


def test_the_order_of_values_does_not_change_the_bytes():
    notes = {"b": 1, "a": 2}
    one, other = (
        dataclasses.replace(PLAIN, provenance=n).to_bytes() for n in (notes, dict(reversed(notes.items())))
    )
    assert one == other


def test_minor_additions_of_a_newer_format_are_kept_apart_and_otherwise_ignored():
    values = plain() | {"format": "1.7", "mood": {"calm": True}}
    for part in ("model", "text", "decoding"):
        values[part] = values[part] | {"colour": "blue"}
    values["state"] = [tensor | {"colour": "blue"} for tensor in values["state"]]
    values["files"] = {name: entry | {"colour": "blue"} for name, entry in values["files"].items()}
    read = Manifest.from_bytes(seal(values))
    assert read.extra == {"mood": {"calm": True}}
    assert read.to_json()["mood"] == {"calm": True}
    assert Manifest.from_bytes(read.to_bytes()) == read
    assert read.to_bytes() != dataclasses.replace(read, extra={"mood": {"calm": False}}).to_bytes()
    assert dataclasses.replace(read, extra={}, format=PLAIN.format) == PLAIN


@pytest.mark.parametrize(
    "version", ["2.0", "0.9", "10.0", "1", "1.0.0", "", "1.x", "١.0", 1.0, None, ["1.0"]]
)
def test_another_major_format_or_none_is_refused(version):
    with pytest.raises(BundleError, match="format"):
        Manifest.from_bytes(seal(plain() | {"format": version}))


def test_a_newer_format_is_named_with_what_to_do():
    with pytest.raises(BundleError, match=r"has format 2\.3, but this edgechat reads 1\.x: use the version"):
        Manifest.from_bytes(seal(plain() | {"format": "2.3"}))


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"null", b"[]", b"1", b'"text"', b"\xff\xfe", b"\x00", b"[" * 100_000, b'{"a":' * 100_000],
    ids=lambda raw: repr(raw[:6]),
)
def test_a_manifest_that_is_not_a_json_object_is_refused(raw):
    with pytest.raises(BundleError):
        Manifest.from_bytes(raw)


def test_a_name_that_is_given_twice_is_refused():
    assert Manifest.from_bytes(seal(plain(), added='"later": {"a": {}}, ')).extra == {"later": {"a": {}}}
    for added in ('"precision": "fp16", ', '"later": {"a": 1, "b": {}, "a": 1}, '):
        with pytest.raises(BundleError, match=r"edgechat\.json cannot be read: it has a duplicate name"):
            Manifest.from_bytes(seal(plain(), added=added))


@pytest.mark.parametrize("seal", [None, "", "0" * 64, "A" * 64, "a" * 63, "a" * 64, 1])
def test_a_missing_or_wrong_seal_is_refused(seal):
    raw = json.dumps(plain() | {"sha256": seal}).encode()
    with pytest.raises(BundleError, match="sha256"):
        Manifest.from_bytes(raw)


def test_a_value_that_was_changed_by_hand_is_found():
    raw = PLAIN.to_bytes().replace(b'"beam": 3', b'"beam": 4')
    assert raw != PLAIN.to_bytes()
    with pytest.raises(BundleError, match="changed after it was sealed"):
        Manifest.from_bytes(raw)


def test_every_key_that_is_missing_is_refused():
    for key in sorted(plain().keys() - {"sha256", "calibration"}):
        values = plain()
        del values[key]
        with pytest.raises(BundleError, match=re.escape(key)):
            Manifest.from_bytes(seal(values))


def test_every_key_of_the_parts_that_is_missing_is_refused():
    for part in ("model", "text"):
        for key in plain()[part]:
            values = plain()
            del values[part][key]
            with pytest.raises(BundleError, match=key):
                Manifest.from_bytes(seal(values))


@pytest.mark.parametrize("wrong", [None, True, -1, 1.5, "x", [], [1], [{}], {"x": []}])
def test_a_value_of_another_type_gives_a_bundle_error_or_a_valid_manifest(wrong):
    """No other exception is raised, whatever the value."""
    places = [(name, None) for name in plain()]
    places += [(name, key) for name in ("model", "text", "decoding") for key in plain()[name]]
    for part, inner in places:
        values = plain()
        if inner is None:
            values[part] = wrong
        else:
            values[part][inner] = wrong
        try:
            read = Manifest.from_bytes(seal(values))
        except BundleError:
            continue
        assert Manifest.from_bytes(read.to_bytes()) == read
        assert all(isinstance(name, str) for name in read.memory)
        assert part not in ("model", "text") or type(wrong) is type(plain()[part][inner])


@pytest.mark.parametrize("version", ["1.0", "1.7"])
@pytest.mark.parametrize(
    ("part", "name", "value", "said"),
    [
        ("text", "speakers", "marked", "speakers must be alternate, not 'marked'"),
        ("text", "truncation", "newest", "truncation must be oldest, not 'newest'"),
        ("text", "normalization", "NFKC", "normalization must be NFC, not 'NFKC'"),
        (None, "opset", 19, "opset must be 18, not 19"),
        ("model", "layers", 1, "of 'h' in 'state' does not fit a model with 1 layers of 8 numbers each"),
        ("model", "hidden", 9, "of 'h' in 'state' does not fit a model with 2 layers of 9 numbers each"),
        (None, "state", [{"input": "attn", "output": "a", "shape": ["M", 9], "first": "zeros"}], "of 'attn'"),
    ],
)
def test_an_unknown_value_that_changes_the_meaning_is_refused_in_any_format(version, part, name, value, said):
    values = plain() | {"format": version}
    (values[part] if part else values)[name] = value
    with pytest.raises(BundleError, match=said):
        Manifest.from_bytes(seal(values))


def test_model_options_of_later_versions_are_omitted_when_false():
    """So older manifests keep their bytes and can be read."""
    manifest = Manifest.from_bytes(seal(plain()))
    assert "residual" not in plain()["model"]
    assert manifest.model.residual is False
    deep = dataclasses.replace(manifest, model=dataclasses.replace(manifest.model, residual=True))
    assert json.loads(deep.to_bytes())["model"] == plain()["model"] | {"residual": True}
    assert Manifest.from_bytes(deep.to_bytes()).model.residual is True


def test_a_manifest_has_lowercase_only_if_it_is_true():
    assert "lowercase" not in plain()["text"]
    assert Manifest.from_bytes(seal(plain())).text.lowercase is False
    lower = dataclasses.replace(PLAIN, text=dataclasses.replace(PLAIN.text, lowercase=True))
    assert json.loads(lower.to_bytes())["text"] == plain()["text"] | {"lowercase": True}
    assert Manifest.from_bytes(lower.to_bytes()) == lower
    assert Manifest.from_bytes(lower.to_bytes()).to_bytes() == lower.to_bytes()


@pytest.mark.parametrize("value", ["true", "nfkc", 1, 0, None, [], {}])
def test_lowercase_must_be_true_or_false(value):
    with pytest.raises(BundleError, match=r"edgechat\.json: 'lowercase' must be true or false"):
        Manifest.from_bytes(seal(plain() | {"text": plain()["text"] | {"lowercase": value}}))


@pytest.mark.parametrize(
    "tensor",
    [
        {},
        {"input": "h", "output": "n", "shape": ["M"]},
        {"input": ["h"], "output": "n", "shape": ["M"], "first": "zeros"},
        {"input": "h", "output": "n", "shape": "M", "first": "zeros"},
        {"input": "h", "output": "n", "shape": [["M"]], "first": "zeros"},
        {"input": "h", "output": "n", "shape": ["M"], "first": "ones"},
        "h",
    ],
)
def test_a_malformed_state_tensor_is_refused(tensor):
    with pytest.raises(BundleError, match=r"edgechat\.json"):
        Manifest.from_bytes(seal(plain() | {"state": [tensor]}))


def test_invalid_decoding_options_are_the_bundles_fault():
    values = plain()
    values["decoding"]["beam"] = 0
    with pytest.raises(BundleError, match="beam"):
        Manifest.from_bytes(seal(values))


@pytest.mark.parametrize(("beam", "max_target", "taken"), [(20, 10_000, True), (21, 10_000, False)])
def test_a_bundle_may_not_ask_for_a_reply_of_hours(beam, max_target, taken):
    values = plain()
    values["decoding"] |= {"beam": beam, "max_length": None}
    values["text"]["max_target"] = max_target
    if taken:
        assert Manifest.from_bytes(seal(values)).decoding.beam == beam
    else:
        with pytest.raises(
            BundleError, match=r"json: beam is 21, .* up to 10,000 tokens: .* at most 200,000, not 210,000"
        ):
            Manifest.from_bytes(seal(values))
    values["decoding"]["max_length"] = 50  # its own maximum counts, not that of the model
    assert Manifest.from_bytes(seal(values)).decoding.beam == beam


def test_an_infinite_perplexity_is_null_since_json_has_no_infinity():
    def refused(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    manifest = dataclasses.replace(PLAIN, quality={"valid_perplexity": math.inf, "deep": [math.nan, 1.5]})
    raw = manifest.to_bytes()
    json.loads(raw, parse_constant=refused)
    assert Manifest.from_bytes(raw).quality == {"valid_perplexity": None, "deep": [None, 1.5]}


@pytest.mark.parametrize("name", ["alignments", "trace"])
def test_a_bundle_may_not_ask_for_replies_of_gigabytes(name):
    values = plain()
    values["decoding"][name] = True
    with pytest.raises(BundleError, match=rf"^edgechat\.json: {name} cannot be a default of a bundle"):
        Manifest.from_bytes(seal(values))


@pytest.mark.parametrize(("name", "most"), [("banned", 1000), ("required", 100)])
def test_a_bundle_may_not_ask_for_rules_of_many_texts_and_many_tokens(name, most):
    values = plain()
    values["model"]["vocab_size"] = 100_000
    values["decoding"][name] = ["x" * 40, "y" * (most - 40)]
    assert getattr(Manifest.from_bytes(seal(values)).decoding, name)
    values["decoding"][name][0] += "x"
    said = rf"{name} has {most + 1:,} characters, too many for a vocabulary of 100,000 tokens: .* at most "
    with pytest.raises(BundleError, match=f"{said}{most * 100_000:,}, not {(most + 1) * 100_000:,}"):
        Manifest.from_bytes(seal(values))


@pytest.mark.parametrize(("beam", "taken"), [(66, True), (67, False)])
def test_a_bundle_may_not_ask_for_a_step_of_gigabytes(beam, taken):
    values = plain()
    values["decoding"]["beam"] = beam
    values["model"]["vocab_size"] = 300_000  # 66 * 300,000 = 19,800,000
    if taken:
        assert Manifest.from_bytes(seal(values)).decoding.beam == beam
    else:
        with pytest.raises(
            BundleError, match=r"beam is 67, .* of 300,000 tokens: .* at most 20,000,000, not 20,100,000"
        ):
            Manifest.from_bytes(seal(values))


NONSENSE = {
    "layers": ("model", {"layers": 10**9}, "layers must be from 1 to 1,048,576, not 1,000,000,000"),
    "no numbers": ("model", {"hidden": 0}, "hidden must be from 1 to"),
    "no words": ("model", {"vocab_size": 0}, "vocab_size must be from 1 to"),
    "a reply longer than it may be": ("decoding", {"min_length": 10}, "min_length is 10, .* at most 10 "),
    "an endless name": (
        "model",
        {"attention_kind": "k" * 10**6},
        "'attention_kind' has 1,000,000 characters",
    ),
    "an endless tensor": (None, {"memory": ["m" * 101]}, "'memory' has 101 characters"),
    "thousands of tensors": (None, {"memory": ["m"] * 17}, "'memory' has 17 tensors, 16 are allowed"),
    "thousands of states": (
        None,
        {"state": [{"input": "h", "output": "n", "shape": ["M", 8], "first": "zeros"}] * 17},
        "'state' has 17 tensors, 16 are allowed",
    ),
    # Multiplied with one another they would take minutes.
    "thousands of axes": (
        None,
        {"state": [{"input": "h", "output": "n", "shape": ["M", *[9] * 400_000], "first": "zeros"}]},
        "'shape' of 'h' in 'state' does not fit a model",
    ),
    "a precision": (None, {"precision": "int3"}, "precision must be one of fp32, fp16, int8, not 'int3'"),
    "an endless version": (None, {"format": "9" * 10**6}, "valid format version, not '9+\\.{3}9+'"),
    "an endless file": (None, {"files": {"f" * 10**6: 1}}, "'f+\\.{3}f+' must be an object"),
}


@pytest.mark.parametrize("which", NONSENSE)
def test_nonsense_is_refused_in_a_short_sentence(which):
    part, changed, said = NONSENSE[which]
    values = plain()
    (values[part] if part else values).update(changed)
    with pytest.raises(BundleError, match=said) as refused:
        Manifest.from_bytes(seal(values))
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("a", "said"), [(0, "above 0, not 0"), (-2, "above 0"), ("x" * 10**6, "not 'x+\\.{3}x+'")]
)
def test_a_calibration_that_favors_less_likely_replies_is_refused(a, said):
    with pytest.raises(BundleError, match=rf"\Aedgechat\.json: 'a' .* must be .*{said}"):
        Calibration.from_json({"kind": "platt", "a": a, "b": 0.0})


@pytest.mark.parametrize("value", [0, "", [], False])
def test_a_calibration_that_is_no_object_is_refused(value):
    with pytest.raises(BundleError, match="'calibration'"):
        Manifest.from_bytes(seal(plain() | {"calibration": value}))


def test_a_number_with_thousands_of_digits_is_named():
    with pytest.raises(BundleError, match=r"\Aedgechat\.json cannot be read: it has a number with thousands"):
        Manifest.from_bytes(b'{"format": ' + b"9" * 5000 + b"}")


def test_notes_nested_so_deep_that_they_could_not_be_shown_are_refused():
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    with pytest.raises(BundleError, match="nested more than"):
        Manifest.from_bytes(seal(plain() | {"quality": {"deep": deep}}))


@pytest.mark.parametrize(
    ("key", "value"), [("turns", 0), ("max_source", 0), ("max_target", 10**12), ("eos", 3), ("separator", 0)]
)
def test_lengths_and_special_ids_out_of_range_are_refused(bundle_folder, key, value):
    manifest = Manifest.from_bytes((bundle_folder / "edgechat.json").read_bytes())
    with pytest.raises(BundleError, match=r"must be"):
        dataclasses.replace(manifest.text, **{key: value})
