"""The themes of the chat. Textual's own themes are available too."""

from textual.theme import Theme

DARK = Theme(
    name="edgechat-dark",
    dark=True,
    primary="#6ea8fe",
    secondary="#8b9bb4",
    accent="#e3b574",
    foreground="#d7dce5",
    background="#14171c",
    surface="#1a1e25",
    panel="#232934",
    success="#7fc8a9",
    warning="#e3b574",
    error="#ef7d7d",
    variables={"footer-key-foreground": "#e3b574", "border": "#3a4453", "border-blurred": "#2a313d"},
)
LIGHT = Theme(
    name="edgechat-light",
    dark=False,
    primary="#2f63b8",
    secondary="#5d6b82",
    accent="#8a5a00",
    foreground="#1f2630",
    background="#fbfbf9",
    surface="#f3f3ef",
    panel="#e7e8e4",
    success="#1f7a55",
    warning="#8a5a00",
    error="#b3261e",
    variables={"footer-key-foreground": "#8a5a00", "border": "#b9bec7", "border-blurred": "#d6d9de"},
)
THEMES = (DARK, LIGHT)
