import gzip
import json
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from edgechat.runtime.errors import DataError, UsageError
from edgechat.train.corpus import Corpus, open_corpus
from edgechat.train.dialogue import Dialogue, Turn, extract_pairs
from edgechat.train.readers import MAX_LINE_BYTES
from edgechat.train.report import CorpusReport

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        raw = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return path

    return write


def texts(corpus: Corpus) -> list[list[str]]:
    return [[turn.text for turn in dialogue.turns] for dialogue in corpus]


def read(path: Path, **options: bool) -> list[list[str]]:
    return texts(open_corpus([str(path)], **options))


PAIRS = [["hi", "hello there"], ["how are you?", "fine"]]
FORMATS = {
    "a.jsonl": "\n".join(json.dumps({"prompt": p, "response": r}) for p, r in PAIRS),
    "a.tsv": "hi\thello there\nhow are you?\tfine\n",
    "a.csv": 'hi,"hello there"\r\nhow are you?,fine\r\n',
    "a.txt": "hi\nhello there\n\nhow are you?\nfine",
}


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_pairs(write: Write, name: str, zipped: str) -> None:
    assert read(write(name + zipped, FORMATS[name])) == PAIRS


@pytest.mark.parametrize("name", FORMATS)
def test_a_byte_order_mark_is_not_text(write: Write, name: str) -> None:
    assert read(write(name, b"\xef\xbb\xbf" + FORMATS[name].encode())) == PAIRS


@pytest.mark.parametrize("zipped", ["", ".gz"])
def test_parallel_text_is_paired_line_by_line(write: Write, zipped: str) -> None:
    source, target = write("a.en" + zipped, "hi\nhow are you?\n"), write("a.de" + zipped, "hello there\nfine")
    corpus = open_corpus([], source=source, target=target)
    assert texts(corpus) == PAIRS
    assert corpus.name == f"a.en{zipped} + a.de{zipped}"


def test_dialogues_keep_their_turns_and_which_of_them_are_learned(write: Write) -> None:
    path = write("a.jsonl", '{"turns": ["a", {"text": "b", "train": false}, {"text": " c "}, "d"]}')
    dialogues = list(open_corpus([str(path)]))
    assert dialogues == [Dialogue((Turn("a"), Turn("b", False), Turn("c"), Turn("d")))]


def test_a_quoted_csv_cell_holds_commas_quotes_and_line_breaks(write: Write) -> None:
    assert read(write("a.csv", 'a,"x, ""y""\nz"\nb,c\n')) == [["a", 'x, "y"\nz'], ["b", "c"]]


def test_quotes_are_plain_text_in_tsv(write: Write) -> None:
    assert read(write("a.tsv", '"a\tb"\n')) == [['"a', 'b"']]


@pytest.mark.parametrize(
    "header", ["prompt,response", "Question,Answer", "source , target", "input,output", "query,reply"]
)
def test_a_header_is_not_a_pair(write: Write, header: str) -> None:
    assert read(write("a.csv", f"{header}\na,b\n")) == [["a", "b"]]


def test_a_header_in_the_other_order_swaps_the_columns(write: Write) -> None:
    assert read(write("a.tsv", "answer\tquestion\nfine\thow are you?\n")) == [["how are you?", "fine"]]


def test_only_the_first_line_can_be_a_header(write: Write) -> None:
    assert read(write("a.csv", "a,b\nquestion,answer\n")) == [["a", "b"], ["question", "answer"]]


#: The beginnings of .csv files, and their first pairs.
SEPARATED = {
    "semicolons": ("Wo;Hier\n", ["Wo", "Hier"]),
    "semicolons, and commas in a text": ("Wo, bitte, da?;Hier\n", ["Wo, bitte, da?", "Hier"]),
    "semicolons, and a comma in quotes": ('"Wo, bitte";Hier\n', ["Wo, bitte", "Hier"]),
    "semicolons, and lines in quotes": ('Wo;"Hier,\nda"\n', ["Wo", "Hier,\nda"]),
    "commas, and a semicolon in quotes": ('hello,"hi; there"\n', ["hello", "hi; there"]),
    "commas, and lines in quotes": ('hello,"hi;\nthere"\n', ["hello", "hi;\nthere"]),
    "commas, and semicolons in a text": ("a; b; c,d\n", ["a; b; c", "d"]),
    "blank lines": ("\n\nWo;Hier\n", ["Wo", "Hier"]),
}


