"""Every search option of a command reaches the search with the value that was given."""

import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import typer

import edgechat.tui
from edgechat.cli.app import app
from edgechat.cli.errors import with_option_names
from edgechat.cli.search_options import given_options
from edgechat.runtime import DecodingOptions, reply_maker, scheduler
from edgechat.runtime.search import BeamSearch

#: For each option, what is typed and the value that the search gets.
GIVEN: dict[str, tuple[list[object], Any]] = {
    "beam": (["--beam", 4], 4),
    "n_best": (["--n-best", 2], 2),
    "normalize": (["--normalize", "average"], "average"),
    "length_penalty": (["--length-penalty", 1.5], 1.5),
    "coverage_penalty": (["--coverage-penalty", 0.2], 0.2),
    "repetition_penalty": (["--repetition-penalty", 2], 2.0),
    "no_repeat_ngram": (["--no-repeat-ngram", 3], 3),
    "no_copy_ngram": (["--no-copy-ngram", 4], 4),
    "banned": (["--banned", "one", "--banned", "two"], ("one", "two")),
    "prefix": (["--prefix", "well"], "well"),
    "required": (["--required", "a", "--required", "b"], ("a", "b")),
    "replies": (["--replies", "REPLIES"], ("yes", "no")),
    "min_length": (["--min-length", 2], 2),
    "max_length": (["--max-length", 6], 6),
    "stop": (["--stop", "first"], "first"),
    "groups": (["--groups", 2, "--beam", 4], 2),
    "diversity": (["--diversity", 0.1, "--groups", 5], 0.1),
    "sample": (["--sample"], True),
    "temperature": (["--temperature", 0.5, "--sample"], 0.5),
    "top_k": (["--top-k", 3, "--sample"], 3),
    "top_p": (["--top-p", 0.9, "--sample"], 0.9),
    "typical_p": (["--typical-p", 0.8, "--sample"], 0.8),
    "seed": (["--seed", 7, "--sample"], 7),
    "alignments": (["--alignments", "--json"], True),
    "trace": (["--trace", "TRACE"], True),
}


def options_of(command: str) -> set[str]:
    """The search options of a command."""
    found = {parameter.name for parameter in typer.main.get_command(app).commands[command].params}
    return found & {field.name for field in fields(DecodingOptions)}


CASES = [
    (command, name) for command in ("reply", "chat", "eval", "tui") for name in sorted(options_of(command))
]


@pytest.fixture
def searched(monkeypatch) -> list[DecodingOptions]:
    """The options of all searches, and those that the terminal chat starts with."""
    found: list[DecodingOptions] = []

    class Watched(BeamSearch):
        def __init__(self, options: DecodingOptions, **more: Any) -> None:
            found.append(options)
            super().__init__(options, **more)

    monkeypatch.setattr(reply_maker, "BeamSearch", Watched)
    monkeypatch.setattr(scheduler, "BeamSearch", Watched)
    monkeypatch.setattr(
        edgechat.tui, "run_chat", lambda bundles, *, changes, **more: found.append(DecodingOptions(**changes))
    )
    monkeypatch.setenv("TEXTUAL_DRIVER", "none")
    return found


def run(invoke, command: str, bundle, given: list[object], tmp_path) -> Any:
    (tmp_path / "replies.json").write_text('["yes", "no"]')
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "hello", "response": "hi there"}) + "\n")
    files = {"REPLIES": tmp_path / "replies.json", "TRACE": tmp_path / "trace.json"}
    more = {"reply": ["hello"], "eval": ["--data", tmp_path / "pairs.jsonl"]}.get(command, [])
    options = [files.get(str(word), word) for word in given]
    return invoke(command, bundle, *more, *options, stdin="hello\n")


def test_reply_has_every_search_option_and_chat_all_but_those_about_output():
    assert options_of("reply") == set(GIVEN) == {field.name for field in fields(DecodingOptions)}
    assert options_of("reply") - options_of("chat") == {"n_best", "alignments", "trace"}


