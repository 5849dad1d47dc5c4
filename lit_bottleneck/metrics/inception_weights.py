"""The weights of the Inception network, checked before they are loaded."""

import hashlib
from pathlib import Path

import torch

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def fetch_weights() -> Path:
    """Return the path of the weights in the cache of ``torch.hub``, after a download if need be.

    torch-fidelity uses the same file, and unpickles it unchecked. Other processes see the file whole or not at all.

    Raises:
        OSError: if the download fails, or for another checksum.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", URL.rpartition("/")[2])
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL, str(path), SHA256)
        except RuntimeError as error:  # raised by torch for a wrong checksum
            raise OSError(f"the download of {URL} was refused: {error}") from error
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise OSError(f"{path} has the SHA-256 {found} instead of {SHA256}: delete it")
    return path