@pytest.mark.parametrize(("first", "pair"), SEPARATED.values(), ids=SEPARATED)
def test_the_first_record_of_a_csv_determines_its_separator(
    write: Write, first: str, pair: list[str]
) -> None:
    semicolons = pair[0].startswith("Wo")
    later = "a, b;c, d\n" if semicolons else "a; b,c; d\n"
    assert read(write("a.csv", first + later)) == [pair, ["a, b", "c, d"] if semicolons else ["a; b", "c; d"]]


def test_a_header_with_semicolons_determines_separator_and_order(write: Write) -> None:
    assert read(write("a.csv", "Prompt;Response\r\nWo, bitte;Hier\r\n")) == [["Wo, bitte", "Hier"]]
    assert read(write("a.csv", "response;prompt\nHier;Wo, bitte\n")) == [["Wo, bitte", "Hier"]]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_csv_whose_first_record_has_two_columns_either_way_is_refused(write: Write, skip_bad: bool) -> None:
    path = write("a.csv", "\nWo, bitte;Hier\nWo;Da\n")
    with pytest.raises(DataError) as caught:
        read(path, skip_bad=skip_bad)
    assert str(caught.value) == (
        f"{path}, line 2 has two columns either way, 'Wo' and ' bitte;Hier' at commas or 'Wo, bitte' and "
        "'Hier' at semicolons: start the file with a header such as prompt;response, put quotes around the "
        "texts, or save it as .tsv"
    )


@pytest.mark.parametrize(
    ("line", "pair"), [("sep=;", "Wo, da;Hier"), ("SEP=,\r", "a; b,c"), ("sep=;", "Wo, bitte;Hier")]
)
def test_a_first_line_declares_the_separator_as_excel_has_it(write: Write, line: str, pair: str) -> None:
    texts = pair.split(line.strip()[-1])
    assert read(write("a.csv", f"{line}\n{pair}\n")) == [texts]
    header = f"response{line.strip()[-1]}prompt"
    assert read(write("a.csv", f"{line}\n{header}\n{pair}\n")) == [texts[::-1]]
    with pytest.raises(DataError, match=r"a\.csv, line 2 does not have two columns"):
        read(write("a.csv", f"{line}\nx\n"))


def test_columns_are_counted_at_the_separator_of_the_file(write: Write) -> None:
    for content, line, said in (
        ("a;b\nc,d\n", 2, "semicolons (it has 1)"),
        ("a,b\nc;d\n", 2, "commas (it has 1)"),
        ("id;prompt;response\n", 1, "semicolons (it has 3)"),
    ):
        with pytest.raises(DataError, match=rf"line {line} does not have .* separated by {re.escape(said)}"):
            read(write("a.csv", content))


def test_a_bad_line_at_the_beginning_does_not_determine_the_separator(write: Write) -> None:
    for bad in (b"a title, of, three\n", b'"a quote that is open;b\n', b"\xff;b\n", b'"a\n\xff\n'):
        corpus = open_corpus([str(write("a.csv", bad + b"c;d\ne, f;g\n"))], skip_bad=True)
        assert texts(corpus) == [["c", "d"], ["e, f", "g"]]
        assert sum(corpus.report.dropped.values()) == bad.count(b"\n")


def test_an_empty_prompt_is_kept_and_an_empty_response_is_dropped_and_counted(write: Write) -> None:
    corpus = open_corpus([str(write("a.tsv", "\thello\nhi\t \nx\ty\n"))])
    assert texts(corpus) == [["", "hello"], ["x", "y"]]
    assert corpus.report.dropped == {"empty response": 1}


def test_an_empty_turn_of_a_dialogue_is_context_and_never_learned(write: Write) -> None:
    [dialogue] = open_corpus([str(write("a.jsonl", '{"turns": ["a", "", "c"]}'))])
    assert list(extract_pairs(dialogue, turns=2, targets="all")) == [(["a", ""], "c")]


