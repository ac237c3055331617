"""A run folder: the configuration, the encoded corpus, the checkpoints and the metrics of one training.

    run.json              configuration, corpus name and hash, versions and threads, hashes of the files below
    config.toml           the configuration again, for people and for `edgechat train --config`
    tokenizer.json        shared with every bundle that is exported from the run
    corpus/               train.safetensors, valid.safetensors, report.json
    valid.jsonl           the held-out pairs as text
    embedding.safetensors pretrained rows of the embedding, if there are any
    first.safetensors     initial weights, if they come from another run
    checkpoints/          see checkpoints.py and checkpoint.py
    lock                  while a process trains in the folder, see lock.py
    metrics.jsonl         one row per validation;  metrics.png: the same as curves

The folder appears complete, once the corpus is encoded. A process that is killed while writing it leaves a
folder `.tmp-...` beside it, which can be deleted.
"""

import contextlib
import errno
import functools
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..runtime.atomic_write import TEMPORARY_PREFIX, atomic_folder, sha256, sync_folder, write_atomic
from ..runtime.bundle import MANIFEST_FILE, RUN_FILE
from ..runtime.bundle import is_run as is_run
from ..runtime.chat import ChatModel
from ..runtime.device import Device
from ..runtime.errors import BundleError, CheckpointError, UsageError
from ..runtime.options import DecodingOptions
from ..runtime.text import TextCodec
from .backend import TorchBackend
from .checkpoint import Position, load_mean_weights, load_weights_from_bytes, weights_to_bytes
from .checkpoints import Checkpoints
from .config import RunConfig
from .dataset import EncodedPairs
from .dialogue import Pair
from .lock import LOCK, RunLock
from .model import Seq2Seq
from .option_types import AmpMode
from .precision import resolve_precision
from .pretrained import set_embedding_rows
from .run_inputs import BaseCheckpoint, RunInputs
from .toml import check_type

_CONFIG = "config.toml"
_EMBEDDING = "embedding.safetensors"
_INITIAL_WEIGHTS = "first.safetensors"
_TOKENIZER = "tokenizer.json"
_VALID_TEXTS = "valid.jsonl"
_CORPUS = "corpus"
_RUN_NAMES = {
    RUN_FILE,
    _CONFIG,
    LOCK,
    _EMBEDDING,
    _INITIAL_WEIGHTS,
    _TOKENIZER,
    _CORPUS,
    _VALID_TEXTS,
    "checkpoints",
    "metrics.jsonl",
    "metrics.png",
}

#: The values of run.json that are used, besides the configuration and the hashes of the files.
_INFO_TYPES: dict[str, dict[str, type]] = {
    "corpus": {"name": str, "sha256": str},
    "environment": {"device": str, "threads": int, "precision": str, "processes": int},
    "from": {"data": str, "step": int, "sha256": str},
    "pretrained": {"found": int, "tokens": int, "sha256": str},
}
_OPTIONAL_INFO = ("from", "pretrained")


