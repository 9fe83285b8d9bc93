"""What both paths of shaping hand to the network port."""

from dataclasses import dataclass

from squall.linux.nftables import Classified
from squall.linux.packets import Lane


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the process of a namespace must hold, so that shapes act."""

    lanes: tuple[Lane, ...] = ()
    classified: tuple[Classified, ...] = ()
    note: str = ""
    """Kept with the script of the table."""
