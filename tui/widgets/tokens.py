"""How sure the model was of a reply, token by token."""

import math

from ..values import END, CandidateRow, Insight
from .lines import Line, Lines, bar, cells, percent, token

_TOKEN, _SHARE = 12, 5  # cells


class Tokens(Lines):
    """How sure the model was of each token, and what else might have come."""

    HELP = """
    ### Tokens

    **p**: the probability that the model gave the token, when it came to it. The bar says the same.

    **instead**: the other tokens that it held most likely there.

    `·` is a part of a character, which a token below completes; of another token such a part is shown as
    its bytes, `\\xc3`.
    """
    BINDING_GROUP_TITLE = "Tokens"

    def show(self, row: CandidateRow | None, insight: Insight | None, reply: int, hint: str) -> None:
        """The tokens of a candidate; what else might have come is known where it was traced."""
        if row is None or not row.token_logps:
            self.say(hint)
            return
        way = insight.replies[reply] if insight and reply < len(insight.replies) else ()
        texts = [*row.tokens, END]
        rows: list[Line] = []
        for n, logp in enumerate(row.token_logps):
            p = math.exp(min(0.0, logp))
            rivals = "  ".join(f"{token(t)} {percent(r)}" for t, r in (way[n].rivals if n < len(way) else ()))
            look = "good" if p >= 0.5 else "" if p >= 0.1 else "bad"
            rows.append(
                [
                    (cells(token(texts[n]), _TOKEN, right=True) + "  ", "bold"),
                    (percent(logp).rjust(_SHARE) + " ", ""),
                    (bar(p, 8) + "  ", look),
                    (f"{logp:6.2f}   ", "dim"),
                    (rivals, "dim"),
                ]
            )
        head: Line = [(" " * (_TOKEN + 2) + "    p" + " " * 13 + "logp   instead", "head")]
        self.draw(rows, [head], fixed=_TOKEN + 2)
