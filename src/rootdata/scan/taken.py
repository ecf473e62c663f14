"""A scaling that was learnt before: that of a bundle, for who goes on with its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rootdata.causes import reason_of
from rootdata.errors import ConfigError, SpecsError
from rootdata.options.columns import FOUND, FROM
from rootdata.scaling.curves import Segments
from rootdata.scaling.kinds import Normal, Uniform
from rootdata.scan.specs import Specs

MANIFEST = "manifest.json"  # as rootdata.bundle.manifest has it, which comes after this room
SPECS = "specs.json"  # of a training, which knows the distributions that curves are learnt of
LEARNT = (Uniform(), Normal())


def with_taken_scale(options: Mapping[str, Any]) -> dict[str, Any]:
    """Look up the numbers that ``scale={"from": bundle}`` stands for, and put them beside it.

    What was looked up before stays as it is: a training that goes on does not need the bundle.

    Parameters
    ----------
    options : of a data set, plain

    Raises
    ------
    ConfigError
        For a place that is no bundle, or one whose curves can't be known.
    """
    scale = options.get("scale")
    if not isinstance(scale, Mapping) or FROM not in scale or FOUND in scale:
        return dict(options)
    found = taken_from(scale[FROM])
    _check_meaning(options, [name for name in found if name not in scale], scale[FROM])
    return {**options, "scale": {**scale, FOUND: found}}


def _check_meaning(options: Mapping[str, Any], names: Sequence[str], place: Any) -> None:
    """Refuse the scaling of a derived column for one that is derived in another way."""
    folder = bundle_of(Path(place))
    known = json.loads((folder / MANIFEST).read_bytes()).get("features") if folder else None
    if not known:
        return
    there = known.get("derived", {})
    here = options.get("derived") or {}
    for name in names:
        was, now = there.get(name, "a branch"), here.get(name, "a branch")
        if was != now and (name in _features(options) or name in here):
            raise ConfigError(
                f"scale.{FROM}={place}: {name!r} is {was} there and {now} here; derive it in the same way, or give it "
                f"a scaling of its own: scale.{name}=standard"
            )


def _features(options: Mapping[str, Any]) -> set[str]:
    """Name the features of a data set, as its plain options have them."""
    flat = options.get("flat") or ()
    collections = (options.get("jagged") or {}).values()
    lists = (c.get("branches", ()) if isinstance(c, Mapping) else c for c in collections)
    parts = [flat, *lists]
    return {str(one) for part in parts for one in ([part] if isinstance(part, str) else part)}


def bundle_of(place: Path) -> Path | None:
    """Find the bundle that is meant by its folder, by that of its training, or by a checkpoint of that."""
    around = (place, place / "bundle") if place.is_dir() else tuple(f / "bundle" for f in place.absolute().parents[:2])
    return next((folder for folder in around if (folder / MANIFEST).is_file()), None)


def taken_from(place: Any) -> dict[str, dict[str, Any]]:
    """Return how a bundle scales each of its features, as plain numbers.

    Raises
    ------
    ConfigError
    """
    where = f"scale.{FROM}={place}"
    folder = bundle_of(Path(place)) if isinstance(place, (str, Path)) else None
    if folder is None:
        raise ConfigError(f"{where} is no bundle, and in no folder of a training that has one; export it first")
    path = folder / MANIFEST
    try:
        scaling = json.loads(path.read_bytes())["scaling"]
        return {str(name): _numbers_of(one, str(name), folder, where) for name, one in scaling.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}: {path} does not say how features are scaled ({reason_of(error)})") from error


def _numbers_of(plain: Mapping[str, Any], name: str, folder: Path, where: str) -> dict[str, Any]:
    numbers = {"shift": float(plain["shift"]), "factor": float(plain["factor"])}
    if plain.get("clip") is not None:
        numbers["clip"] = float(plain["clip"])
    if not all(map(math.isfinite, numbers.values())) or not numbers["factor"]:
        raise ValueError(f"feature {name!r} has {numbers}")
    if plain.get("log"):
        return numbers | {"log": True}
    if not plain.get("curve"):
        return numbers
    curve = _learnt(str(plain["curve"]), name, folder.absolute().parent / SPECS)
    if curve is None:
        raise ConfigError(
            f"{where}: feature {name!r} is scaled by a curve that is in the graph alone, and the {SPECS} of its "
            "training is not beside the bundle; take the bundle in its training's folder, or another scaling for it"
        )
    return numbers | {"knots": list(curve.knots), "heights": list(curve.heights)}


def _learnt(curve: str, name: str, specs: Path) -> Segments | None:
    """Learn a curve again from the distribution that it was learnt of, and compare it with its name."""
    try:
        stats = Specs.load(specs).columns[name]
    except (SpecsError, KeyError):
        return None
    found = (kind.learn_curve(stats) for kind in LEARNT if stats.quantiles is not None)
    return next((one for one in found if isinstance(one, Segments) and one.name == curve), None)