def test_dialogues_with_nothing_to_learn_are_dropped_and_counted(write: Write) -> None:
    lines = ['{"turns": ["a"]}', '{"turns": ["a", {"text": "b", "train": false}]}', '{"turns": ["a", "b"]}']
    corpus = open_corpus([str(write("a.jsonl", "\n".join(lines)))])
    assert texts(corpus) == [["a", "b"]]
    assert corpus.report.dropped == {
        "dialogue of fewer than two turns": 1,
        "dialogue without a turn to learn": 1,
    }


def test_only_the_assistants_messages_of_a_chat_are_learned_and_the_others_are_context(write: Write) -> None:
    chats = [
        {
            "messages": [
                {"role": "system", "content": "be kind"},
                {"role": "user", "content": "hi", "name": "Ann"},
                {"role": "assistant", "content": "hello"},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "how are "}, {"type": "text", "text": "you?"}],
                },
                {"role": "assistant", "content": "bad", "weight": 0},
                {"role": "user", "content": "really?"},
                {"role": "assistant", "content": "no, fine", "weight": 1},
            ]
        },
        {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}], "id": 7},
    ]
    corpus = open_corpus([str(write("a.jsonl", "\n".join(map(json.dumps, chats))))])
    first, second = corpus
    assert list(extract_pairs(first, turns=3, targets="all")) == [
        (["hi"], "hello"),
        (["how are you?", "bad", "really?"], "no, fine"),
    ]
    assert list(extract_pairs(first, turns=1, targets="second")) == [
        (["hi"], "hello"),
        (["really?"], "no, fine"),
    ]
    assert list(extract_pairs(second, turns=9, targets="all")) == [(["2 + 2?"], "4")]
    assert corpus.report.dropped == {"system message": 1}
    assert corpus.report.ignored_keys == {"name": 1, "id": 1}


def test_a_prompt_and_response_take_precedence_over_keys_of_other_forms(write: Write) -> None:
    lines = [
        {"prompt": "a", "response": "b", "messages": None},
        {"prompt": "c", "response": "d", "messages": [{"role": "user", "content": "x"}]},
        {"messages": None, "conversations": [{"from": "human", "value": "e"}, {"from": "gpt", "value": "f"}]},
    ]
    corpus = open_corpus([str(write("a.jsonl", "\n".join(map(json.dumps, lines))))])
    assert texts(corpus) == [["a", "b"], ["c", "d"], ["e", "f"]]
    assert corpus.report.ignored_keys == {"messages": 3}


def test_unknown_keys_are_ignored_and_counted(write: Write) -> None:
    lines = [
        '{"prompt": "a", "response": "b", "id": 1, "lang": "en"}',
        '{"turns": ["a", {"text": "b", "id": 2}]}',
    ]
    corpus = open_corpus([str(write("a.jsonl", "\n".join(lines)))])
    assert corpus.read().ignored_keys == {"id": 2, "lang": 1}


def test_names_and_keys_that_are_not_valid_text_are_shown_as_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    path.write_text('{"prompt": "a", "response": "b", "\\ud83d": 1}\n')
    corpus = open_corpus([str(path)])
    corpus.read()
    assert corpus.name == "caf\ufffd.jsonl"
    assert corpus.report.ignored_keys == {"\ufffd": 1}


