"""Fetch RAVEL's files from a base address, each checked against its SHA-256 before it takes its name.

`CHECKSUMS` are those of the released files as seen by this project, of three of the five entity types; for others the
caller gives them. Files that are there already and right are not fetched again.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from microtome.core.errors import DataError
from microtome.data.fetch import Progress, fetch
from microtome.data.ravel.files import check_type, file_names

__all__ = ["CHECKSUMS", "download"]

CHECKSUMS = {
    "ravel_city_attribute_to_prompts.json": "4e40cb291cf532c6c8d3c764a3e9b46c2678120feb513055fab39ec51b66398a",
    "ravel_city_entity_attributes.json": "c3568f424f4c4349b85404be17f7671c36fd54945f4759ae533079cba9cd54fd",
    "ravel_city_entity_to_split.json": "9a1e0886b59d4313c153637ffdbeee9e403bce2dbdba8b59ff2a58b9049b842f",
    "ravel_city_prompt_to_split.json": "f805ec435d64673f0d4eff77b2c4a107abbd2a55df19543876a7e2b0feba352c",
    "ravel_nobel_prize_winner_attribute_to_prompts.json": (
        "fad17ac4c798e4d5412591afd4c06a20f1cde930b53ded199f5e27ab21656f2d"
    ),
    "ravel_nobel_prize_winner_entity_attributes.json": (
        "2a4d66328011bb2c63abc6434446236ccb0da73c727c2f68ea12447277f81c6f"
    ),
    "ravel_nobel_prize_winner_entity_to_split.json": "066e470ee344a4836f87d2f680ab13850ed1bcba86a788d6e20fa6d4abd80f45",
    "ravel_nobel_prize_winner_prompt_to_split.json": "ac070b66540acc9fbca5fc13e8fe612d7c32a9d99940c1e6e93bf4de0ed60982",
    "ravel_physical_object_attribute_to_prompts.json": (
        "f84547c0c3478fe5f966aaafdf3601b1eef6e6326070fa735083f151800d8de9"
    ),
    "ravel_physical_object_entity_attributes.json": "672584e27d5027e9ff3391d33a72e69ccdde1cadbf15260a277e1084dd5d1b7a",
    "ravel_physical_object_entity_to_split.json": "d085553d2dd8377e7ef502c7cf7033fe6c9ff614933bb85ca6bd6147c3c128b6",
    "ravel_physical_object_prompt_to_split.json": "9f87c9e2079636d990b64ab08e294d16bbc37d87c1290be4b2217357db1062f0",
    "wikipedia_city_entity_prompts.json": "0b27cc890efbaf62ef5292fcb9f157c170685a0d8930327dc4e8f8b5a4f8722f",
    "wikipedia_nobel_prize_winner_entity_prompts.json": (
        "0b98d65358cc779bcf67c3a5dc065795521a9e8ed303f72159d33af18d05d4a2"
    ),
    "wikipedia_physical_object_entity_prompts.json": "821e4c4aeadf1faa0a1df1708c50df7b87e4cf44684793fc0b4d691c6225dcbf",
}
"""SHA-256 of the released files of city, nobel_prize_winner and physical_object."""


def download(
    base_url: str,
    folder: Path | str,
    entity_types: Iterable[str],
    *,
    checksums: Mapping[str, str] = CHECKSUMS,
    progress: Progress | None = None,
    timeout: float = 30.0,
) -> tuple[Path, ...]:
    """Fetch the five files of each entity type; return their paths.

    Args:
        base_url: the files lie right under it (`http`, `https` or `file`).
        folder: made where it is not there.
        entity_types: of the benchmark's five.
        checksums: SHA-256 by file name.
        progress: called with (file name, bytes so far, bytes in all or None).
        timeout: seconds without an answer.

    Raises:
        DataError: unknown type, a file without a checksum, an address that does not answer, or a file whose checksum
            is another; what was fetched before stays.

    Example:
        download("https://host/ravel/data", "data/ravel", ["city"])
    """
    wanted = [name for entity_type in entity_types for name in _names(entity_type, checksums)]
    home = Path(folder)
    base = base_url.rstrip("/")
    return tuple(
        fetch(f"{base}/{name}", home, sha256=checksums[name], progress=progress, timeout=timeout) for name in wanted
    )


def _names(entity_type: str, checksums: Mapping[str, str]) -> list[str]:
    check_type(entity_type, ())
    names = list(file_names(entity_type).values())
    unknown = [n for n in names if n not in checksums]
    if unknown:
        raise DataError(
            f"No checksum of {', '.join(unknown)}; it could not be told from another file: give checksums with its "
            "SHA-256."
        )
    return names
