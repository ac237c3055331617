"""The tokens view: how sure the model was of each token of a reply."""

import math

from ..values import END, CandidateRow, Trace
from .lines import Line, Lines, bar, display_token, fit_cells, format_percent

_TOKEN_CELLS, _PERCENT_CELLS = 12, 5


class Tokens(Lines):
    """The probability of each token, and the likeliest alternatives."""

    HELP = """
    ### Tokens

    **p**: the probability of the token given the tokens before it. The bar shows the same.

    **logp**: its natural logarithm.

    **instead**: the likeliest other tokens at this position.

    `·` is a token that holds only part of a character; a later token completes it. In the column **instead**
    such a token is shown as its bytes, for example `\\xc3`.
    """
    BINDING_GROUP_TITLE = "Tokens"

    def show(self, row: CandidateRow | None, trace: Trace | None, reply: int, hint: str) -> None:
        """Show the tokens of a candidate. The alternatives are only known if the search was traced."""
        if row is None or not row.token_logps:
            self.show_message(hint)
            return
        traced = trace.replies[reply] if trace and reply < len(trace.replies) else ()
        texts = [*row.tokens, END]
        rows: list[Line] = []
        for n, logp in enumerate(row.token_logps):
            p = math.exp(min(0.0, logp))
            others = traced[n].alternatives if n < len(traced) else ()
            alternatives = "  ".join(
                f"{display_token(text)} {format_percent(other)}" for text, other in others
            )
            style = "good" if p >= 0.5 else "" if p >= 0.1 else "bad"
            rows.append(
                [
                    (fit_cells(display_token(texts[n]), _TOKEN_CELLS, right=True) + "  ", "bold"),
                    (format_percent(logp).rjust(_PERCENT_CELLS) + " ", ""),
                    (bar(p, 8) + "  ", style),
                    (f"{logp:6.2f}   ", "dim"),
                    (alternatives, "dim"),
                ]
            )
        head: Line = [(" " * (_TOKEN_CELLS + 2) + "    p" + " " * 13 + "logp   instead", "head")]
        self.draw(rows, [head], fixed=_TOKEN_CELLS + 2)
