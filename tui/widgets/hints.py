"""Hints shown in a view that has nothing to show."""

NO_REPLY = "Send a prompt to see here how its reply was found."
TRACE_NOT_STORED = "The search trace of a reply is not stored. {key} replays the reply and shows its trace."
NOT_TRACED = "The search was too large to trace. Use a smaller beam or a smaller max length to see its steps."
