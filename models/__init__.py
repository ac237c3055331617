"""Data, not code: the presets (`*.toml`) that `edgechat train --preset` knows by name."""
