"""The tokens view: how sure the model was of each token of a reply."""

import math

from ..values import END, CandidateRow, Trace
from .lines import Line, Lines, bar, cells, percent, token

_TOKEN, _SHARE = 12, 5  # cells


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
            self.say(hint)
            return
        traced = trace.replies[reply] if trace and reply < len(trace.replies) else ()
        texts = [*row.tokens, END]
        rows: list[Line] = []
        for n, logp in enumerate(row.token_logps):
            p = math.exp(min(0.0, logp))
            others = traced[n].rivals if n < len(traced) else ()
            rivals = "  ".join(f"{token(text)} {percent(other)}" for text, other in others)
            style = "good" if p >= 0.5 else "" if p >= 0.1 else "bad"
            rows.append(
                [
                    (cells(token(texts[n]), _TOKEN, right=True) + "  ", "bold"),
                    (percent(logp).rjust(_SHARE) + " ", ""),
                    (bar(p, 8) + "  ", style),
                    (f"{logp:6.2f}   ", "dim"),
                    (rivals, "dim"),
                ]
            )
        head: Line = [(" " * (_TOKEN + 2) + "    p" + " " * 13 + "logp   instead", "head")]
        self.draw(rows, [head], fixed=_TOKEN + 2)