def test_of_many_unknown_keys_the_most_frequent_are_kept_and_the_others_counted(write: Write) -> None:
    lines = [{"prompt": "a", "response": "b", f"id{n}": 1, "id": n} for n in range(500)]
    path = write("a.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    corpus = open_corpus([str(path)])
    report = corpus.read()
    assert report.ignored_keys["id"] == 500
    assert (len(report.ignored_keys), report.more_ignored_keys) == (10, 491)
    assert report.lines()[-1].split() == ["ignored", "key", "and", "491", "more"]


def test_a_corpus_can_be_read_again_and_hashes_the_same(write: Write) -> None:
    corpus = open_corpus([str(write(name, FORMATS[name])) for name in ("a.jsonl", "a.tsv")])
    first = corpus.read()
    assert texts(corpus) == PAIRS * 2
    assert corpus.report == first
    assert corpus.name == "a.jsonl, a.tsv"
    assert [source.dialogues for source in first.sources] == [2, 2]
    assert first.sources[0].sha256 == first.sources[1].sha256


def test_there_is_no_report_before_the_end(write: Write) -> None:
    corpus = open_corpus([str(write("a.tsv", FORMATS["a.tsv"]))])
    next(iter(corpus))
    with pytest.raises(RuntimeError, match="complete iteration"):
        _ = corpus.report


def test_the_digest_depends_on_text_order_and_learned_turns_only() -> None:
    one = Dialogue((Turn("a"), Turn("b")))
    assert one.digest == Dialogue((Turn("a"), Turn("b"))).digest
    others = [(Turn("b"), Turn("a")), (Turn("ab"), Turn("")), (Turn("a"), Turn("b", False))]
    assert len({one.digest, *(Dialogue(turns).digest for turns in others)}) == 4


BAD_LINES = {
    "not JSON": ("a.jsonl", '{"prompt": "a", "response"', "is not JSON"),
    "nested too deep": ("a.jsonl", "[" * 100_000, "is not JSON (it is nested too deeply)"),
    "a number too long": ("a.jsonl", "1" * 5000, "is not JSON (a number in it is too long)"),
    "no object": ("a.jsonl", '["a", "b"]', "is not a JSON object (a .jsonl file has one per line)"),
    "printed over lines": ("a.jsonl", "{", "is not JSON (a .jsonl file has one object per line)"),
    "an array over lines": ("a.jsonl", "[", "is not JSON (a .jsonl file has one object per line)"),
    "cut off": ("a.jsonl", '{"prompt": "x", "response": ', "is not JSON (it ends too early)"),
    "cut in a text": ("a.jsonl", '{"prompt": "x", "response": "y', "is not JSON (it ends too early)"),
    "missing keys": (
        "a.jsonl",
        '{"prompt": "a", "reply": "b"}',
        'neither "turns", "messages" or "conversations" nor both "prompt" and "response" '
        '(it has "prompt", "reply")',
    ),
    "many keys": (
        "a.jsonl",
        '{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1}',
        '(it has "a", "b", "c", "d", "e" and 1 more)',
    ),
    "no keys": ("a.jsonl", "{}", "(it has no keys)"),
    "wrong type": (
        "a.jsonl",
        '{"prompt": "a", "response": 1}',
        '"prompt" or "response" that is not a string',
    ),
    "turns no list": ("a.jsonl", '{"turns": "abc"}', '"turns" that is not a list'),
    "turn no text": ("a.jsonl", '{"turns": ["a", 1]}', 'neither a string nor an object with a "text"'),
    "train no bool": ("a.jsonl", '{"turns": ["a", {"text": "b", "train": "no"}]}', '"train" is neither'),
    "messages no list": ("a.jsonl", '{"messages": {}}', '"messages" that is not a list'),
    "no message": ("a.jsonl", '{"messages": ["a", "b"]}', 'a message that is not an object with a "role"'),
    "no speaker": ("a.jsonl", '{"conversations": [{"value": "a"}]}', 'is not an object with a "from"'),
    "a tool": (
        "a.jsonl",
        '{"messages": [{"role": "tool", "content": "a"}]}',
        "a message from neither a user nor an assistant (its \"role\" is 'tool')",
    ),
    "a call": (
        "a.jsonl",
        '{"messages": [{"role": "assistant", "content": null}]}',
        'a message whose "content" is not text',
    ),
    "a call with words": (
        "a.jsonl",
        '{"messages": [{"role": "assistant", "content": "let me look", "tool_calls": [{"id": "1"}]}]}',
        "has a message that calls a tool",
    ),
    "a picture": (
        "a.jsonl",
        '{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}',
        'a message whose "content" is not text',
    ),
    "no weight": (
        "a.jsonl",
        '{"messages": [{"role": "assistant", "content": "a", "weight": 2}]}',
        '"weight" is neither 0 nor 1',
    ),
    "no text at all": ("a.jsonl", '{"prompt": " ", "response": ""}', "holds no text"),
    "no turns": ("a.jsonl", '{"turns": []}', "holds no text"),
    "half a surrogate pair": ("a.jsonl", '{"prompt": "a", "response": "\\ud83d"}', "surrogate pair"),
    "three columns": ("a.tsv", "a\tb\tc", "does not have two columns separated by tabs (it has 3)"),
    "one column": ("a.csv", "a", "does not have two columns separated by commas (it has 1)"),
    "open quote": ("a.csv", 'a,"b', "is not well-formed"),
    "invalid UTF-8": ("a.tsv", b"a\t\xff", "is not UTF-8 (byte 3)"),
    "NUL bytes later on": ("a.tsv", b"a\t\0", "holds NUL bytes"),
    "too long": ("a.tsv", "a\t" + "b" * MAX_LINE_BYTES, "is longer than 1,048,576 bytes"),
    "no response": ("a.txt", "a\n\n", "is a prompt without a response on the next line"),
}


@pytest.mark.parametrize(("name", "line", "sentence"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named_with_its_file_and_number(
    write: Write, name: str, line: str | bytes, sentence: str
) -> None:
    # Ten good pairs, and blank lines beyond the first bytes, in which a binary file is detected.
    good = FORMATS[name].rstrip().encode() + b"\n"
    good += good * 9 + b"\n" * 5000
    raw = line.encode() if isinstance(line, str) else line
    path = write(name, good + raw + b"\n")
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    number = len(good.splitlines()) + 1
    assert message.startswith(f"{path}, line {number} ")
    assert sentence in message
    assert "--skip-bad" in message
    assert "\n" not in message


@pytest.mark.parametrize(("name", "line", "sentence"), BAD_LINES.values(), ids=BAD_LINES)
def test_skip_bad_counts_a_bad_line_and_goes_on(
    write: Write, name: str, line: str | bytes, sentence: str
) -> None:
    good = FORMATS[name].rstrip().encode() + b"\n" * 5000
    raw = line.encode() if isinstance(line, str) else line
    after = b"" if name == "a.csv" and b'"' in raw else b"\n" + FORMATS[name].encode()
    corpus = open_corpus([str(write(name, good + raw + after))], skip_bad=True)
    assert texts(corpus) == (PAIRS * 2 if after else PAIRS)
    assert sum(corpus.report.dropped.values()) == 1
    reason = next(iter(corpus.report.dropped))
    assert reason.startswith("bad line: ")
    number = good.count(b"\n") + 1
    assert corpus.report.first_bad == {reason: f"{name}, line {number}"}
    assert f"1 × {reason} (first: {name}, line {number})" in corpus.report.dropped_lines()


def test_of_several_bad_lines_the_first_of_each_kind_is_named(write: Write) -> None:
    good = '{"prompt": "a", "response": "b"}\n'
    data = open_corpus([str(write("a.jsonl", good + "x\n{}\ny\n"))], skip_bad=True).read()
    valid = open_corpus([str(write("b.jsonl", good + "x\n[]\n"))], skip_bad=True).read()
    found = data.with_valid(valid).first_bad
    assert found["bad line: is not JSON"] == "a.jsonl, line 2"
    assert sorted(found.values()) == ["a.jsonl, line 2", "a.jsonl, line 3", "b.jsonl, line 3"]


def test_a_multi_line_csv_record_is_named_by_its_first_line(write: Write) -> None:
    with pytest.raises(DataError, match=r"line 2 does not have two columns"):
        read(write("a.csv", 'a,b\n"c\nd\ne"\n'))


@pytest.mark.parametrize("later", ["", 'x,"y z"\n', "too long\xff"])
def test_a_quote_that_is_never_closed_costs_only_its_own_line(write: Write, later: str) -> None:
    rows = "".join(f"a {n},b {n}\n" for n in range(20_000))  # more than a cell may contain
    path = write("a.csv", ('c,d\n"e,f\n' + rows + later).encode("latin-1"))
    corpus = open_corpus([str(path)], skip_bad=True)
    learned = texts(corpus)
    assert learned[:2] == [["c", "d"], ["a 0", "b 0"]]
    assert len(learned) == 20_001 + later.count(",")
    assert sum(corpus.report.dropped.values()) == 1 + later.count("\xff")
    with pytest.raises(DataError, match="line 2 is not well-formed"):
        read(path)


def test_a_bad_line_within_a_cell_of_several_is_named_itself(write: Write) -> None:
    path = write("a.csv", b'a,b\n"c\n\xff\nd",e\nf,g\n')
    with pytest.raises(DataError, match="line 3 is not UTF-8"):
        read(path)
    assert read(path, skip_bad=True)[-1] == ["f", "g"]


def test_the_lines_of_a_cell_with_a_bad_line_are_not_rows(write: Write) -> None:
    path = write("a.csv", b'a,b\n"c\nno, row\n\xff\nd",e\nf,g\n')
    corpus = open_corpus([str(path)], skip_bad=True)
    assert [pair for pair in texts(corpus) if pair[0] == "no"] == []
    assert sum(corpus.report.dropped.values()) == 3


def test_a_row_of_several_lines_that_is_dropped_is_counted_by_its_lines(write: Write) -> None:
    corpus = open_corpus([str(write("a.csv", 'a,b\n"c\nd\ne"\nf,g\n'))], skip_bad=True)
    assert texts(corpus) == [["a", "b"], ["f", "g"]]
    assert sum(corpus.report.dropped.values()) == 3


def test_a_bad_prompt_makes_its_response_bad_too_in_text_pairs(write: Write) -> None:
    path = write("a.txt", b"\xff\nb\nc\nd\n")
    assert read(path, skip_bad=True) == [["c", "d"]]


def test_a_bad_line_of_parallel_text_names_its_own_file(write: Write) -> None:
    source, target = write("a.en", b"a\nb\nc\n"), write("a.de", b"x\n\xff\nz\n")
    with pytest.raises(DataError, match=r"a\.de, line 2 is not UTF-8"):
        open_corpus([], source=source, target=target).read()
    skipping = open_corpus([], source=source, target=target, skip_bad=True)
    assert texts(skipping) == [["a", "x"], ["c", "z"]]


def test_a_truncated_half_of_parallel_text_is_named(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.gz", tmp_path / "cut.gz"
    whole.write_bytes(gzip.compress(b"a\n" * 9999))
    cut.write_bytes(whole.read_bytes()[:-9])
    for source, target in ((whole, cut), (cut, whole)):
        with pytest.raises(DataError, match=r"cut\.gz is not a complete gzip file"):
            open_corpus([], source=source, target=target).read()


def test_blank_lines_at_the_end_of_parallel_text_do_not_count(write: Write) -> None:
    long, short = write("long.txt", "a\nb\n\n \n"), write("short.txt", "x\ny\n")
    assert texts(open_corpus([], source=long, target=short)) == [["a", "x"], ["b", "y"]]
    assert texts(open_corpus([], source=short, target=long)) == [["x", "a"], ["y", "b"]]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_parallel_text_needs_equal_numbers_of_lines(write: Write, skip_bad: bool) -> None:
    long, short = write("long.txt", "a\nb\nc\n"), write("short.txt", "x\ny\n")
    for source, target in ((long, short), (short, long)):
        with pytest.raises(DataError, match=r"short\.txt ends at line 2 and .*long\.txt goes on"):
            open_corpus([], source=source, target=target, skip_bad=skip_bad).read()


def test_a_bad_line_beyond_the_end_of_the_other_file_does_not_count_as_blank(write: Write) -> None:
    source, target = write("s.txt", "x\n"), write("t.txt", b"y\n\nreal\xff line\n")
    with pytest.raises(DataError, match=r"s\.txt ends at line 1 and .*t\.txt goes on"):
        open_corpus([], source=source, target=target, skip_bad=True).read()


UNUSABLE = {
    "empty": ("a.jsonl", b"", "is empty"),
    "empty gz": ("a.jsonl.gz", gzip.compress(b""), "is empty"),
    "binary": ("a.csv", bytes(range(256)), "is a binary file"),
    "UTF-16": ("a.csv", "a,b".encode("utf-16"), "is a binary file, not UTF-8 text: save it as UTF-8"),
    "CR alone": ("a.tsv", b"a\tb\rc\td\r", "ends its lines with CR only: save it with line feeds"),
    "gz without its ending": ("a.jsonl", gzip.compress(b"hello" * 99), "is a binary file"),
    "not gz": ("a.jsonl.gz", b"hello", "is not a complete gzip file"),
    "truncated gz": ("a.tsv.gz", gzip.compress(b"a\tb\n" * 9999)[:-20], "is not a complete gzip file"),
    "corrupt gz": (
        "a.tsv.gz",
        gzip.compress(b"a\tb\n" * 99)[:12] + b"\x99" * 30,
        "is not a complete gzip file",
    ),
}


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize(("name", "raw", "sentence"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_file_gives_a_one_sentence_error_even_with_skip_bad(
    tmp_path: Path, name: str, raw: bytes, sentence: str, skip_bad: bool
) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        read(path, skip_bad=skip_bad)
    assert str(caught.value).startswith(f"{path} {sentence}")
    assert "\n" not in str(caught.value)


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        open_corpus([str(tmp_path)]).read()


def test_a_file_without_permission_gives_a_one_sentence_error(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a.tsv", FORMATS["a.tsv"])

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the mode alone does not stop root
    with pytest.raises(DataError, match=r"a\.tsv cannot be read: Permission denied$"):
        read(path)


def test_a_missing_file_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.jsonl does not exist"):
        open_corpus([str(tmp_path / "no.jsonl")])
    with pytest.raises(UsageError, match=r"--target .*no\.de does not exist"):
        open_corpus([], source=Path(__file__), target=tmp_path / "no.de")


def test_an_impossible_file_name_gives_a_one_sentence_error() -> None:
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        open_corpus(["a" * 5000 + ".csv"])


def test_half_of_a_parallel_text_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --target too"):
        open_corpus([], source=tmp_path / "a")


def test_an_unknown_extension_or_name_is_refused_with_the_known_ones(write: Write) -> None:
    with pytest.raises(UsageError, match=r"\.jsonl, \.tsv, \.csv, \.txt.* one object per line"):
        open_corpus([str(write("a.xml", "<a/>"))])
    with pytest.raises(
        UsageError, match=r"'nothing' is neither a file .*\.jsonl.* nor .*chitchat, chatterbot"
    ):
        open_corpus(["nothing"])


def test_a_path_wins_over_a_packaged_corpus(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write("chitchat", "hi").parent)
    with pytest.raises(UsageError, match="none of the known extensions"):
        open_corpus(["chitchat"])


def test_an_endless_line_is_never_held_whole(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tsv.gz"
    path.write_bytes(gzip.compress(b"a" * (64 << 20), 1))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="line 1 is longer than"):
            read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_examples_are_the_last_turns_before_each_learned_one() -> None:
    dialogue = Dialogue(tuple(map(Turn, "abcd")))
    assert list(extract_pairs(dialogue, turns=2, targets="all")) == [
        (["a"], "b"),
        (["a", "b"], "c"),
        (["b", "c"], "d"),
    ]
    assert list(extract_pairs(dialogue, turns=2, targets="second")) == [(["a"], "b"), (["b", "c"], "d")]
    assert list(extract_pairs(dialogue, turns=1, targets="all")) == [(["a"], "b"), (["b"], "c"), (["c"], "d")]


def test_a_turn_that_is_not_learned_is_still_context() -> None:
    dialogue = Dialogue((Turn("a"), Turn("b", train=False), Turn("c")))
    assert list(extract_pairs(dialogue, turns=9, targets="all")) == [(["a", "b"], "c")]


def test_the_report_of_two_corpora_lists_ten_ignored_keys_and_counts_the_others():
    train = CorpusReport(ignored_keys={f"a{n}": 20 - n for n in range(10)}, more_ignored_keys=1)
    valid = CorpusReport(ignored_keys={"a0": 1, **{f"b{n}": 30 for n in range(4)}}, more_ignored_keys=2)
    both = train.with_valid(valid)
    assert both.ignored_keys == {
        **{f"b{n}": 30 for n in range(4)},
        "a0": 21,
        **{f"a{n}": 20 - n for n in range(1, 6)},
    }
    assert both.more_ignored_keys == 1 + 2 + 4
