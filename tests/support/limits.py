"""Time limits of tests. They only catch a process that hangs, so even a busy machine stays far below them."""

#: Seconds to wait for a process.
TIMEOUT_SECONDS = 600
