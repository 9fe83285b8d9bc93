"""Builds every image and prints the path of each archive: `python -m testbed.images`."""

import sys

from testbed.images.build import squall_image, tools_image


def main() -> None:
    """Build what is not built yet."""
    for image in (squall_image, tools_image):
        archive = image()
        print(f"{archive.stat().st_size / 1e6:.0f} MB", file=sys.stderr)
        print(archive)


if __name__ == "__main__":
    main()
