"""The command line: `edgechat train`, `export`, `reply`, `tui` and the rest."""


def main() -> None:
    raise SystemExit(2)
