"""What stands in a view that has nothing to show."""

NOTHING = "Say something: how the reply came about is shown here."
NOT_KEPT = "The way of a reply is not kept with a conversation. {key} replays the reply, and shows it."
NOT_FOLLOWED = "The search that made this reply was too wide to trace: a beam of 64 at most can be shown."
