"""A README.md chooses among the files of its own folder, and nowhere else."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_sere.training.corpora.configs import configured_files
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.errors import RunError

from .helpers import error_of, fill, write_parquet

NAMES = ["de/test-0.parquet", "de/train-0.parquet", "de/train-1.parquet", "it/train-0.parquet"]


@pytest.fixture
def configured(tmp_path):
    """(YAML under `configs:`, config=None) -> the files that `configured_files` chooses among NAMES."""

    def configured(text: str, config: str | None = None):
        fill(tmp_path, texts={"README.md": f"---\nconfigs:\n{text}\n---\n"})
        return configured_files("set", tmp_path, NAMES, config)

    return configured


@pytest.mark.parametrize(
    ("text", "config", "files"),
    [
        ("- data_files: de/*", None, {"train": NAMES[:3]}),
        ("- data_files: ['./de/train-*', it/**]", None, {"train": [NAMES[1], NAMES[2], NAMES[3]]}),
        ("- data_files: [{split: test, path: 'de/test-?.*'}, {split: train, path: ['de/train-[0-9].parquet']}]", None,
         {"test": NAMES[:1], "train": NAMES[1:3]}),
        ("- data_files: {test: '**/test*'}", None, {"test": NAMES[:1]}),
        ("- {config_name: de, data_dir: de}\n- {config_name: it, data_dir: it}", "it", {"train": NAMES[3:]}),
        ("- {config_name: de, data_dir: de, default: true}\n- {config_name: it, data_dir: it}", None,
         {"train": NAMES[:3]}),
        ("- config_name: de", None, None),
        ("- 5", None, None),
    ],
)  # fmt: skip
def test_forms(configured, text, config, files):
    assert configured(text, config) == files


@pytest.mark.parametrize(
    "pattern",
    ["../x.parquet", "/etc/*", "http://127.0.0.1/x.parquet", "hf://datasets/a/b/x", "de/../../x", "C:/x", "s3://x/**",
     "..\\\\x", "zip://x::http://y", "~/x", "$HOME/x"],
)  # fmt: skip
@pytest.mark.parametrize("form", ['- data_files: "{}"', '- data_files: [{{split: train, path: ["{}"]}}]',
                                  '- {{data_files: "*", data_dir: "{}"}}'])  # fmt: skip
def test_nothing_outside_the_folder_is_followed(configured, pattern, form):
    with pytest.raises(RunError, match=r"^README\.md of set takes data from .*(is not followed|of this name)"):
        configured(form.format(pattern))


@pytest.mark.parametrize(
    ("text", "config", "message"),
    [
        (
            "- {config_name: de}\n- {config_name: it}",
            None,
            "the configurations de, it: choose one with --source_config",
        ),
        ("- config_name: de", "it", "no configuration 'it', only de"),
        ("- data_files: 5", None, "data_files must be file names"),
        ("- data_files: [{split: 1, path: x}]", None, "data_files must be file names"),
    ],
)
def test_what_cannot_be_chosen(configured, text, config, message):
    with pytest.raises(RunError, match=message):
        configured(text, config)


words = st.sampled_from(["data_files", "data_dir", "split", "path", "config_name", "default", "train"])
values = st.recursive(
    st.none() | st.booleans() | st.text(max_size=6), lambda part: st.lists(part) | st.dictionaries(words, part)
)


@given(values)
def test_any_configs_are_read_or_refused_in_one_line(configs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modeling_sere.training.corpora.configs.front_matter", lambda *_: {"configs": configs})
        try:
            found = configured_files("set", None, NAMES, None)
        except RunError as error:
            assert str(error).isprintable()
        else:
            assert found is None or {name for part in found.values() for name in part} <= set(NAMES)


def test_a_folder_whose_readme_points_elsewhere(tmp_path, cache):
    write_parquet(tmp_path / "away")
    root = write_parquet(tmp_path / "set", rows=4)
    for path in ("../away/*.parquet", str(tmp_path / "away" / "*"), "http://127.0.0.1:9/x.parquet"):
        fill(root, texts={"README.md": f"---\nconfigs:\n- data_files: {path}\n---\n"})
        assert "outside the folder, which is not followed" in error_of(root)
    fill(root, texts={"README.md": "---\nconfigs:\n- {config_name: it, data_files: '*.parquet'}\n---\n"})
    assert len(load_corpus(root)) == len(load_corpus(root, config="it")) == 4
    (root / "x.parquet").symlink_to(tmp_path / "away" / "train-00000-of-00001.parquet")
    assert "symbolic link out of the folder" in error_of(root)


def test_what_datasets_would_read_beside_the_readme_is_not_followed(tmp_path, cache):
    write_parquet(tmp_path / "away")
    root = write_parquet(tmp_path / "set", rows=4)
    yaml = "configs:\n- config_name: default\n  data_files: ../away/*.parquet\n"
    fill(root, texts={".huggingface.yaml": yaml, "set.py": "raise SystemExit"})
    assert len(load_corpus(root)) == 4


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_either_unicode_form(tmp_path, forms):
    there, given = (unicodedata.normalize(form, "zażółć") for form in forms)
    configs = f"- config_name: {given}\n  data_files: {given}*\n- config_name: other\n  data_files: none"
    fill(tmp_path, texts={"README.md": f"---\nconfigs:\n{configs}\n---\n"})
    names = [f"{there}.parquet"]
    assert configured_files("set", tmp_path, names, there.upper()) == {"train": names}


def test_no_names(configured):
    with pytest.raises(RunError, match="data_files that name no file"):
        configured("- data_files: []")
