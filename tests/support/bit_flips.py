"""Bundles with bytes flipped anywhere."""

import random
from pathlib import Path

import pytest

from edgechat.runtime import ChatModel
from edgechat.runtime.errors import BundleError


def check_bit_flips(bundle: Path, count: int, seed: int) -> None:
    """Flip one to eight bits anywhere in one to three files, `count` times. Each time, the bundle must be
    refused in one sentence that names a damaged file, or the manifest with its hash."""
    rng = random.Random(seed)
    originals = {path: path.read_bytes() for path in sorted(bundle.iterdir())}
    for _ in range(count):
        damaged = rng.sample(list(originals), rng.choice((1, 1, 1, 2, 3)))
        for path in damaged:
            raw = bytearray(originals[path])
            for bit in rng.sample(range(8 * len(raw)), rng.randint(1, 8)):
                raw[bit // 8] ^= 1 << bit % 8
            path.write_bytes(raw)
        with pytest.raises(BundleError) as raised:
            ChatModel.load(bundle, device="cpu")
        said = str(raised.value)
        assert "\n" not in said
        assert any(path.name in said for path in damaged) or "edgechat.json" in said or "format" in said
        for path in damaged:
            path.write_bytes(originals[path])
    ChatModel.load(bundle, device="cpu").close()
