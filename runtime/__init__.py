"""Embed a bundle in any application: load it, reply, stream, hold a conversation."""
