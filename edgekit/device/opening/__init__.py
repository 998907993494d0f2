"""Where a bundle's bytes come from: the files of a folder, or the entries of one file."""

from edgekit.device.opening.archive import Archive
from edgekit.device.opening.folder import Folder
from edgekit.device.opening.source import AGAIN, Reader, Source, refuse, shown

__all__ = ["AGAIN", "Archive", "Folder", "Reader", "Source", "refuse", "shown"]
