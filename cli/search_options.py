"""Options of the search: how commands declare them, and how they become `DecodingOptions`."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.models import OptionInfo

from ..runtime import DecodingOptions
from ..runtime.closed_set import read_replies

#: The defaults of the search.
DEFAULTS = DecodingOptions()
#: Panels of --help.
SEARCH, SCORING, CONSTRAINTS, SAMPLING = "Search", "Scoring", "Constraints on replies", "Sampling"


def beam_option(default: str) -> Any:
    """--beam, for a command with this default."""
    return typer.Option(
        help=f"Hypotheses kept at each step; 1 is greedy search.  [default: {default}]",
        rich_help_panel=SEARCH,
    )


def normalize_option(default: str) -> Any:
    """--normalize, for a command with this default."""
    return typer.Option(
        help="How scores are normalized by length; gnmt is the formula of Wu et al. 2016.  "
        f"[default: {default}]",
        rich_help_panel=SCORING,
    )


Normalization = Literal["none", "gnmt", "average"]
BeamOption = Annotated[int | None, beam_option(f"the bundle's, usually {DEFAULTS.beam}")]
NormalizeOption = Annotated[Normalization | None, normalize_option("the bundle's")]
LengthPenaltyOption = Annotated[
    float | None,
    typer.Option(
        help=f"alpha of gnmt; larger values favor longer replies.  [default: {DEFAULTS.alpha}]",
        rich_help_panel=SCORING,
    ),
]
MinLengthOption = Annotated[
    int | None,
    typer.Option(
        help=f"Fewest tokens in a reply.  [default: {DEFAULTS.min_length}]", rich_help_panel=CONSTRAINTS
    ),
]
MaxLengthOption = Annotated[
    int | None,
    typer.Option(
        help="Most tokens in a reply, its end included.  [default: the model's limit]",
        rich_help_panel=CONSTRAINTS,
    ),
]
StopOption = Annotated[
    Literal["exact", "first"] | None,
    typer.Option(
        help="exact: search until no better reply is possible; first: stop once enough replies are "
        "finished.  [default: the bundle's]",
        rich_help_panel=SEARCH,
    ),
]
PrefixOption = Annotated[
    str | None,
    typer.Option(help="Text that every reply begins with.", rich_help_panel=CONSTRAINTS, show_default=False),
]
BannedOption = Annotated[
    list[str] | None,
    typer.Option(help="Text that no reply contains; repeatable.", rich_help_panel=CONSTRAINTS),
]
RequiredOption = Annotated[
    list[str] | None,
    typer.Option(help="Text that every reply contains; repeatable.", rich_help_panel=CONSTRAINTS),
]
GroupsOption = Annotated[
    int | None,
    typer.Option(
        help="Split the beam into this many groups that avoid each other's tokens.  "
        f"[default: {DEFAULTS.groups}]",
        rich_help_panel=SEARCH,
    ),
]
DiversityOption = Annotated[
    float | None,
    typer.Option(
        help=f"How strongly groups avoid each other's tokens.  [default: {DEFAULTS.diversity_strength}]",
        rich_help_panel=SEARCH,
    ),
]
NoRepeatOption = Annotated[
    int | None,
    typer.Option(
        help="Size, in tokens, of the n-grams that a reply never repeats.",
        rich_help_panel=CONSTRAINTS,
        show_default=False,
    ),
]
NoCopyOption = Annotated[
    int | None,
    typer.Option(
        help="Size, in tokens, of the n-grams of the prompt that a reply never contains.",
        rich_help_panel=CONSTRAINTS,
        show_default=False,
    ),
]
RepetitionPenaltyOption = Annotated[
    float | None,
    typer.Option(
        help="Factor on the log-probability of a token that the reply already contains.  "
        f"[default: {DEFAULTS.repetition_penalty:g}, off]",
        rich_help_panel=SCORING,
    ),
]
CoveragePenaltyOption = Annotated[
    float | None,
    typer.Option(
        help="beta of Wu et al. 2016: penalizes replies that leave parts of the prompt unattended.  "
        f"[default: {DEFAULTS.coverage_penalty:g}, off]",
        rich_help_panel=SCORING,
    ),
]
AlignmentsOption = Annotated[
    bool | None,
    typer.Option(
        "--alignments",
        help="With --json: add each reply token's attention weights on the prompt's tokens.",
        show_default=False,
    ),
]
RepliesOption = Annotated[
    Path | None,
    typer.Option(
        readable=False,  # `read_replies` reports a file that cannot be read, as for every other file
        help="Closed set: the only replies allowed; a .json list of texts, or a text file with one per line.",
        rich_help_panel=CONSTRAINTS,
        show_default=False,
    ),
]
SampleOption = Annotated[
    bool | None,
    typer.Option(
        "--sample",
        help="Sample at random; with --beam N, keep the best of N samples.",
        rich_help_panel=SAMPLING,
        show_default=False,
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        help="Divides log-probabilities: below 1 likely tokens become likelier, above 1 less likely.  "
        "[default: 1]",
        rich_help_panel=SAMPLING,
    ),
]
TopKOption = Annotated[
    int | None,
    typer.Option(
        help="Sample only from this many of the likeliest tokens.",
        rich_help_panel=SAMPLING,
        show_default=False,
    ),
]
TopPOption = Annotated[
    float | None,
    typer.Option(
        help="Sample only from the smallest set of likeliest tokens with at least this total probability.",
        rich_help_panel=SAMPLING,
        show_default=False,
    ),
]
TypicalOption = Annotated[
    float | None,
    typer.Option(
        help="Sample only from the smallest set of most typical tokens with at least this total probability.",
        rich_help_panel=SAMPLING,
        show_default=False,
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        help="Seed of the sampling: the same seed gives the same replies.",
        rich_help_panel=SAMPLING,
        show_default=False,
    ),
]


#: The options of the search that `edgechat reply` and `chat` share, by the names of `DecodingOptions`.
SEARCH_OPTIONS: dict[str, Any] = {
    "beam": BeamOption,
    "stop": StopOption,
    "groups": GroupsOption,
    "diversity": DiversityOption,
    "normalize": NormalizeOption,
    "length_penalty": LengthPenaltyOption,
    "coverage_penalty": CoveragePenaltyOption,
    "repetition_penalty": RepetitionPenaltyOption,
    "min_length": MinLengthOption,
    "max_length": MaxLengthOption,
    "replies": RepliesOption,
    "prefix": PrefixOption,
    "banned": BannedOption,
    "required": RequiredOption,
    "no_repeat_ngram": NoRepeatOption,
    "no_copy_ngram": NoCopyOption,
    "sample": SampleOption,
    "temperature": TemperatureOption,
    "top_k": TopKOption,
    "top_p": TopPOption,
    "typical_p": TypicalOption,
    "seed": SeedOption,
}


def with_search_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: add all of SEARCH_OPTIONS to `command`, before its own options.

    The command does not receive them as arguments; it reads them from its context with `given_options`.
    """
    signature = inspect.signature(command, eval_str=True)
    own_parameters = list(signature.parameters.values())
    first = next(i for i, parameter in enumerate(own_parameters) if _is_option(parameter))
    search_parameters = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=option)
        for name, option in SEARCH_OPTIONS.items()
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(**{name: value for name, value in given.items() if name in signature.parameters})

    vars(run)["__signature__"] = signature.replace(
        parameters=[*own_parameters[:first], *search_parameters, *own_parameters[first:]]
    )
    return run


