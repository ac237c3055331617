"""What stands in a view that has nothing to show."""

NOTHING = "Say something: how the reply came about is shown here."
NOT_KEPT = "The way of a reply is not kept with a conversation. {key} replays the reply, and shows it."
NOT_FOLLOWED = (
    "The search was too large to trace: that of a smaller beam, or of a smaller max length, can be shown."
)
