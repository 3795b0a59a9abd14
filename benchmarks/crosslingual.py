"""Cross-lingual accuracy: SERE, its ablations, the baselines and the ceiling, paired over the same shot draws.

    python -m benchmarks.crosslingual --corpora DIR DIR [DIR ...] --encoder DIR|id|none --json results.json

    python -m benchmarks.crosslingual --corpora amu-cai/CAMEO:nemo amu-cai/CAMEO:emozionalmente --streaming ...

Every directed pair of corpora is one task; a dataset on the Hub is named with its split. Features, pools, adaptation
and evaluation are the ones of train_sere.py.

--methods takes names and groups, separated by commas: "baselines", "ablations", and "all" for both with SERE itself.
"fine-tuned-encoder" (trained on the shots, without SERE) is in no group, for it takes minutes per task: name it. It is
run on the first of --draws only, and its scores are kept in the cache. What --shots 0, --encoder none or a package that
is not installed makes impossible is left out of a group, which is said, and refused by name.
"""

import argparse
import importlib.util
import itertools
import sys

import numpy as np

from benchmarks.baselines import BASELINES, PRIOR
from benchmarks.command import CorpusParser, report, run_in_processes
from benchmarks.experiment import ABLATIONS, ENROLLED, FINE_TUNED, Experiment, encode, pairs

GROUPS = {
    "baselines": [name for name in BASELINES if not name.startswith(FINE_TUNED)],
    "ablations": list(ABLATIONS),
}
GROUPS["all"] = ["sere", *ABLATIONS, *ENROLLED, *GROUPS["baselines"]]
KNOWN = ["sere", *ABLATIONS, *ENROLLED, *BASELINES]


def parse() -> argparse.Namespace:
    parser = CorpusParser(__doc__, draws="0-9")
    parser.add_argument("--methods", default="all", help="names and groups separated by commas")
    parser.add_argument("--speaker_ids", choices=["both", "with", "without"], default="both")
    parser.add_argument("--setting", choices=["transductive", "inductive", "both"], default="transductive")
    arguments = parser.parse_args()
    names, left_out = [], {}
    for asked in arguments.methods.split(","):
        for name in GROUPS.get(asked, [asked]):
            if name not in KNOWN:
                known = ", ".join([*GROUPS, *KNOWN])
                parser.error(f"--methods: {name} is unknown; known are {known}")
            reason = impossible(name, arguments)
            if reason is None:
                names.append(name)
            elif asked in GROUPS:
                left_out.setdefault(reason, []).append(name)
            else:
                parser.error(f"--methods: {name} {reason}")
    for reason, some in left_out.items():
        print(f"Left out: {', '.join(dict.fromkeys(some))}: each {reason}", file=sys.stderr)
    arguments.methods = list(dict.fromkeys(names))
    return arguments


def impossible(method: str, arguments) -> str | None:
    """Return why a method cannot be run with these arguments, or None."""
    name = method.partition("+")[0]
    options = ABLATIONS.get(name, {})
    if name == "egemaps-svm" and importlib.util.find_spec("opensmile") is None:
        return 'needs openSMILE: pip install -e ".[benchmark]"'
    if arguments.encoder == "none" and (name == FINE_TUNED or "encoder_weight" in options):
        return "needs an encoder (--encoder)"
    if arguments.shots == 0:
        if (method in BASELINES and name != PRIOR) or "prior_profile" in options:
            return "needs labelled clips (--shots)"
        if name == "sere-zero-shot":
            return "is SERE itself with --shots 0"
    return None


def run(arguments) -> list[dict]:
    """Measure all rows."""
    ids = {"both": [True, False], "with": [True], "without": [False]}[arguments.speaker_ids]
    settings = ["transductive", "inductive"] if arguments.setting == "both" else [arguments.setting]
    corpora = encode(arguments, arguments.methods)
    # pairs innermost: what one task leaves in the cache for another is there long before that is its turn
    return run_in_processes(
        run_task, [(arguments, *pair, *rest) for *rest, pair in itertools.product(ids, settings, pairs(corpora))]
    )


def run_task(task: tuple) -> list[dict]:
    """Measure all draws of one task in one setting, with or without speaker ids."""
    experiment = Experiment(*task)
    return [row for draw in task[0].draws for row in experiment.rows(draw)]


def summary(rows: list[dict]) -> str:
    """Return one table per setting and assumption: mean and s.d. over draws, the paired difference to SERE, UAR per
    task.
    """
    lines = []
    for setting, speaker_ids in sorted({(row["setting"], row["speaker_ids"]) for row in rows}, reverse=True):
        some = [row for row in rows if (row["setting"], row["speaker_ids"]) == (setting, speaker_ids)]
        tasks = list(dict.fromkeys((row["source"], row["target"]) for row in some))
        count = len({row["draw"] for row in some})
        table = {}  # (method, labels) -> draw -> task -> UAR in %
        for row in some:
            cell = table.setdefault((row["method"], row["labels"]), {}).setdefault(row["draw"], {})
            cell[row["source"], row["target"]] = 100 * row["uar"]
        ids = "with" if speaker_ids else "without"
        lines += ["", f"{setting}, {ids} speaker ids: UAR %, {len(tasks)} tasks, {count} draws"]
        heads = " ".join(f"{source[:5] + '-' + target[:5]:>11}" for source, target in tasks)
        lines.append(f"{'method':<44}{'mean':>6}{'s.d.':>6}{'SERE leads by':>18}  {heads}")
        means = {key: {draw: np.mean([cell[task] for task in tasks]) for draw, cell in draws.items()}
                 for key, draws in table.items()}  # fmt: skip
        for key, per_draw in sorted(means.items(), key=lambda item: -np.mean(list(item[1].values()))):
            values = np.array(list(per_draw.values()))
            lead = ""
            if ("sere", "shots") in means and key != ("sere", "shots"):
                lead = _difference(np.array([means["sere", "shots"][draw] - per_draw[draw] for draw in per_draw]))
            cells = [np.mean([cell[task] for cell in table[key].values()]) for task in tasks]
            name = key[0] + (", all labels" if key[1] == "all" else "")
            if len(values) < count:
                name += f" ({len(values)} draw{'s' * (len(values) > 1)})"
            row = " ".join(f"{cell:11.1f}" for cell in cells)
            lines.append(f"{name:<44}{values.mean():6.1f}{values.std():6.1f}{lead:>18}  {row}")
    return "\n".join(lines)


def _difference(values: np.ndarray) -> str:
    """Return mean and standard error, which one value does not have."""
    error = f" +- {values.std(ddof=1) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{values.mean():+.1f}{error}"


def main():
    report(parse(), run, summary)


if __name__ == "__main__":
    main()