def test_the_documented_defaults_of_the_options_are_right():
    page = (Path(__file__).parents[2] / "docs" / "decoding.md").read_text(encoding="utf-8")
    told: dict[str, str] = {}
    for table in re.findall(r"^\| option \| default \|.*\n((?:\|.*\n)+)", page, re.MULTILINE):
        for options, defaults in re.findall(r"^\| ([^|]+) \| ([^|]+) \|", table, re.MULTILINE):
            told |= zip(re.findall(r"`(\w+)", options), defaults.replace("`", "").split(", "), strict=False)
    plain = DecodingOptions()
    theirs = asdict(plain) | {"length_penalty": plain.alpha, "diversity": plain.diversity_strength}
    assert {"beam", "stop", "groups", "normalize", "length_penalty", "repetition_penalty"} <= told.keys()
    for name, value in told.items():
        assert value == (f"{theirs[name]:g}" if isinstance(theirs[name], float) else str(theirs[name])), name


@pytest.mark.parametrize(("command", "name"), CASES)
def test_every_option_of_a_command_reaches_the_search(
    command, name, invoke, bundle_folder, searched, tmp_path
):
    given, value = GIVEN[name]
    done = run(invoke, command, bundle_folder, given, tmp_path)
    assert done.returncode == 0, done.stderr
    assert searched
    assert {getattr(options, name) for options in searched} == {value}


@pytest.mark.parametrize("command", ["reply", "chat", "eval"])
def test_options_that_are_not_given_leave_the_bundles_defaults(command):
    with typer.main.get_command(app).commands[command].make_context(command, ["demo"]) as context:
        assert given_options(context) == {}


@pytest.mark.parametrize("command", ["reply", "chat"])
def test_sample_without_beam_draws_once(command, invoke, bundle_folder, searched, tmp_path):
    run(invoke, command, bundle_folder, ["--sample"], tmp_path)
    assert [options.beam for options in searched] == [1]
    run(invoke, command, bundle_folder, ["--sample", "--beam", 3], tmp_path)
    assert [options.beam for options in searched] == [1, 3]


@pytest.mark.parametrize("command", ["reply", "chat", "eval", "tui"])
def test_an_invalid_option_is_one_sentence_in_every_command(command, invoke, bundle_folder, tmp_path):
    done = run(invoke, command, bundle_folder, ["--length-penalty", "nan"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("edgechat: --length-penalty must be a number from 0 to 10")


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        # errors of DecodingOptions, of the model, and of the batch size
        ("reply", ["--n-best", 9], "--n-best is 9, more than --beam, which is 5: raise --beam"),
        ("reply", ["--top-k", 9], "--top-k needs --sample, which is off"),
        (
            "reply",
            ["--min-length", 500],
            "--min-length is 500, but replies of this model have at most 50 tokens, ",
        ),
        (
            "reply",
            ["--prefix", "beam " * 90],
            "--prefix does not fit into a reply of at most 50 tokens, end-of-sentence counted",
        ),
        (
            "reply",
            ["--prefix", "with beam", "--banned", "h beam"],
            "--prefix contains 'h beam', which is banned",
        ),
        (
            "eval",
            ["--batch-size", 10**6],
            "--batch-size must be a whole number from 1 to 100000",
        ),
    ],
)
def test_an_error_of_the_runtime_names_options_as_they_are_typed(
    command, given, said, invoke, bundle_folder, tmp_path
):
    done = run(invoke, command, bundle_folder, given, tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"edgechat: {said}")


def test_an_error_about_values_that_nobody_typed_is_unchanged():
    options = {"beam": "--beam", "n_best": "--n-best"}
    for sentence in ("n_best is 3, more than beam", "a/beam/x.toml: n_best is 3", "no n_best"):
        assert with_option_names(sentence, options, frozenset()) == sentence
    assert with_option_names("a beam: n_best is 3", options, {"n_best"}) == "a beam: n_best is 3"
    assert with_option_names("n_best is 3, a 'n_best'", options, {"n_best"}) == "--n-best is 3, a 'n_best'"
