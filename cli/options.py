"""Options that several commands have, so that each is spelled and explained once."""

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.models import OptionInfo

from ..runtime import DecodingOptions
from ..runtime.errors import DeviceError
from ..runtime.replies import read_replies
from ..train.choices import DeviceName

BundleArgument = Annotated[
    str,
    typer.Argument(
        help="Folder or .edgechat file that `edgechat export` wrote, or `demo` for the one in the package."
    ),
]
RequireSignatureOption = Annotated[
    Path | None,
    typer.Option(
        metavar="KEY",
        readable=False,
        help="Public key (PEM): use the bundle only if it is signed by it and was not changed since.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    DeviceName,
    typer.Option(
        help="auto takes CUDA where it can really be used, else the CPU; cuda fails where it cannot.",
    ),
]
ThreadsOption = Annotated[
    int, typer.Option(min=1, max=1024, help="Threads of ONNX Runtime; one is fastest for small models.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace --out if it is there.")]
#: What an option of the search is where nobody says anything.
PLAIN = DecodingOptions()
#: Panels of --help.
SEARCH, SCORES, SAYS = "The search", "How replies are scored", "What a reply may say"
DRAW = "Drawing at random"


def beam_option(default: str) -> Any:
    """--beam, of a command where that is the default."""
    return typer.Option(
        help=f"Hypotheses kept at each step; 1 is greedy.  [default: {default}]", rich_help_panel=SEARCH
    )


def normalize_option(default: str) -> Any:
    """--normalize, of a command where that is the default."""
    return typer.Option(
        help=f"How scores are normalized by length; gnmt is Wu et al. 2016.  [default: {default}]",
        rich_help_panel=SCORES,
    )


Normalization = Literal["none", "gnmt", "average"]
BeamOption = Annotated[int | None, beam_option(f"the bundle's, mostly {PLAIN.beam}")]
NormalizeOption = Annotated[Normalization | None, normalize_option("the bundle's")]
LengthPenaltyOption = Annotated[
    float | None,
    typer.Option(
        help=f"alpha of gnmt; larger favours longer replies.  [default: {PLAIN.alpha}]",
        rich_help_panel=SCORES,
    ),
]
MinLengthOption = Annotated[
    int | None,
    typer.Option(
        help=f"Tokens that a reply has at least.  [default: {PLAIN.min_length}]", rich_help_panel=SAYS
    ),
]
MaxLengthOption = Annotated[
    int | None,
    typer.Option(
        help="Tokens that a reply has at most.  [default: the longest the model learned]",
        rich_help_panel=SAYS,
    ),
]
StopOption = Annotated[
    Literal["exact", "first"] | None,
    typer.Option(
        help="exact: when no better reply can come; first: with the first finished.  [default: the bundle's]",
        rich_help_panel=SEARCH,
    ),
]
PrefixOption = Annotated[
    str | None,
    typer.Option(help="Text that the reply begins with.", rich_help_panel=SAYS, show_default=False),
]
BannedOption = Annotated[
    list[str] | None,
    typer.Option(help="Text that no reply holds; may be given many times.", rich_help_panel=SAYS),
]
RequiredOption = Annotated[
    list[str] | None,
    typer.Option(help="Text that every reply holds; may be given many times.", rich_help_panel=SAYS),
]
GroupsOption = Annotated[
    int | None,
    typer.Option(
        help="Split the beam into so many groups that keep off each other's words.  "
        f"[default: {PLAIN.groups}]",
        rich_help_panel=SEARCH,
    ),
]
DiversityOption = Annotated[
    float | None,
    typer.Option(
        help=f"How strongly groups keep off.  [default: {PLAIN.diversity_strength}]", rich_help_panel=SEARCH
    ),
]
NoRepeatOption = Annotated[
    int | None,
    typer.Option(help="No n-gram of so many tokens comes twice.", rich_help_panel=SAYS, show_default=False),
]
NoCopyOption = Annotated[
    int | None,
    typer.Option(
        help="No n-gram of so many tokens of the prompt is said.", rich_help_panel=SAYS, show_default=False
    ),
]
RepetitionPenaltyOption = Annotated[
    float | None,
    typer.Option(
        help="What the log-probability of a token that was said is multiplied by.  "
        f"[default: {PLAIN.repetition_penalty:g}, none]",
        rich_help_panel=SCORES,
    ),
]
CoveragePenaltyOption = Annotated[
    float | None,
    typer.Option(
        help="beta of Wu et al. 2016: takes from replies that leave parts of the prompt unattended.  "
        f"[default: {PLAIN.coverage_penalty:g}, none]",
        rich_help_panel=SCORES,
    ),
]
AlignmentsOption = Annotated[
    bool | None,
    typer.Option(
        "--alignments",
        help="With --json: what each token looked at, as weights on the prompt's tokens.",
        show_default=False,
    ),
]
RepliesOption = Annotated[
    Path | None,
    typer.Option(
        readable=False,  # what cannot be read is said where it is read, in the words of all files
        help="The only replies that may be given: a .json list of texts, or one a line.",
        rich_help_panel=SAYS,
        show_default=False,
    ),
]
SampleOption = Annotated[
    bool | None,
    typer.Option(
        "--sample",
        help="Draw at random; with --beam N the best of N draws.",
        rich_help_panel=DRAW,
        show_default=False,
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(help="Below 1 the likely is likelier, above 1 less so.  [default: 1]", rich_help_panel=DRAW),
]
TopKOption = Annotated[
    int | None,
    typer.Option(help="Draw among so many likeliest tokens.", rich_help_panel=DRAW, show_default=False),
]
TopPOption = Annotated[
    float | None,
    typer.Option(
        help="Draw among the likeliest tokens that have this probability together.",
        rich_help_panel=DRAW,
        show_default=False,
    ),
]
TypicalOption = Annotated[
    float | None,
    typer.Option(
        help="Draw among the most typical tokens that have this probability together.",
        rich_help_panel=DRAW,
        show_default=False,
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(help="The same seed draws the same replies.", rich_help_panel=DRAW, show_default=False),
]
SignOption = Annotated[
    Path | None,
    typer.Option(
        metavar="KEY",
        readable=False,
        help="Sign the bundle with this Ed25519 private key (PEM, PKCS#8), as `edgechat keygen` makes one.",
        show_default=False,
    ),
]


#: The options of the search that `edgechat reply` and `chat` have alike: all but what one prints of it.
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
    """`command` with all of SEARCH_OPTIONS before its own options. It finds them in its context, by
    `given_options`."""
    signature = inspect.signature(command, eval_str=True)
    own = list(signature.parameters.values())
    first = next(i for i, parameter in enumerate(own) if _is_option(parameter))
    added = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=option)
        for name, option in SEARCH_OPTIONS.items()
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(**{name: value for name, value in given.items() if name in signature.parameters})

    vars(run)["__signature__"] = signature.replace(parameters=[*own[:first], *added, *own[first:]])
    return run


def _is_option(parameter: inspect.Parameter) -> bool:
    return any(isinstance(part, OptionInfo) for part in getattr(parameter.annotation, "__metadata__", ()))


def given_options(context: typer.Context) -> dict[str, Any]:
    """The options of the search that a command was given, by name. Of those that name a file, --replies is
    what is in it, and --trace that there shall be one."""
    names = [field.name for field in dataclasses.fields(DecodingOptions)]
    # () is a list that was not given: it leaves the bundle's own.
    given = {name: context.params[name] for name in names if context.params.get(name) not in (None, ())}
    if "replies" in given:
        given["replies"] = read_replies_option(given["replies"])
    if "trace" in given:
        given["trace"] = True
    return given


def read_replies_option(file: Path | None) -> tuple[str, ...] | None:
    """The closed set of --replies."""
    return None if file is None else read_replies(file)


def decoding_options(defaults: DecodingOptions, **given: Any) -> DecodingOptions:
    """`defaults` with what was given on the command line. A length penalty that belongs to another
    normalization than the one asked for does not stay, and as many replies are drawn as are to be shown."""
    changed = {name: value for name, value in given.items() if value is not None}
    if changed.get("sample"):
        changed.setdefault("beam", changed.get("n_best", 1))
    if changed.get("normalize", "gnmt") != "gnmt":
        changed.setdefault("length_penalty", None)
    if "beam" in changed and "n_best" not in changed:
        changed["n_best"] = min(defaults.n_best, changed["beam"])
    return dataclasses.replace(defaults, **changed)


def ask_passphrase(key: Path) -> Callable[[], str] | None:
    """What asks for the passphrase of a private key, on the terminal; None where there is none."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    return lambda: str(typer.prompt(f"passphrase of {key}", hide_input=True, err=True))


def set_torch_threads(threads: int | None) -> None:
    """Let PyTorch compute with so many threads; None leaves them as they are."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def torch_device(device: str) -> Literal["cpu", "cuda"]:
    """What `auto`, `cpu` or `cuda` means to PyTorch on this machine."""
    import torch

    if device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise DeviceError("device cuda cannot be used: this PyTorch finds no CUDA device")
    return "cpu"
