"""Small files in the formats of phones, browsers and video, written with PyAV."""

import io

import av
import numpy as np

# format of FFmpeg, codec, rate
CONTAINERS = {
    "m4a": ("ipod", "aac", 44_100), "m4a lossless": ("ipod", "alac", 16_000), "aac": ("adts", "aac", 16_000),
    "webm": ("webm", "libopus", 48_000), "wma": ("asf", "wmav2", 44_100), "mp4": ("mp4", "aac", 48_000),
    "mov": ("mov", "pcm_s16le", 16_000), "3gp": ("3gp", "aac", 16_000), "mkv": ("matroska", "pcm_s24le", 16_000),
    "avi": ("avi", "mp2", 32_000), "flv": ("flv", "aac", 44_100), "ts": ("mpegts", "aac", 16_000),
}  # fmt: skip
WITH_VIDEO = ("mp4", "mkv", "avi")


def container(name: str, samples: np.ndarray, sound: bool = True, layout: str | None = None) -> bytes:
    """Return a file of one of `CONTAINERS` with samples (channels, n) at its rate, and pictures where `WITH_VIDEO` says
    so.
    """
    kind, codec, rate = CONTAINERS[name]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as output:
        if name in WITH_VIDEO:
            pictures = output.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p")
        if sound:
            layout = layout or {1: "mono", 2: "stereo"}[len(samples)]
            stream = output.add_stream(codec, rate=rate, layout=layout, bit_rate=96_000)
        if name in WITH_VIDEO:
            for shade in range(10):
                output.mux(pictures.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * shade, np.uint8))))
            output.mux(pictures.encode(None))
        if sound:
            interleaved = samples.T.reshape(1, -1).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
            frame.sample_rate = rate
            converter = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
            for part in [*converter.resample(frame), *converter.resample(None), None]:
                output.mux(stream.encode(part))
    return buffer.getvalue()