@dataclass(frozen=True)
class Run:
    """An opened run folder. `info` is run.json."""

    folder: Path
    config: RunConfig
    info: dict[str, Any]
    tokenizer: bytes
    codec: TextCodec

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder)

    @property
    def corpus_sha256(self) -> str:
        return str(self.info["corpus"]["sha256"])

    def with_values(self, **values: int | None) -> "Run":
        """The run with other values, among those that a resume may change; they are stored in run.json."""
        config = self.config.with_values(values)
        info = {**self.info, "config": config.to_json()}
        write_atomic(self.folder / RUN_FILE, json.dumps(info, indent=2, ensure_ascii=False) + "\n")
        write_atomic(self.folder / _CONFIG, config.to_toml())
        return open_run(self.folder)

    @functools.cached_property
    def train_pairs(self) -> EncodedPairs:
        """The encoded training pairs; the file is read once."""
        return self._pairs("train")

    @functools.cached_property
    def valid_pairs(self) -> EncodedPairs:
        """The encoded held-out pairs; the file is read once."""
        return self._pairs("valid")

    def _pairs(self, part: str) -> EncodedPairs:
        name = _corpus_file(part)
        pairs = EncodedPairs.from_bytes(_read_checked(self.folder, name, self.info), self.folder / name)
        for ids in (pairs.src_ids, pairs.tgt_ids):
            if len(ids) and not 0 <= ids.min() <= ids.max() < self.codec.vocab_size:
                raise CheckpointError(f"{self.folder / name} has ids that the run's {_TOKENIZER} lacks")
        return pairs

    def valid_texts(self) -> list[Pair]:
        """The held-out pairs as text."""
        path = self.folder / _VALID_TEXTS
        try:  # split as bytes, since a text may contain other characters that str.splitlines breaks at
            pairs = [
                json.loads(line) for line in _read_checked(self.folder, _VALID_TEXTS, self.info).splitlines()
            ]
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from None
        encoded = len(self.valid_pairs)
        if len(pairs) != encoded or not all(map(_is_pair_record, pairs)):
            raise CheckpointError(f"{path} is damaged: it does not hold the {encoded:,} held-out pairs")
        return [Pair(pair["turns"], pair["response"]) for pair in pairs]

    def make_model(self) -> Seq2Seq:
        """The model, for the weights of a checkpoint to be loaded into."""
        return Seq2Seq(self.config.model, self.codec.vocab_size)

    def make_initial_model(self) -> Seq2Seq:
        """The model with its initial weights: those of another run, or weights that depend only on the seed
        and on pretrained vectors."""
        weights = _read_checked(self.folder, _INITIAL_WEIGHTS, self.info) if self.base_info else None
        model = make_initial_model(self.config, self.codec.vocab_size, weights)
        if self.pretrained:
            set_embedding_rows(model.embedding, _read_checked(self.folder, _EMBEDDING, self.info))
        return model

    @property
    def base_info(self) -> dict[str, Any] | None:
        """The run that this one started from: the `data` that it had learned from, the `step` and the
        `sha256` of its weights. None if this run started from new weights."""
        return self.info.get("from")

    @property
    def data_name(self) -> str:
        """The names of the data that the weights were learned from, including before this run."""
        before = self.base_info["data"].split(", ") if self.base_info else []
        return ", ".join(dict.fromkeys([*before, *str(self.info["corpus"]["name"]).split(", ")]))

    def base_checkpoint(self, which: str = "best") -> BaseCheckpoint:
        """A checkpoint for another run to start from."""
        model, position = self.load_model(which)
        return BaseCheckpoint(self.folder, which, self.data_name, position.step, weights_to_bytes(model))

    @property
    def pretrained(self) -> dict[str, Any] | None:
        """How many tokens started with a pretrained vector (`found` of `tokens`), and the `sha256` of the
        file of vectors. None if there were none."""
        return self.info.get("pretrained")

    def load_chat_model(self, which: str = "best", *, device: Device = "cpu") -> tuple[ChatModel, Position]:
        """Like `load_model`, with the model as the runtime's `ChatModel`, computed by PyTorch."""
        model, position = self.load_model(which)
        chat = ChatModel(TorchBackend(model.to(device)), self.codec, DecodingOptions(), device=device)
        return chat, position

    def step(self, which: str = "best") -> int:
        """The step of a checkpoint, or the highest step of several that are averaged."""
        return self.checkpoints.step(which)

    def load_model(self, which: str = "best") -> tuple[Seq2Seq, Position]:
        """The model of a checkpoint, or the mean of several (see `Checkpoints.select`), in evaluation mode,
        and its position."""
        model = self.make_model()
        position = load_mean_weights(self.checkpoints.select(which), model)
        return model.eval(), position


def make_initial_model(config: RunConfig, vocab_size: int, weights: bytes | None = None) -> Seq2Seq:
    """A model with initial weights from the seed, or with the `weights` of `Run.base_checkpoint`."""
    torch.manual_seed(config.training.seed)
    model = Seq2Seq(config.model, vocab_size)
    if weights is not None:
        load_weights_from_bytes(model, weights, _INITIAL_WEIGHTS)
    return model


def _corpus_file(part: str) -> str:
    return f"{_CORPUS}/{part}.safetensors"


def _read_checked(folder: Path, name: str, info: dict[str, Any]) -> bytes:
    """The content of a file of a run, checked against its hash in `info`."""
    path = folder / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a complete run: it has no {name}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    digest = info["from"]["sha256"] if name == _INITIAL_WEIGHTS else info["files"].get(name)
    if sha256(content) != digest:
        raise CheckpointError(
            f"{path} is damaged or belongs to another run: its sha256 differs from that in {RUN_FILE}, so "
            "restore the original file"
        )
    return content


def _is_pair_record(pair: Any) -> bool:
    if not isinstance(pair, dict) or not isinstance(pair.get("turns"), list):
        return False
    return all(isinstance(text, str) for text in (*pair["turns"], pair.get("response")))


