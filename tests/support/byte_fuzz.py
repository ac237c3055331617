"""Random damage to bytes."""

import random


def mutate_bytes(raw: bytes, rng: random.Random) -> bytes:
    """`raw` with one to four random changes: bytes flipped, cut, repeated, moved, or overwritten with bytes
    that are meaningful in the protobuf wire format."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 5, 40)))
        other = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0:
                data[at:end] = bytes(rng.randrange(256) for _ in range(end - at))
            case 1:
                del data[at:end]
            case 2:
                data[other:other] = data[at:end]
            case 3:
                data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ (1 << rng.randrange(8))])
            case 4:
                data[at:at] = rng.choice(
                    (b"\xff" * 9 + b"\x01", b"\x80" * 10 + b"\x01", b"\xff\xff\xff\xff\x0f", b"\x0b", b"\x00")
                )
            case 5:
                data[at : at + 1] = bytes([rng.randrange(1, 30) << 3 & 255 | rng.choice((0, 1, 2, 3, 5))])
            case 6:
                del data[at:]
    return bytes(data)
