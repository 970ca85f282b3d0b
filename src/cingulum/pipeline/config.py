"""A study as one TOML file: which recordings, which features, which analysis. Read with
checks, and written back with every option.

Pydantic, attrs with cattrs, and tomlkit were measured and not adopted: see
docs/decisions/006-libraries.md.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from cingulum.errors import InputError
from cingulum.features import default_predictor_names, predictor_names

# NumPy and the readers of images wait until a study is written: `cingulum --help` and
# the error about a mistyped option need this module only, and should come at once.
if TYPE_CHECKING:
    import numpy as np

    from cingulum.report.manifest import ReportManifest

Values = Mapping[str, Any]
"""What a user wrote, by name: not checked yet."""


Choices = Sequence[str] | Callable[[], Sequence[str]]
"""What an option may be; a function where more can be registered, as features can."""


def option(
    default: Any,
    meaning: str,
    *,
    choices: Choices = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A field with its default, meaning and limits, declared once for the study file,
    the command line and the documentation."""
    # Choices that can grow are read when they are needed: a function stays one.
    metadata = {
        "meaning": meaning,
        "choices": choices if callable(choices) else tuple(choices),
        "low": low,
        "high": high,
    }
    # A dictionary can be changed, so that every study gets its own.
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DatasetConfig:
    """Which recordings."""

    participants: tuple[str, ...] = option(
        (), "labels, with or without sub-; none: everybody"
    )
    sessions: tuple[str, ...] = option((), "labels, with or without ses-; none: all")
    filters: Values = option(
        {}, "which of several files, as in a BIDS filter file: bold = { task = 'rest' }"
    )


@dataclass(frozen=True)
class FeatureConfig:
    """What is measured of every visit, and how its recordings are treated."""

    modalities: tuple[str, ...] = option(
        default_predictor_names(), "features that predict", choices=predictor_names
    )
    atlas: str = option(
        "pain52",
        "regions of the fitted brains: one of the atlases that `cingulum features "
        "--help` lists, a NIfTI image with its .tsv beside it, or the label (seg-, "
        "atlas-) of tables in the dataset, as XCP-D writes them",
    )
    connectome: str | None = option(
        None,
        "file of connection weights in the order of the atlas, beside this file; none: "
        "a distance rule",
    )
    strategy: str = option(
        "basic",
        "regressed out of BOLD",
        choices=("basic", "friston24", "compcor", "gsr", "scrubbing", "aroma", "none"),
    )
    runs: str = option(
        "joined",
        "how several runs of a visit become one: joined, each standardised by itself, "
        "or mean Fisher z weighted by kept volumes",
        choices=("joined", "fisher"),
    )
    scrub: float | None = option(
        None, "leave out volumes above this displacement, mm", low=0.0
    )
    low_pass: float | None = option(None, "Butterworth low-pass of BOLD, Hz", low=0.0)
    high_pass: float | None = option(
        None, "Butterworth high-pass of BOLD, Hz, instead of slow cosines", low=0.0
    )


@dataclass(frozen=True)
class PredictionConfig:
    """How the prediction is made and tested."""

    fusion: str = option(
        "stacked",
        "of modalities: a machine on decisions (as published), kernels, adding "
        "log-odds",
        choices=("stacked", "kernels", "log_odds"),
    )
    missing: str = option(
        "complete",
        "participants that lack a modality: left out, or kept, by log-odds of the rest",
        choices=("complete", "log_odds"),
    )
    outcome: str = option(
        "pain",
        "what is rated at each visit: a column of the sessions tables, of a table in "
        "phenotype/ (table.column where several have it) or of participants.tsv with a "
        "row a visit",
    )
    outcome_range: tuple[float, ...] = option(
        (0.0, 100.0), "lowest and highest possible outcome"
    )
    confounds: tuple[str, ...] = option(
        (),
        "regressed out in every fold: motion, rate, breath, or columns of "
        "participants.tsv (age, sex)",
    )
    fuse_controls: bool = option(
        False,
        "let motion, heart rate and breathing join the fusion, as in the supplement of "
        "2019",
    )
    site: str | None = option(
        None, "column of participants.tsv: ratings are exchanged inside sites only"
    )
    family: str | None = option(
        None,
        "column of participants.tsv: members of one family are left out together, "
        "exchanged as a whole, and count as one person in intervals",
    )
    permutations: int = option(5000, "sign flips of whole patients", low=19)
    stop_after: int | None = option(
        None, "stop once so many permutations were as good as each model", low=1
    )
    seed: int = option(0, "of permutations", low=0)


