"""A study file: read with care, written back complete, and the same again when it is
read back."""

from dataclasses import replace

import pytest

from cingulum.errors import InputError
from cingulum.pipeline.config import (
    DatasetConfig,
    FeatureConfig,
    PredictionConfig,
    StudyConfig,
    read_study,
    to_toml,
    with_options,
)


def file(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text)
    return path


def test_what_is_written_is_read_back(tmp_path):
    study = StudyConfig(
        title='Back pain, "early" – 50 %\n',
        dataset=DatasetConfig(
            ("01", "02"), filters={"bold": {"task": "rest", "run": [1, 2]}}
        ),
        features=FeatureConfig(("rcbf",), low_pass=0.1),
        prediction=PredictionConfig(
            confounds=("age",), stop_after=20, fuse_controls=True
        ),
    )
    assert read_study(file(tmp_path, to_toml(study))) == study
    assert (
        read_study(file(tmp_path, to_toml(StudyConfig())))
        == StudyConfig()
        == read_study(file(tmp_path, ""))
    )


def test_an_entity_may_have_to_be_absent(tmp_path):
    """JSON's null has no word in TOML: false, and it comes back as null."""
    from cingulum.io.visit import checked_filters

    study = StudyConfig(
        dataset=DatasetConfig(filters={"bold": {"echo": None, "task": "rest"}})
    )
    filters = read_study(file(tmp_path, to_toml(study))).dataset.filters
    assert checked_filters(filters, "x") == {"bold": {"echo": None, "task": "rest"}}


def test_a_connectome_lies_beside_the_study(tmp_path):
    study = read_study(file(tmp_path, '[features]\nconnectome = "sc.tsv"'))
    assert study.features.connectome == str(tmp_path / "sc.tsv")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[prediction]\npermutation = 99",
            "[prediction] has no setting 'permutation'. Did you mean permutations?",
        ),
        (
            "[predicton]\nseed = 1",
            "has no setting 'predicton'. Did you mean prediction?",
        ),
        ("[features]\nfusion = 'kernels'", "It belongs into [prediction]."),
        (
            "[prediction]\nfusion = 'stackd'",
            "takes stacked, kernels, log_odds; got 'stackd'. Did you mean stacked?",
        ),
        ("[prediction]\npermutations = 5", "permutations must be at least 19; got 5"),
        ("[prediction]\npermutations = 99.5", "must be a whole number; got 99.5"),
        ("[prediction]\npermutations = true", "must be a whole number; got True"),
        ("[prediction]\nfuse_controls = 1", "must be true or false; got 1"),
        ("[model]\nholdout = 0.95", "must be 0.0 to 0.9; got 0.95"),
        ("[features]\nmodalities = ['s1con']", "Did you mean s1conn?"),
        ("features = 3", "[features] must be a table of settings; got 3"),
        ("[dataset]\nparticipants = [1]", "must be a text; got 1"),
        ("title = ", "is no TOML"),
    ],
)
def test_mistakes_are_named(tmp_path, text, said):
    with pytest.raises(InputError) as error:
        read_study(file(tmp_path, text))
    assert said in str(error.value)


def test_options_win_and_are_checked_alike():
    study = with_options(
        StudyConfig(),
        {"prediction.permutations": 99, "title": "x", "features.modalities": ["rcbf"]},
    )
    assert study == replace(
        StudyConfig(title="x"),
        features=FeatureConfig(("rcbf",)),
        prediction=PredictionConfig(permutations=99),
    )
    with pytest.raises(InputError, match="at least 19"):
        with_options(StudyConfig(), {"prediction.permutations": 3})


def test_a_filter_is_a_table(tmp_path):
    with pytest.raises(InputError, match="filters must be a table; got 3"):
        read_study(file(tmp_path, "[dataset]\nfilters = 3"))


def test_a_study_is_written_as_before():
    """With a comment above every option; what is not set is a comment, too."""
    text = to_toml(StudyConfig())
    assert text.startswith("# Everything this study did. `cingulum run BIDS_DIR")
    assert "\n\n[dataset]\n# labels, with or without sub-; none: everybody\n" in text
    assert "\n# leave out volumes above this displacement, mm\n# scrub =\n" in text
