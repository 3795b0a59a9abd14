"""The report on the corpora before a run begins: how they were read, what takes no part, and what may go wrong."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from modeling_sere.training.corpora.corpus import Clip, Corpus
from modeling_sere.training.corpora.labels import is_known, label_map_flag
from modeling_sere.training.corpora.names import counted, listed, number

SUBJECTS = ("files", "split", "emotions", "speakers", "language", "licences", "not used")
FEW_CLIPS = 30  # with fewer there are no nuisance groups (docs/method.md)


def read_as(corpus: Corpus) -> str:
    """Return a block of lines on what was taken for files, emotions, speakers and so on."""
    lines = [f"  {subject:<8}  {corpus.reading[subject]}" for subject in SUBJECTS if subject in corpus.reading]
    return "\n".join([f"Read {corpus.name} as {number(len(corpus), 'clip')}:", *lines])


def left_out(labels: Iterable[str | None], classes: Iterable[str]) -> dict[str, int]:
    """Return how many clips have each label that is none of the `classes`, the most frequent first."""
    return dict(Counter(label for label in labels if label not in {None, *classes}).most_common())


def label_report(sources: Sequence[Corpus], target: Corpus, classes: Sequence[str]) -> dict[str, dict]:
    """Return what results.json tells of labels and licences, for the sources and the target each.

    labels_left_out: {label: clips} of those that take no part. labels_read_as: {label as written: emotion}.
    licenses_of_clips: {licence: clips} of a column of licences.
    """
    sides = {"source": sources, "target": [target]}
    return {
        "labels_left_out": {side: left_out(labels_of(corpora), classes) for side, corpora in sides.items()},
        "labels_read_as": {
            side: {written: emotion for corpus in corpora for written, emotion in corpus.relabelled.items()}
            for side, corpora in sides.items()
        },
        "licenses_of_clips": {
            side: dict(sum((Counter(corpus.licenses) for corpus in corpora), Counter()))
            for side, corpora in sides.items()
        },
    }


def labels_of(corpora: Iterable[Corpus]) -> list[str | None]:
    """Return the labels of all clips of these corpora."""
    return [label for corpus in corpora for label in corpus.labels]


def notes_before(
    sources: Sequence[Corpus], target: Corpus, classes: Sequence[str], expected: Sequence[str] | None
) -> Iterator[str]:
    """Give one sentence each on the emotions of a run, and on what the user may not want about its corpora.

    Args:
        sources: none for a model that carries its own clips. classes: the emotions of the run. expected: those that
            were asked for, if any were.
    """
    yield _emotions(target, classes, expected)
    names = listed([source.name for source in sources]) if sources else "the model"
    for corpus, other in (*((source, target.name) for source in sources), (target, names)):
        yield from corpus.notes
        yield from _notes_on_labels(corpus, other, classes)
        yield from _notes_on_clips(corpus, classes)
    for corpus in sources:
        if lacking := sorted({*classes} - {*corpus.labels}):
            yield f"{corpus.name} has no clip of {listed(lacking)}: these are learned from the other sources."


def _emotions(target: Corpus, classes: Sequence[str], expected: Sequence[str] | None) -> str:
    if expected is not None:
        why = "as --emotions asks"
    elif any(target.labels):
        why = "those that both have"
    else:
        why = f"all of the source, as {target.name} has no labels; --emotions says which of them to expect"
    return f"Emotions: {', '.join(classes)} ({why})."


def _notes_on_labels(corpus: Corpus, other: str, classes: Sequence[str]) -> Iterator[str]:
    if out := left_out(corpus.labels, classes):
        unknown = [label for label in out if not is_known(label)]
        remedy = f" If they are other names of emotions, say so: {label_map_flag(unknown[:20])}" if unknown else ""
        yield (
            f"{corpus.name}: {sum(out.values())} of {len(corpus)} clips are left out, as their emotion is none"
            f" of the run: {counted(out)}.{remedy}"
        )
    if numbers := [label for label in set(corpus.labels) & set(classes) if label.replace(".", "").isdigit()]:
        yield (
            f"{corpus.name}: numbers as emotions may mean something else in {other}; give them names:"
            f" {label_map_flag(sorted(numbers))}"
        )


def _notes_on_clips(corpus: Corpus, classes: Collection[str]) -> Iterator[str]:
    clips = [clip for clip in corpus.clips if clip.label is None or clip.label in classes]
    if len(clips) < FEW_CLIPS:
        yield (
            f"{corpus.name}: {number(len(clips), 'clip')} to organise; only from {FEW_CLIPS} on are they grouped by"
            " what they share besides emotion, which helps (docs/method.md)."
        )
    if corpus.has_speakers:
        yield from _notes_on_speakers(corpus.name, clips)


def _notes_on_speakers(name: str, clips: list[Clip]) -> Iterator[str]:
    speakers = {clip.speaker for clip in clips}
    if len(speakers) == 1:
        yield f"{name}: all clips are of one speaker, so results tell nothing of others."
    elif 2 * len(speakers) > len(clips):
        yield (
            f"{name}: {len(speakers)} speakers of {len(clips)} clips are too many to know how each usually sounds:"
            " --no_speaker_ids leaves the ids aside."
        )