@dataclass(frozen=True)
class ModelConfig:
    """How a brain is fitted to every visit, where that is the analysis."""

    holdout: float = option(
        0.5,
        "share of each recording, at its end, that the fit never sees",
        low=0.0,
        high=0.9,
    )
    minutes: float = option(
        16.0, "free-running simulation of each fitted brain", low=1.0
    )
    seed: int = option(0, "of the simulation", low=0)


@dataclass(frozen=True)
class StudyConfig:
    """A whole study; the options of each section are in its own class."""

    title: str = option("", "of the report; none: made from the cohort")
    analysis: str = option(
        "prediction",
        "prediction: which of two visits hurt more; model: a brain fitted to every "
        "visit, with its controls",
        choices=("prediction", "model"),
    )
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    prediction: PredictionConfig = field(default_factory=PredictionConfig)
    model: ModelConfig = field(default_factory=ModelConfig)


SECTIONS: dict[str, type] = {
    "dataset": DatasetConfig,
    "features": FeatureConfig,
    "prediction": PredictionConfig,
    "model": ModelConfig,
}
"""Tables of a study file; the options of `StudyConfig` itself come before them."""

PLAIN_TYPES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
}
"""Types of an option, in the words of the error messages."""


@dataclass(frozen=True)
class Option:
    """An option of a study, as it was declared.

    item_type: one of `PLAIN_TYPES`; of each item where the option is a list
    low, high: limits of a number, both allowed
    """

    name: str
    item_type: type
    is_list: bool
    may_be_none: bool
    default: Any
    meaning: str
    choices: tuple[str, ...]
    low: float | None
    high: float | None

    @property
    def description(self) -> str:
        """The meaning, and the choices where there are some."""
        if not self.choices:
            return self.meaning
        return f"{self.meaning}: {', '.join(self.choices)}"

    @property
    def limits(self) -> str:
        """The limits in words; of an option that has a lower one, at least."""
        if self.high is None:
            return f"at least {self.low}"
        return f"{self.low} to {self.high}"

    def contains(self, number: float) -> bool:
        """Whether a number is within the limits."""
        if self.low is not None and number < self.low:
            return False
        return self.high is None or number <= self.high

    @property
    def help(self) -> str:
        """The description and the default, for argparse."""
        # argparse formats help with %, so that a percent sign is written twice.
        text = self.description.replace("%", "%%")
        if not self.default:
            return text
        default = " ".join(map(str, self.default)) if self.is_list else self.default
        return f"{text} (default: {default})"


def options(config_class: type) -> tuple[Option, ...]:
    """The options of a section or of `StudyConfig`, in the order of the file."""
    # Annotations are texts in this module; this makes types of them.
    types = get_type_hints(config_class)
    # Sections are fields of `StudyConfig` too, but no options.
    own = [d for d in fields(config_class) if d.name not in SECTIONS]
    return tuple(_option(d, types[d.name]) for d in own)


def _option(declaration: Field, annotation: Any) -> Option:
    choices = _choices(declaration)
    return Option(
        declaration.name,
        _item_type(annotation),
        is_list=get_origin(annotation) is tuple,
        may_be_none=NoneType in get_args(annotation),
        default=_default(declaration),
        **{**declaration.metadata, "choices": choices},
    )


def _item_type(annotation: Any) -> type:
    """The type of an option's value, or of each item of a list."""
    if get_origin(annotation) is Mapping:
        return dict
    alternatives = get_args(annotation)
    # `str` of `tuple[str, ...]`, and of `str | None`; `str` itself has none.
    if alternatives:
        return alternatives[0]
    return annotation


def _choices(declaration: Field) -> tuple[str, ...]:
    """What an option may be now."""
    choices = declaration.metadata["choices"]
    if callable(choices):
        return tuple(choices())
    return tuple(choices)


def _default(declaration: Field) -> Any:
    if declaration.default_factory is not MISSING:
        return declaration.default_factory()
    return declaration.default


