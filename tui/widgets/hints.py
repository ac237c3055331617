"""Hints shown in a view that has nothing to show."""

NOTHING = "Send a prompt to see here how its reply was found."
NOT_KEPT = "The search trace of a reply is not stored. {key} replays the reply and shows its trace."
NOT_TRACED = "The search was too large to trace. Use a smaller beam or a smaller max length to see its steps."
