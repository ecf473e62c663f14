"""Images, PNG or JPEG, for models whose one input is an image."""

from __future__ import annotations

import dataclasses
import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image

from rootdata.bundle.manifest import Manifest
from serve.errors import BadRequest, InvalidEvents, ServeError, TooLarge
from serve.faults import is_lack
from serve.settings import Settings

Floats = npt.NDArray[np.float32]

_FORMATS = ("PNG", "JPEG")
_MAX_PIXELS = 25_000_000  # a decoded one takes up to 4 bytes
_MAX_SCANS = 100  # passes over all pixels that a JPEG may ask for; progressive ones have about ten
_SCAN = b"\xff\xda"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImageLayout:
    """The image that a model takes.

    Parameters
    ----------
    name : of the input
    channels : 1 for gray, 3 for red, green and blue
    has_channels_first : (events, channels, height, width) instead of (events, height, width, channels)
    """

    name: str
    channels: int
    height: int
    width: int
    has_channels_first: bool


def layout_of(manifest: Manifest) -> ImageLayout:
    """Say what image a model takes.

    Raises
    ------
    InvalidEvents
        If it takes none.
    """
    spec = manifest.inputs[0]
    rest = spec.shape[1:]
    is_image = len(manifest.inputs) == 1 and spec.dtype == "float32" and len(rest) == 3
    sizes = [size for size in rest if isinstance(size, int)]
    if is_image and len(sizes) == 3:
        if sizes[0] in (1, 3):
            channels, height, width = sizes
            return ImageLayout(name=spec.name, channels=channels, height=height, width=width, has_channels_first=True)
        if sizes[2] in (1, 3):
            height, width, channels = sizes
            return ImageLayout(name=spec.name, channels=channels, height=height, width=width, has_channels_first=False)
    taken = ", ".join(f"{t.name} {t.dtype} ({', '.join(map(str, t.shape))})" for t in manifest.inputs)
    raise InvalidEvents(
        f"image: the model does not take one, it takes {taken[:200]}; for images it needs one input, float32 (events, "
        "channels, height, width) or (events, height, width, channels) with fixed sizes and 1 or 3 channels",
        field="image",
    )


def decode(body: bytes, manifest: Manifest, *, settings: Settings) -> dict[str, Floats]:
    """Decode an image to the channels and the size that the model takes, from 0 to 1.

    The first image counts where there are several. Transparency is left out, as TFaaS does.

    Parameters
    ----------
    body : PNG or JPEG
    manifest : of a model with one input, an image
    settings : its largest body also bounds the pixels

    Returns
    -------
    the input's name to its values: (1, channels, height, width) or (1, height, width, channels)

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        Naming the field ``image``.
    """
    layout = layout_of(manifest)
    values = _values(_loaded(body, min(_MAX_PIXELS, settings.max_body)), layout)
    if layout.has_channels_first:
        values = values.transpose(2, 0, 1)
    return {layout.name: np.ascontiguousarray(values)[np.newaxis]}


def _loaded(body: bytes, max_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd but can be decoded
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(body), formats=_FORMATS) as image:
                _check(body, image, max_pixels)
                image.load()
                return image
    except ServeError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_many(max_pixels) from error
    except Exception as error:  # whatever a decoder stumbles over
        if is_lack(error):
            raise
        raise BadRequest("image: it is no PNG or JPEG, or broken; send the whole file", field="image") from error


def _check(body: bytes, image: Image.Image, max_pixels: int) -> None:
    """Check what decoding would cost, by what the file says of itself."""
    width, height = image.size
    if width * height > max_pixels:
        raise _too_many(max_pixels, f"{width} x {height}")
    if image.format != "PNG" and body.count(_SCAN) > _MAX_SCANS:
        raise TooLarge(f"image: the JPEG has more than {_MAX_SCANS} scans; save it again", field="image")


def _too_many(max_pixels: int, got: str = "far more") -> TooLarge:
    return TooLarge(f"image: got {got} pixels; {max_pixels} are allowed; make it smaller", field="image")


def _values(image: Image.Image, layout: ImageLayout) -> Floats:
    """Bring an image to the size and the channels: (height, width, channels), 0 to 1."""
    image.info.pop("transparency", None)  # there are conversions that would look at it
    if image.mode.startswith("I"):  # 16 bits; convert() would cut off what is above 255
        image = Image.fromarray(np.asarray(image).astype(np.float32) / 257)
    else:
        image = image.convert("L" if layout.channels == 1 else "RGB")
    resized = image.resize((layout.width, layout.height), Image.Resampling.BILINEAR)
    values = np.asarray(resized, np.float32).reshape(layout.height, layout.width, -1) / np.float32(255)
    return np.broadcast_to(values, (layout.height, layout.width, layout.channels))
