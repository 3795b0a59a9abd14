"""Configurations of a local dataset: which of its files the README.md names as whose data."""

import re
from pathlib import Path
from typing import Any
from unicodedata import normalize

from modeling_sere.training.corpora.names import listed, normal_name, shown
from modeling_sere.training.corpora.readme import front_matter
from modeling_sere.training.errors import RunError


def configured_files(corpus: str, folder: Path, names: list[str], config: str | None) -> dict[str, list[str]] | None:
    """Return the files of a configuration by split, of those in the folder; None if the README.md names no files.

    Args:
        names: the files of data in the folder, relative to it. config: which configuration; without it the default one.

    Raises:
        RunError: no such configuration, several and none is chosen, or data outside the folder, which is not followed.
    """
    configs = front_matter(str(folder), "dataset").get("configs")
    configs = [entry for entry in configs if isinstance(entry, dict)] if isinstance(configs, list) else []
    if not configs:
        if config is not None:
            raise RunError(f"{corpus} is a local folder without configurations in a README.md: leave {config!r} out")
        return None
    entry = _chosen(corpus, configs, config)
    data_dir = entry.get("data_dir")
    if entry.get("data_files") is None and data_dir is None:
        return None
    files: dict[str, list[str]] = {}
    for split, pattern in _patterns(entry.get("data_files", "**")):
        pattern = pattern if data_dir is None else f"{data_dir}/{pattern}"
        if re.match(r"[\\/]|[A-Za-z]:", pattern) or "://" in pattern or ".." in re.split(r"[\\/]", pattern):
            raise RunError(
                f"README.md of {corpus} takes data from {shown(pattern)}, outside the folder, which is not followed:"
                " put the files into the folder and mend its configs"
            )
        form = re.compile(_regular_expression(normalize("NFC", pattern)))
        found = [name for name in names if form.fullmatch(normalize("NFC", name))]
        if not found:
            raise RunError(
                f"README.md of {corpus} takes data from {shown(pattern)}, but there is no parquet, arrow or tar file of"
                " this name"
            )
        files.setdefault(split, []).extend(name for name in found if name not in files.get(split, []))
    if not files:
        raise RunError(f"README.md of {corpus} has data_files that name no file: mend its configs")
    return files


def _chosen(corpus: str, configs: list[dict], config: str | None) -> dict:
    named = {str(entry.get("config_name", "default")): entry for entry in configs}
    if config is not None and config not in named:
        config = next((name for name in named if normal_name(name) == normal_name(config)), config)
    if config is not None and config not in named:
        raise RunError(f"{corpus} has no configuration {shown(config)!r}, only {listed(named)}")
    default = next((name for name, entry in named.items() if str(entry.get("default")).lower() == "true"), None)
    name = config or default or ("default" if "default" in named else None)
    if name is None and len(named) > 1:
        raise RunError(
            f"{corpus} has the configurations {listed(named)}: choose one with --source_config or --target_config"
        )
    return named[name] if name is not None else configs[0]


def _patterns(data_files: Any) -> list[tuple[str, str]]:
    """Split and pattern, from the forms in which they may stand: a text, a list, or splits with either."""
    if isinstance(data_files, dict):
        data_files = [{"split": split, "path": path} for split, path in data_files.items()]
    patterns = []
    for entry in data_files if isinstance(data_files, list) else [data_files]:
        split, paths = (entry.get("split"), entry.get("path")) if isinstance(entry, dict) else ("train", entry)
        for path in paths if isinstance(paths, list) else [paths]:
            if not isinstance(path, str) or not isinstance(split, str):
                raise RunError("README.md: data_files must be file names, or a list of splits with file names")
            patterns.append((split, path.removeprefix("./")))
    return patterns


def _regular_expression(pattern: str) -> str:
    """Translate a pattern of file names into a regular expression: * and ? and [0-9] within a folder, ** over any
    number of them.
    """
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[0-9\])", pattern)
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "[0-9]": "[0-9]"}
    return "".join(wild.get(part) or re.escape(part) for part in parts)