def create_run(
    folder: Path,
    inputs: RunInputs,
    corpus: dict[str, Any],
    *,
    device: str,
    processes: int = 1,
    replace: bool,
) -> Run:
    """Write a new run folder with its encoded corpus, all or nothing.

    run.json records `device` and `processes`, and `corpus`: the `name` and `sha256` of what was read, and of
    each of its sources. With `replace`, an existing run is replaced.

    Raises:
        CheckpointError: another process trains in the run that would be replaced.
        UsageError: another process has made `folder` since it was checked.
    """
    config, prepared, base = inputs.config, inputs.prepared, inputs.base
    pretrained = inputs.pretrained
    valid_texts = "".join(
        json.dumps(pair._asdict(), ensure_ascii=False) + "\n" for pair in prepared.valid_texts
    )
    files = {
        _TOKENIZER: prepared.tokenizer,
        _corpus_file("train"): prepared.train.to_bytes(),
        _corpus_file("valid"): prepared.valid.to_bytes(),
        _VALID_TEXTS: valid_texts.encode(),
    }
    if pretrained is not None:
        files[_EMBEDDING] = pretrained.to_bytes()
    info = {
        "corpus": corpus,
        "config": config.to_json(),
        "environment": describe_environment(device, config.training.amp, processes),
        "files": {name: sha256(content) for name, content in files.items()},
    }
    if pretrained is not None:
        info["pretrained"] = {
            "found": pretrained.found,
            "tokens": pretrained.vocab_size,
            "sha256": pretrained.sha256,
        }
    if base is not None:
        info["from"] = {"data": base.data_name, "step": base.step, "sha256": sha256(base.weights)}
    _make_folder(folder.parent)
    with _explain_existing(folder), atomic_folder(folder, replace=replace) as temporary:
        write_atomic(temporary / RUN_FILE, json.dumps(info, indent=2, ensure_ascii=False) + "\n")
        (temporary / _CORPUS).mkdir()
        if base is not None:
            write_atomic(temporary / _INITIAL_WEIGHTS, base.weights)
        write_atomic(temporary / _CONFIG, config.to_toml())
        for name, content in files.items():
            write_atomic(temporary / name, content)
        report = json.dumps(prepared.report.to_json(), indent=2, ensure_ascii=False) + "\n"
        write_atomic(temporary / _CORPUS / "report.json", report)
        if replace and is_run(folder):
            RunLock(folder).release()  # raises if another process trains in it
    return open_run(folder)


@contextlib.contextmanager
def _explain_existing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise UsageError(
            f"{folder} was made by another process meanwhile: choose another --out, or continue that run "
            "with --resume once its training has ended"
        ) from None


def _make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, and sync their names to disk."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in made:
        sync_folder(path.parent)


def open_run(folder: Path) -> Run:
    """Open a run folder.

    Raises:
        UsageError: the folder does not exist or is not a run.
        CheckpointError: one of its files is missing or damaged.
    """
    path = folder / RUN_FILE
    if not folder.is_dir():
        raise UsageError(f"there is no run {folder}: give the folder that `edgechat train --out` made")
    if not path.exists():
        bundle = " (it looks like a bundle)" if (folder / MANIFEST_FILE).exists() else ""
        raise UsageError(f"{folder} is not a run{bundle}: it has no {RUN_FILE}")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    try:
        config = RunConfig.from_dict(info["config"], str(path))
        _check_info(info, str(path))
    except UsageError as error:  # names the file and the key; a newer version may have written it
        raise CheckpointError(str(error)) from None
    except (LookupError, TypeError, AttributeError, ValueError):
        raise CheckpointError(f"{path} is damaged: it is not what `edgechat train` wrote") from None
    tokenizer, data = _read_checked(folder, _TOKENIZER, info), config.data
    try:
        codec = data.codec(tokenizer)
    except BundleError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    return Run(folder, config, info, tokenizer, codec)


def _check_info(info: dict[str, Any], where: str) -> None:
    """Raise UsageError, or an exception of Python, for a value of run.json that is missing or of the wrong
    type."""
    for section, types in _INFO_TYPES.items():
        if section in info or section not in _OPTIONAL_INFO:
            for name, kind in types.items():
                check_type(info[section][name], kind, f"{where}, section {section}: {name}")
    for name, digest in info["files"].items():
        check_type(digest, str, f"{where}, section files: {name}")


def is_only_a_run(folder: Path) -> bool:
    """Whether a folder is a run and holds nothing else, so that replacing it loses nothing else."""
    try:
        names = {path.name for path in folder.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)}
    except OSError:
        return False
    return RUN_FILE in names and names <= _RUN_NAMES


def describe_environment(device: str, amp: AmpMode = "off", processes: int = 1) -> dict[str, Any]:
    """The conditions for byte-identical weights, besides the configuration."""
    return {
        "device": device,
        "edgechat": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "precision": resolve_precision(amp, device),
        "processes": processes,
    }
