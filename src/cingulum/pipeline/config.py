"""A study as one TOML file: what is measured, asked and shown; read with care, and
written back complete."""

from __future__ import annotations

import difflib
import json
import math
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from cingulum.errors import InputError

MODALITIES = ("s1conn", "rcbf", "hfhrv", "mechanism")


def setting(
    default: Any,
    meaning: str,
    *,
    choices: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A setting with its default, meaning and limits: said here once, for the file, the
    command line and the docs."""
    told = {"meaning": meaning, "choices": tuple(choices), "low": low, "high": high}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=told)
    return field(default=default, metadata=told)


@dataclass(frozen=True)
class DatasetConfig:
    """Which recordings."""

    participants: tuple[str, ...] = setting(
        (), "labels, with or without sub-; none: everybody"
    )
    sessions: tuple[str, ...] = setting((), "labels, with or without ses-; none: all")
    filters: Mapping[str, Any] = setting(
        {}, "which of several files, as in a BIDS filter file: bold = { task = 'rest' }"
    )


@dataclass(frozen=True)
class FeatureConfig:
    """What is measured of every visit, and how its recordings are treated."""

    modalities: tuple[str, ...] = setting(
        MODALITIES, "features that predict", choices=(*MODALITIES, "physiology")
    )
    atlas: str = setting(
        "pain52",
        "regions of the fitted brains",
        choices=("pain52", "power264", "dosenbach160", "seitzman300"),
    )
    connectome: str | None = setting(
        None,
        "file of connection weights in the order of the atlas, beside this file; none: "
        "a distance rule",
    )
    strategy: str = setting(
        "basic",
        "regressed out of BOLD",
        choices=("basic", "friston24", "compcor", "gsr", "scrubbing", "aroma", "none"),
    )
    scrub: float | None = setting(
        None, "leave out volumes above this displacement, mm", low=0.0
    )
    low_pass: float | None = setting(None, "Butterworth low-pass of BOLD, Hz", low=0.0)
    high_pass: float | None = setting(
        None, "Butterworth high-pass of BOLD, Hz, instead of slow cosines", low=0.0
    )


@dataclass(frozen=True)
class PredictionConfig:
    """How the prediction is made and tested."""

    fusion: str = setting(
        "stacked",
        "of modalities: a machine on decisions (as published), kernels, adding "
        "log-odds",
        choices=("stacked", "kernels", "log_odds"),
    )
    missing: str = setting(
        "complete",
        "participants that lack a modality: left out, or kept, by log-odds of the rest",
        choices=("complete", "log_odds"),
    )
    confounds: tuple[str, ...] = setting(
        (),
        "regressed out in every fold: motion, rate, breath, or columns of "
        "participants.tsv (age, sex)",
    )
    fuse_controls: bool = setting(
        False,
        "let motion, heart rate and breathing join the fusion, as in the supplement of "
        "2019",
    )
    site: str | None = setting(
        None, "column of participants.tsv: ratings are exchanged inside sites only"
    )
    permutations: int = setting(5000, "sign flips of whole patients", low=19)
    stop_after: int | None = setting(
        None, "stop once so many permutations were as good as each model", low=1
    )
    seed: int = setting(0, "of permutations and bootstrap", low=0)


@dataclass(frozen=True)
class ModelConfig:
    """How a brain is fitted to every visit, where that is the analysis."""

    holdout: float = setting(
        0.5,
        "share of each recording, at its end, that the fit never sees",
        low=0.0,
        high=0.9,
    )
    minutes: float = setting(
        16.0, "free-running simulation of each fitted brain", low=1.0
    )
    seed: int = setting(0, "of the simulation", low=0)


@dataclass(frozen=True)
class StudyConfig:
    """A whole study; see the parts for their settings."""

    title: str = setting("", "of the report; none: made from the cohort")
    analysis: str = setting(
        "prediction",
        "prediction: which of two visits hurt more; model: a brain fitted to every "
        "visit, with its controls",
        choices=("prediction", "model"),
    )
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    prediction: PredictionConfig = field(default_factory=PredictionConfig)
    model: ModelConfig = field(default_factory=ModelConfig)


PARTS: dict[str, type] = {
    "dataset": DatasetConfig,
    "features": FeatureConfig,
    "prediction": PredictionConfig,
    "model": ModelConfig,
}


def read_study(path: Path) -> StudyConfig:
    """A study from its file; what is not said has its default.

    Raises InputError for what is no TOML, an unknown setting (with the nearest known
    one), or an unfit value.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as trouble:
        raise InputError(
            f"{path}: cannot be read ({trouble.strerror or trouble})."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as trouble:
        raise InputError(
            f"{path}: is no TOML ({trouble}). docs/study.md shows one."
        ) from None
    given = {}
    for name, value in content.items():
        if name in PARTS:
            if not isinstance(value, dict):
                raise InputError(
                    f"{path}: [{name}] must be a table of settings; came {value!r}."
                )
            given[name] = PARTS[name](
                **_checked(PARTS[name], value, f"{path}: [{name}]")
            )
        else:
            given |= _checked(StudyConfig, {name: value}, str(path))
    study = StudyConfig(**given)
    if study.features.connectome is None:
        return study
    beside = str(Path(path).parent / study.features.connectome)
    return replace(study, features=replace(study.features, connectome=beside))


def changed(
    study: StudyConfig, given: Mapping[str, Any], source: str = "command line"
) -> StudyConfig:
    """The study with other values, by dotted names such as `prediction.permutations`;
    checked like those of a file."""
    for name, value in given.items():
        part, _, key = name.rpartition(".")
        if part:
            inner = getattr(study, part)
            found = _checked(type(inner), {key: value}, f"{source}: [{part}]")
            study = replace(study, **{part: replace(inner, **found)})
        else:
            study = replace(study, **_checked(StudyConfig, {key: value}, source))
    return study


def _checked(kind: type, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = {one.name: one for one in fields(kind)}
    hints = get_type_hints(kind)
    found = {}
    for name, value in given.items():
        if name not in known:
            raise InputError(
                f"{where} has no setting {name!r}. {_nearest(name, known, kind)}"
            )
        found[name] = _value(known[name], hints[name], value, f"{where} {name}")
    return found


def _nearest(name: str, known: Mapping[str, Field], kind: type) -> str:
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"Did you mean {near[0]}?"
    elsewhere = [
        part
        for part, other in PARTS.items()
        if other is not kind and name in {f.name for f in fields(other)}
    ]
    if elsewhere:
        return f"It belongs into [{elsewhere[0]}]."
    return f"It has: {', '.join(known)}."


def _value(one: Field, hint: Any, value: Any, where: str) -> Any:
    told = one.metadata
    found = _typed(hint, value, where)
    for single in found if isinstance(found, tuple) else (found,):
        if told["choices"] and single not in told["choices"]:
            near = difflib.get_close_matches(str(single), told["choices"], 1)
            hint_text = f" Did you mean {near[0]}?" if near else ""
            raise InputError(
                f"{where} takes {', '.join(told['choices'])}; came "
                f"{single!r}.{hint_text}"
            )
        if isinstance(single, int | float) and not isinstance(single, bool):
            low, high = told["low"], told["high"]
            if not math.isfinite(single):
                raise InputError(f"{where} must be a finite number; came {single}.")
            if (
                not (-float("inf") if low is None else low)
                <= single
                <= (float("inf") if high is None else high)
            ):
                limits = f"at least {low}" if high is None else f"{low} to {high}"
                raise InputError(f"{where} must be {limits}; came {single}.")
    return found


def _typed(hint: Any, value: Any, where: str) -> Any:
    """The value in the type of its setting; whole numbers will do for floats, one text
    for a list of one."""
    if get_origin(hint) in (Union, types.UnionType):
        if value is None:
            return None
        return _typed(
            next(one for one in get_args(hint) if one is not type(None)), value, where
        )
    if get_origin(hint) is tuple:
        listed = value if isinstance(value, list | tuple) else [value]
        return tuple(_typed(get_args(hint)[0], one, where) for one in listed)
    if get_origin(hint) is not None and isinstance(value, Mapping):
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint if isinstance(hint, type) else object) or (
        hint is int and isinstance(value, bool)
    ):
        names = {
            str: "a text",
            int: "a whole number",
            float: "a number",
            bool: "true or false",
        }
        raise InputError(
            f"{where} must be {names.get(hint, 'a table')}; came {value!r}."
        )
    return value


def written(study: StudyConfig) -> str:
    """The study as TOML with every setting and its meaning; what is not set stands
    there as a comment."""
    lines = [
        "# Everything this study did. `cingulum run BIDS_DIR OUT_DIR group --study` "
        "this file does it again.",
        "",
    ]
    lines += [
        text
        for one in fields(StudyConfig)
        if one.name not in PARTS
        for text in _line(one, getattr(study, one.name))
    ]
    for name, kind in PARTS.items():
        lines += ["", f"[{name}]"]
        lines += [
            text
            for one in fields(kind)
            for text in _line(one, getattr(getattr(study, name), one.name))
        ]
    return "\n".join(lines) + "\n"


def _line(one: Field, value: Any) -> list[str]:
    told = one.metadata
    of = f": {', '.join(told['choices'])}" if told["choices"] else ""
    shown = f"# {one.name} =" if value is None else f"{one.name} = {toml(value)}"
    return [f"# {told['meaning']}{of}", shown]


def toml(value: Any) -> str:
    """A value as TOML writes it; it has no null, so an entity that must be absent is
    false."""
    if value is None:
        return "false"
    if isinstance(value, Mapping):
        return (
            "{ "
            + ", ".join(f"{json.dumps(str(k))} = {toml(v)}" for k, v in value.items())
            + " }"
            if value
            else "{}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace(
        "\x7f", "\\u007f"
    )  # texts, numbers and truth values look the same in both


def default_of(one: Field) -> Any:
    """The default of a setting."""
    return one.default if one.default is not MISSING else one.default_factory()  # type: ignore[misc,operator]


def setting_words(one: Field) -> str:
    """What a setting means, its choices and its default, for the help of the command
    line."""
    told, default = one.metadata, default_of(one)
    of = f": {', '.join(told['choices'])}" if told["choices"] else ""
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{told['meaning']}{of}".replace("%", "%%") + (
        "" if shown in ("", None, False) else f" (default: {shown})"
    )