def _is_option(parameter: inspect.Parameter) -> bool:
    return any(isinstance(part, OptionInfo) for part in getattr(parameter.annotation, "__metadata__", ()))


def given_options(context: typer.Context) -> dict[str, Any]:
    """The fields of `DecodingOptions` that a command was given, by name: `replies` as the texts of its file,
    and `trace`, which names a file, as True."""
    names = [field.name for field in dataclasses.fields(DecodingOptions)]
    # () is a repeatable option that was not given: the bundle's own value stays.
    given = {name: context.params[name] for name in names if context.params.get(name) not in (None, ())}
    if "replies" in given:
        given["replies"] = read_replies(given["replies"])
    if "trace" in given:
        given["trace"] = True
    return given


def decoding_options(defaults: DecodingOptions, **given: Any) -> DecodingOptions:
    """`defaults`, changed by what was given on the command line; None is an option that was not given.

    Options that were not given follow the others: a sampling command draws as many samples as it shows, a
    length penalty is dropped with the gnmt normalization it belongs to, and n_best never exceeds the beam.
    """
    changed = {name: value for name, value in given.items() if value is not None}
    if changed.get("sample"):
        changed.setdefault("beam", changed.get("n_best", 1))
    if changed.get("normalize", "gnmt") != "gnmt":
        changed.setdefault("length_penalty", None)
    if "beam" in changed and "n_best" not in changed:
        changed["n_best"] = min(defaults.n_best, changed["beam"])
    return dataclasses.replace(defaults, **changed)
