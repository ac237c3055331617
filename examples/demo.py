"""What `make demo` runs: the whole road, from raw dialogue to a bundle that chats.

Trains a small model on the English part of chatterbot-corpus (packaged, BSD), exports it, proves the export,
then asks the bundle ten prompts, half of which were held out of the training. The last lines are the
figures: how many of the training prompts that have one answer only are answered with exactly that, and the
held-out perplexity. A model this small on a corpus this small has learned by heart: the figures show that the
road carries, not that the bot is clever.
"""

import argparse
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from edgechat.runtime import ChatModel
from edgechat.train.corpus import open_corpus
from edgechat.train.dialogue import examples
from edgechat.train.run import open_run

TRAIN = [
    "chatterbot:english", "--preset", "tiny", "--max-target", "60", "--epochs", "50", "--batch-size", "32",
    "--save-every", "360", "--threads", "1", "--device", "cpu",
]  # fmt: skip


def edgechat(*arguments: str) -> None:
    """Run a command as a user would, and show it."""
    print(f"\n$ edgechat {' '.join(arguments)}", flush=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run([sys.executable, "-m", "edgechat", *arguments], check=False, env=environment)
    if done.returncode:
        sys.exit(done.returncode)


def answers(held_out: set[tuple[str, str]]) -> dict[str, set[str]]:
    """The replies that the training pairs give to each prompt."""
    found: dict[str, set[str]] = defaultdict(set)
    for dialogue in open_corpus(["chatterbot:english"]):
        for turns, response in examples(dialogue, turns=1, targets="all"):
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
    edgechat("train", *TRAIN, "--out", str(run), *(["--resume"] if run.exists() else []))
    edgechat("export", str(run), "--out", str(bundle), "--checkpoint", "last", "--replace")
    edgechat("verify", str(bundle))

    trained = open_run(run)
    pairs = [(pair.turns[-1], pair.response) for pair in trained.held_out()]
    learned = answers(set(pairs))
    unseen = [prompt for prompt, _ in pairs if prompt not in learned]
    single = {prompt: next(iter(replies)) for prompt, replies in learned.items() if len(replies) == 1}

    with ChatModel.load(bundle) as model:
        print("\nFive prompts from the training data:")
        chosen = [prompt for prompt in single if 8 < len(prompt) < 40]
        show(model, chosen[:: len(chosen) // 5][:5])
        print("\nFive prompts that were never seen in training:")
        show(model, unseen[:: max(1, len(unseen) // 5)][:5])
        replies = model.reply_batch(list(single))
        exact = sum(reply.text == answer for reply, answer in zip(replies, single.values(), strict=True))
        assert model.manifest is not None
        quality = model.manifest.quality
    print(f"\nTraining prompts with one answer only that get exactly it: {exact / len(single):.1%}", end=" ")
    print(f"({exact:,} of {len(single):,})")
    print(
        f"Held-out perplexity: {quality['valid_perplexity']:.1f} on {quality['valid_pairs']} pairs", end=" "
    )
    print("(a model that learns by heart is surprised by anything new)")
    print(f"Checkpoint: {trained.checkpoints.last.name}")
    print(f"\nChat with it:  .venv/bin/edgechat tui {bundle}")
    if exact < 0.8 * len(single):
        sys.exit("The road is broken: at least 80 % were to be exact.")


def show(model: ChatModel, prompts: list[str]) -> None:
    for prompt in prompts:
        reply = model.reply(prompt)
        print(f"  you  {prompt}\n  bot  {reply}   ({reply.ms:.0f} ms)")


if __name__ == "__main__":
    main()
