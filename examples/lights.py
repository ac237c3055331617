"""A command model in an application: commands that the model is sure about are carried out, others are not.

    edgechat train examples/lights.jsonl --epochs 60 --batch-size 16 --save-every 100 --out runs/lights
    edgechat export runs/lights --out bundles/lights
    python examples/lights.py bundles/lights

Type one command per line. It needs only the packages of the runtime: onnxruntime, numpy and tokenizers.
"""

import math
import sys

from edgechat.runtime import ChatModel, DecodingOptions, EdgeChatError

ROOMS = (
    *("attic", "bathroom", "bedroom", "cellar", "garage"),
    *("garden", "hall", "kitchen", "living room", "office"),
)
#: The commands of the application, as a closed set: the model can give no other reply.
COMMAND_OPTIONS = DecodingOptions(
    replies=tuple(f"LIGHT {state} {room}" for state in ("ON", "OFF", "DIM") for room in ROOMS)
)
MIN_PROBABILITY = 0.9  # lowest probability at which a command is carried out


def parse_command(model: ChatModel, text: str) -> tuple[str, str] | None:
    """(state, room), or None where the model is not sure enough."""
    best = model.reply(text, COMMAND_OPTIONS).candidates[0]
    if math.exp(best.logp) < MIN_PROBABILITY:
        return None
    _, state, room = best.text.split(" ", 2)
    return state, room


def main() -> None:
    try:
        model = ChatModel.load(sys.argv[1] if len(sys.argv) > 1 else "bundles/lights")
    except EdgeChatError as error:
        sys.exit(f"lights: {error}")
    lights = dict.fromkeys(ROOMS, "OFF")
    for line in sys.stdin:
        if command := parse_command(model, line.strip()):
            state, room = command
            lights[room] = state  # a real application switches the light here
            print(f"{room}: {state.lower()}", flush=True)
        else:
            print("I did not understand that.", flush=True)


if __name__ == "__main__":
    main()
