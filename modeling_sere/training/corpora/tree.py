"""Corpora that are folders of audio files without a table: the folders on the way to a file tell what it is.

The folders at the top are the column `folder1`, those in them `folder2`, and so on. Such a level is taken for the split
if all of its names are usual ones (train, test), for the emotion if at least two of its names are different emotions,
and for the speaker if the emotion is known and one other level is left. `--label_column folder2` and `--speaker_column
folder1` say otherwise. File names are not taken apart.
"""

from collections import Counter

from modeling_sere.training.corpora.columns import LABELLED, Table, cell_text, find_column, is_folder
from modeling_sere.training.corpora.files import AUDIO_SUFFIXES, Files, Locator, check_writable, locate_file, suffix
from modeling_sere.training.corpora.labels import Spellings, label_map_flag
from modeling_sere.training.corpora.names import counted, listed, number, shown
from modeling_sere.training.corpora.options import ReadOptions
from modeling_sere.training.corpora.splits import are_splits, chosen
from modeling_sere.training.errors import RunError

Levels = dict[str, list[str | None]]  # column -> of each file, its folder at that depth; None where it lies higher up


def tree_table(corpus: str, locate: Locator, names: list[str], options: ReadOptions) -> Table:
    """Read the audio files of a folder.

    Args:
        corpus: its name. names: all files in the folder of `locate`, relative to it; those without a suffix of audio
            are left out, which is told.

    Raises:
        RunError: no folders of emotions where labels are required, or several splits and none was chosen.
    """
    files = [_checked(locate, corpus, name) for name in names if suffix(name) in AUDIO_SUFFIXES]
    others = Counter(suffix(name) or "no suffix" for name in names if suffix(name) not in AUDIO_SUFFIXES)
    levels, reading = _levels(files), {"files": f"all {number(len(files), 'audio file')} of the folder"}
    if others:
        reading["files"] += f"; other files left out: {counted(others, 5)}"
    files, levels = _of_split(corpus, files, levels, options.split, reading)
    emotions = _emotions(corpus, levels, options)
    if options.require_labels and emotions is None:
        raise RunError(_unlabelled(corpus, levels))
    speakers = _speakers(corpus, levels, emotions, options)
    reading |= {subject: level for subject, level in (("emotions", emotions), ("speakers", speakers)) if level}
    unused = [level for level in levels if level not in (emotions, speakers)]
    if several := {level: names for level in unused if len(names := set(filter(None, levels[level]))) > 1}:
        told = ", ".join(f"{level} ({listed(sorted(names), 3)})" for level, names in several.items())
        reading["not used"] = f"{told}: if it is the speaker, say so with --speaker_column {next(iter(several))}"
    cells = {level: [cell_text(name) for name in levels[level]] for level in (emotions, speakers) if level is not None}
    return Table(
        corpus, corpus, list(levels), files, cells.get(emotions), cells.get(speakers), None, None, None,
        Files(locate, files), reading,
    )  # fmt: skip


def _checked(locate: Locator, corpus: str, name: str) -> str:
    """Return a name if it is that of a regular file that can be written down."""
    check_writable(name, corpus)
    return locate_file(locate, name, "", lambda: corpus)


def _levels(files: list[str]) -> Levels:
    folders = [name.split("/")[:-1] for name in files]
    return {
        f"folder{depth + 1}": [path[depth] if depth < len(path) else None for path in folders]
        for depth in range(max(map(len, folders), default=0))
    }


def _of_split(
    corpus: str, files: list[str], levels: Levels, split: str | None, reading: dict[str, str]
) -> tuple[list[str], Levels]:
    """Return the files of the wanted split, and their levels but for the one that tells the split."""
    level = next((level for level, names in levels.items() if None not in names and are_splits(set(names))), None)
    if level is None and split is not None:
        raise RunError(f"{corpus} is a folder of audio files that has no split {shown(split)!r}: leave it out")
    if level is None:
        return files, levels
    counts = Counter(levels[level])
    taken = chosen(corpus, counts, split)
    reading["split"] = f"{level}: {listed(taken)}, of {counted(counts)}"
    kept = [row for row, name in enumerate(levels[level]) if name in taken]
    others = {other: [names[row] for row in kept] for other, names in levels.items() if other != level}
    return [files[row] for row in kept], others


def _emotions(corpus: str, levels: Levels, options: ReadOptions) -> str | None:
    """Find the level of emotions: the named one, else the one with most of them, at least two."""
    if (named := _named(options.columns.label)) is not None:
        return find_column(corpus, list(levels), named)
    told = {level: _known(set(filter(None, names)), options.spellings) for level, names in levels.items()}
    best = max(told, key=lambda level: len(told[level]), default=None)
    return best if best is not None and len(told[best]) > 1 else None


def _known(names: set[str], spellings: Spellings) -> set[str]:
    return {spellings.emotion(name) for name in names if spellings.knows(name)}


def _speakers(corpus: str, levels: Levels, emotions: str | None, options: ReadOptions) -> str | None:
    """Find the level of speakers: the named one, else the only one beside the emotions that tells files apart."""
    if (named := _named(options.columns.speaker)) is not None:
        return find_column(corpus, list(levels), named)
    left = [
        level for level, names in levels.items()
        if level != emotions and None not in names and 1 < len(set(names)) <= len(names) / 2
    ]  # fmt: skip
    return left[0] if emotions is not None and len(left) == 1 else None


def _named(column: str | None) -> str | None:
    """Return a column that the user named, if it is one of folders: another one is that of another corpus."""
    return column if is_folder(column) else None


def _unlabelled(corpus: str, levels: Levels) -> str:
    several = [names for level in levels.values() if len(names := set(filter(None, level))) > 1]
    if not several:
        return f"{corpus} has audio files, but nothing tells their emotions: {LABELLED}"
    names = sorted(min(several, key=len))
    return (
        f"{corpus} is a folder of audio files, and its folders ({listed(names, 5)}) are not named after emotions: say"
        f" which they are, as {label_map_flag(names[:20])}, or {LABELLED}"
    )
