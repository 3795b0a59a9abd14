"""What a clip costs a server whose pool of threads calls one pipeline, by the threads that torch may take for a call.

    python -m benchmarks.threads

A model without an encoder and random weights of its classifier answers clips of 3 s. Printed per number of torch's
threads: seconds of CPU and of waiting for a clip.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from modeling_sere import SereConfig, SereForAudioClassification
from modeling_sere.modeling_sere import feature_extractor
from modeling_sere.pipeline_sere import SerePipeline


def cost(classifier: SerePipeline, clips: list[np.ndarray], callers: int) -> tuple[float, float]:
    """Milliseconds of CPU, and of waiting, per clip that one of several callers asks for."""

    def asked(clip) -> float:
        start = time.perf_counter()
        classifier(clip)
        return time.perf_counter() - start

    before = time.process_time()
    with ThreadPoolExecutor(callers) as pool:
        waited = list(pool.map(asked, clips))
    return 1000 * (time.process_time() - before) / len(clips), 1000 * float(np.mean(waited))


def main():
    """Print a row per number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60, help="clips per row")
    parser.add_argument("--callers", type=int, default=4, help="threads of the server")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of torch")
    flags = parser.parse_args()
    torch.manual_seed(0)
    model = SereForAudioClassification(SereConfig(num_labels=7)).eval()
    classifier = SerePipeline(model=model, feature_extractor=feature_extractor(), device="cpu")
    clips = list(0.1 * np.random.default_rng(0).standard_normal((flags.clips, 48000)).astype(np.float32))
    cost(classifier, clips[:4], flags.callers)  # constants are made once
    print("torch threads | ms of CPU per clip | ms of waiting per clip")
    for threads in flags.threads:
        torch.set_num_threads(threads)
        print(threads, *(f"{value:.0f}" for value in cost(classifier, clips, flags.callers)), sep=" | ", flush=True)


if __name__ == "__main__":
    main()