def read_study(path: Path) -> StudyConfig:
    """A study from its file; an option that is not set has its default.

    A connectome, and the image of an atlas, are looked for beside the file. Raises
    InputError for invalid TOML, an unknown option (with the nearest known one) or an
    invalid value.
    """
    options_by_name = _dotted(_read_toml(path), path)
    study = with_options(StudyConfig(), options_by_name, str(path))
    beside = Path(path).parent / study.features.atlas
    if beside.is_file():
        study = with_atlas(study, str(beside))
    if study.features.connectome is None:
        return study
    # An absolute path stays as it is.
    return with_connectome(study, Path(path).parent / study.features.connectome)


def _read_toml(path: Path) -> Values:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be read ({reason}).") from None
    # Beside its own errors, the parser stumbles over deep nesting and long numbers.
    except Exception as error:
        raise InputError(
            f"{path}: is no TOML ({error}). docs/study.md shows one."
        ) from None


def _dotted(content: Values, path: Path) -> Values:
    """Options of a file by dotted names: `prediction.permutations`."""
    return dict(_dotted_pairs(content, path))


def _dotted_pairs(content: Values, path: Path) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if name not in SECTIONS:
            yield name, value
            continue
        _check_table(name, value, path)
        for key, inner in value.items():
            yield f"{name}.{key}", inner


def _check_table(section: str, value: Any, path: Path) -> None:
    # `features = 3` is good TOML.
    if not isinstance(value, dict):
        raise InputError(
            f"{path}: [{section}] must be a table of settings; got {value!r}."
        )


def with_options(
    study: StudyConfig, values: Values, source: str = "command line"
) -> StudyConfig:
    """The study with other values, by dotted names such as `prediction.permutations`.

    source: where the values were written, for the error messages

    Raises InputError for an unknown option or an invalid value.
    """
    for name, value in values.items():
        section, _, key = name.partition(".")
        if section in SECTIONS:
            where = f"{source}: [{section}]"
            config = _with_option(getattr(study, section), key, value, where)
            study = replace(study, **{section: config})
        else:
            study = _with_option(study, name, value, source)
    return study


def _with_option(config: Any, name: str, value: Any, where: str) -> Any:
    """A section, or the study itself, with another value."""
    checked = _checked(type(config), name, value, where)
    return replace(config, **{name: checked})


def with_atlas(study: StudyConfig, atlas: str) -> StudyConfig:
    """The study with its atlas, where that is a file, at another path."""
    return replace(study, features=replace(study.features, atlas=atlas))


def with_connectome(study: StudyConfig, path: Path | str) -> StudyConfig:
    """The study with its connectome at another path."""
    return replace(study, features=replace(study.features, connectome=str(path)))


def _checked(config_class: type, name: str, value: Any, where: str) -> Any:
    """A value in the type of its option and within its limits."""
    for known in options(config_class):
        if known.name == name:
            return _checked_value(known, value, f"{where} {name}")
    hint = _nearest(config_class, name)
    raise InputError(f"{where} has no setting {name!r}. {hint}")


def _nearest(config_class: type, name: str) -> str:
    """What may have been meant by an unknown name."""
    known = [declaration.name for declaration in fields(config_class)]
    similar = difflib.get_close_matches(name, known, 1)
    if similar:
        return f"Did you mean {similar[0]}?"
    # A right name under the wrong heading is the other common mistake.
    section = _section_with(name)
    if section:
        return f"It belongs into [{section}]."
    return f"It has: {', '.join(known)}."


def _section_with(name: str) -> str | None:
    for section, config_class in SECTIONS.items():
        if name in [option.name for option in options(config_class)]:
            return section
    return None


def _checked_value(option: Option, value: Any, where: str) -> Any:
    if value is None and option.may_be_none:
        return None
    if not option.is_list:
        return _checked_item(option, value, where)
    # A single text will do for a list with one item.
    if not isinstance(value, list | tuple):
        return (_checked_item(option, value, where),)
    return tuple(_checked_item(option, item, where) for item in value)


def _checked_item(option: Option, value: Any, where: str) -> Any:
    item = _converted(option, value, where)
    if option.choices and item not in option.choices:
        _refuse_choice(option, item, where)
    if option.item_type in (int, float):
        _check_range(option, item, where)
    return item


def _converted(option: Option, value: Any, where: str) -> Any:
    """The value in the type of its option; a whole number will do for a number."""
    wanted = option.item_type
    # True and False are whole numbers in Python, but nobody means them as such.
    is_bool = isinstance(value, bool)
    if wanted is float and isinstance(value, int) and not is_bool:
        return _as_float(value, where)
    if wanted is dict and isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, wanted) and is_bool == (wanted is bool):
        return value
    raise InputError(f"{where} must be {PLAIN_TYPES[wanted]}; got {value!r}.")


