"""Marian's own decoder in 8 bits: a Transformer with 28 million random weights, packed for intgemm, which
selects the instructions of the CPU at run time. Marian's Python package contains all of Marian."""

import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import _pymarian
from serve import serve

MODEL = (
    "--type transformer --dim-emb 384 --transformer-heads 6 --transformer-dim-ffn 1536 "
    "--enc-depth 6 --dec-depth 6 --tied-embeddings-all"
)


def marian(folder: Path, options: str) -> None:
    """Run a command of Marian, in its own process, since it exits the process when it is done."""
    command = "import _pymarian, sys; _pymarian.main(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", command, *options.split()], cwd=folder, check=True)


def make(size: SimpleNamespace) -> Callable[[], int]:
    draw = random.Random(0)
    words = [f"w{number}" for number in range(size.vocab_size - 2)]
    lines = [" ".join(draw.choices(words, k=size.source)) for _ in range(size.batch)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text").write_text("\n".join(lines) + "\n")
        (folder / "words.yml").write_text(
            "".join(f'"{word}": {id}\n' for id, word in enumerate(["</s>", "<unk>", *words]))
        )
        marian(  # one update with a negligible learning rate, only to write a model
            folder,
            f"train {MODEL} -m model.npz -t text text -v words.yml words.yml --dim-vocabs {size.vocab_size} "
            f"{size.vocab_size} --after 1u --optimizer sgd -l 1e-9 --mini-batch 8 --cpu-threads 1 --seed 1",
        )
        marian(folder, "convert -f model.npz -t model.bin --gemm-type intgemm8")
        factor = (size.steps - 0.5) / (size.source + 1)  # of words and the end-of-sentence
        translator = _pymarian.Translator(
            f"-m {folder}/model.bin -v {folder}/words.yml {folder}/words.yml --beam-size {size.beam} "
            f"--max-length-factor {factor} --normalize 0.6 --mini-batch {size.batch} --maxi-batch 1 "
            "--cpu-threads 1 --workspace 512 --quiet --quiet-translation"
        )

    def decode() -> int:
        return max(len(reply.split()) for reply in translator.translate(lines))

    return decode


serve(make, version("pymarian"))
