"""A program that writes a frame of a file as PNG: ``python -m netdicom_tx.web.picture FILE FRAME``.

Decoders are written in C and read what peers have sent, so they run in a process of their own with little memory and
time. A message on standard error that begins with ``no picture:`` is for people.
"""

from __future__ import annotations

import resource
import sys
import warnings
from importlib import import_module
from typing import Any, Final

from pydicom import dcmread

__all__ = ["COMPLAINT", "NoPictureError", "drawn", "main"]

#: How a complaint begins that is for people.
COMPLAINT: Final = "no picture: "
# A frame of 64 million samples takes half a gigabyte while it is drawn.
_MEMORY: Final = 3 << 30
_SECONDS: Final = 15
_SAMPLES: Final = 64_000_000
#: The longer side of the picture, at most.
SIDE: Final = 1024


def main(arguments: list[str]) -> int:
    """Write the picture to standard output; returns the exit status."""
    path, frame = arguments
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    warnings.simplefilter("ignore")
    try:
        picture = drawn(path, int(frame))
    except Exception as error:  # decoders have no closed set of errors
        is_ours = isinstance(error, NoPictureError)
        text = str(error) if is_ours else f"It cannot be decoded ({type(error).__name__})."
        sys.stderr.write(f"{COMPLAINT}{text}\n")
        return 1
    picture.save(sys.stdout.buffer, "PNG")
    return 0


class NoPictureError(Exception):
    """The file has nothing to draw."""


def drawn(path: str, frame: int) -> Any:
    """The frame as an image of Pillow, with the window of the file, not larger than :data:`SIDE`."""
    # Without the extra, and for mypy, these are not there.
    images: Any = import_module("PIL.Image")
    decoding: Any = import_module("pydicom.pixels")
    ds = dcmread(path, stop_before_pixels=True)
    if "Rows" not in ds or "Columns" not in ds:
        raise NoPictureError("This instance has no picture.")
    if int(ds.Rows) * int(ds.Columns) * int(ds.get("SamplesPerPixel", 1)) > _SAMPLES:
        raise NoPictureError("The picture is too large to be shown here.")
    if not 0 <= frame < int(ds.get("NumberOfFrames") or 1):
        raise NoPictureError("There is no such frame.")
    pixels = decoding.pixel_array(path, index=frame)
    interpretation = ds.get("PhotometricInterpretation")
    if interpretation == "PALETTE COLOR":
        pixels = decoding.apply_color_lut(pixels, ds)
    if pixels.ndim == 3:
        octets = _in_octets(pixels, 0, (1 << pixels.itemsize * 8) - 1)
    else:
        values = decoding.apply_voi_lut(decoding.apply_modality_lut(pixels, ds), ds)
        octets = _in_octets(values, values.min(), values.max())
        if interpretation == "MONOCHROME1":
            octets = 255 - octets
    image = images.fromarray(octets)
    image.thumbnail((SIDE, SIDE))
    return image


def _in_octets(values: Any, least: float, most: float) -> Any:
    """An array of numbers, stretched to the values from 0 to 255."""
    scale = 255.0 / max(float(most) - float(least), 1e-9)
    stretched = (values.astype("float32") - float(least)) * scale
    return stretched.clip(0, 255).astype("uint8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
