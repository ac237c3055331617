"""Runs the whole pipeline, from raw dialogues to a bundle that chats; `make demo` runs it.

It trains a small model on the English part of chatterbot-corpus (a package, BSD), exports it, proves the
export, and prints the bundle's replies to five prompts of the training data and five held-out ones. The last
lines show how many training prompts with a single reply are answered with exactly that reply, and the
held-out perplexity. A model and a corpus this small mean learning by heart: the figures show that the
pipeline works, not that the bot is clever.
"""

import argparse
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from edgechat.runtime import ChatModel
from edgechat.train.corpus import open_corpus
from edgechat.train.dialogue import extract_pairs
from edgechat.train.run import open_run

TRAIN_OPTIONS = [
    "chatterbot:english", "--preset", "tiny", "--max-target", "60", "--epochs", "50", "--batch-size", "32",
    "--save-every", "360", "--threads", "1", "--device", "cpu",
]  # fmt: skip


def edgechat(*arguments: str) -> None:
    """Print and run a command, and exit if it fails."""
    print(f"\n$ edgechat {' '.join(arguments)}", flush=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run([sys.executable, "-m", "edgechat", *arguments], check=False, env=environment)
    if done.returncode:
        sys.exit(done.returncode)


def training_replies(held_out: set[tuple[str, str]]) -> dict[str, set[str]]:
    """The replies to each prompt in the training pairs."""
    found: dict[str, set[str]] = defaultdict(set)
    for dialogue in open_corpus(["chatterbot:english"]):
        for turns, response in extract_pairs(dialogue, turns=1, targets="all"):
            if (turns[-1], response) not in held_out:
                found[turns[-1]].add(response)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(), help="folder for runs/ and bundles/")
    out = parser.parse_args().out
    run, bundle = out / "runs" / "demo", out / "bundles" / "demo"
    edgechat("train", *TRAIN_OPTIONS, "--out", str(run), *(["--resume"] if run.exists() else []))
    edgechat("export", str(run), "--out", str(bundle), "--checkpoint", "last", "--force")
    edgechat("verify", str(bundle))

    trained = open_run(run)
    pairs = [(pair.turns[-1], pair.response) for pair in trained.valid_texts()]
    learned = training_replies(set(pairs))
    unseen = [prompt for prompt, _ in pairs if prompt not in learned]
    single = {prompt: next(iter(replies)) for prompt, replies in learned.items() if len(replies) == 1}

    with ChatModel.load(bundle) as model:
        print("\nFive prompts from the training data:")
        chosen = [prompt for prompt in single if 8 < len(prompt) < 40]
        print_replies(model, chosen[:: len(chosen) // 5][:5])
        print("\nFive prompts that are not in the training data:")
        print_replies(model, unseen[:: max(1, len(unseen) // 5)][:5])
        replies = model.reply_batch(list(single))
        exact = sum(reply.text == answer for reply, answer in zip(replies, single.values(), strict=True))
        assert model.manifest is not None
        quality = model.manifest.quality
    share = f"{exact / len(single):.1%} ({exact:,} of {len(single):,})"
    print(f"\nTraining prompts with only one reply, answered word for word: {share}")
    perplexity = f"{quality['valid_perplexity']:.1f} on {quality['valid_pairs']} pairs"
    print(f"Held-out perplexity: {perplexity} (high, since the model learned its training data by heart)")
    print(f"Checkpoint: {trained.checkpoints.last.name}")
    print(f"\nChat with it:  .venv/bin/edgechat tui {bundle}")
    if exact < 0.8 * len(single):
        sys.exit("The pipeline is broken: at least 80% of these replies should be exact.")


def print_replies(model: ChatModel, prompts: list[str]) -> None:
    for prompt in prompts:
        reply = model.reply(prompt)
        print(f"  you  {prompt}\n  bot  {reply}   ({reply.ms:.0f} ms)")


if __name__ == "__main__":
    main()