def _as_float(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InputError(f"{where} must be a finite number; got {value:#x}.") from None


def _refuse_choice(option: Option, item: Any, where: str) -> None:
    message = f"{where} takes {', '.join(option.choices)}; got {item!r}."
    similar = difflib.get_close_matches(str(item), option.choices, 1)
    if similar:
        message += f" Did you mean {similar[0]}?"
    raise InputError(message)


def _check_range(option: Option, number: float, where: str) -> None:
    _check_finite(number, where)
    if not option.contains(number):
        raise InputError(f"{where} must be {option.limits}; got {number}.")


# TOML has nan and inf, and NaN would pass every comparison.
def _check_finite(number: float, where: str) -> None:
    # A whole number may be longer than any number that can be computed with.
    if isinstance(number, int) and abs(number) > LARGEST_WHOLE_NUMBER:
        raise InputError(f"{where} must be below 2^53; got {number:#x}.")
    if not math.isfinite(number):
        raise InputError(f"{where} must be a finite number; got {number}.")


LARGEST_WHOLE_NUMBER = 2**53
"""Above it, numbers are no longer told apart by floating point."""

HEADER = (
    "# Everything this study did. `cingulum run BIDS_DIR OUT_DIR group --study` this "
    "file does it again."
)


def to_toml(study: StudyConfig) -> str:
    """The study as TOML, with every option and its meaning; an option that is not set
    is a comment."""
    lines = [HEADER, "", *_option_lines(study)]
    for section in SECTIONS:
        lines += _section_lines(section, getattr(study, section))
    return "\n".join(lines) + "\n"


def _section_lines(section: str, config: Any) -> list[str]:
    return ["", f"[{section}]", *_option_lines(config)]


def _option_lines(config: Any) -> Iterator[str]:
    config_class: type = type(config)
    for declared in options(config_class):
        value = getattr(config, declared.name)
        yield f"# {declared.description}"
        if value is None:
            yield f"# {declared.name} ="
        else:
            yield f"{declared.name} = {toml_value(value)}"


def toml_value(value: Any) -> str:
    """A value as TOML writes it.

    TOML has no null: an entity of a filter that must be absent is written as false.
    """
    if value is None:
        return "false"
    if isinstance(value, Mapping):
        return _inline_table(value)
    if isinstance(value, list | tuple):
        items = [toml_value(item) for item in value]
        return f"[{', '.join(items)}]"
    # JSON writes texts, numbers and truth values as TOML does, but for one control
    # character, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline_table(table: Values) -> str:
    pairs = []
    for key, value in table.items():
        pairs.append(f"{json.dumps(str(key))} = {toml_value(value)}")
    # Without the two spaces that the format below would leave.
    if not pairs:
        return "{}"
    return f"{{ {', '.join(pairs)} }}"


def write_study(study: StudyConfig, manifest: ReportManifest) -> None:
    """Write study.toml, with a copy of its connectome beside it."""
    if study.features.connectome:
        study = _with_copied_connectome(study, study.features.connectome, manifest)
    # Without its folder, whose name may be that of a person.
    study = with_atlas(study, Path(study.features.atlas).name)
    manifest.bytes("study.toml", to_toml(study).encode())


def _with_copied_connectome(
    study: StudyConfig, connectome: str, manifest: ReportManifest
) -> StudyConfig:
    from cingulum.io.files import read_square_matrix

    # A copy, so that the folder is complete wherever it is moved.
    matrix, names = read_square_matrix(Path(connectome))
    if names is None:
        manifest.bytes("connectome.npy", _npy(matrix))
        return with_connectome(study, "connectome.npy")
    # Names decide which weights are whose, so that they stay.
    manifest.bytes("connectome.tsv", _named_table(matrix, names))
    return with_connectome(study, "connectome.tsv")


def _npy(matrix: np.ndarray) -> bytes:
    import io

    import numpy as np

    content = io.BytesIO()
    np.save(content, matrix, allow_pickle=False)
    return content.getvalue()


def _named_table(matrix: np.ndarray, names: Sequence[str]) -> bytes:
    import pandas as pd

    table = pd.DataFrame(matrix, columns=list(names))
    return table.to_csv(sep="\t", index=False).encode()
