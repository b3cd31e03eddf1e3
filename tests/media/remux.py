"""Write a file's packets into another one, changed or left out on the way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av

Change = Callable[[Any], bool]
"""Changes a packet; whether it is kept."""


def remux(source: str, output: Path, change: Change = lambda packet: True, **options: str) -> str:
    """Copy all streams of `source` to `output`, whose suffix names the container; returns its path."""
    with av.open(source) as original, av.open(str(output), "w", container_options=options) as copy:
        streams = {stream.index: copy.add_stream_from_template(stream) for stream in original.streams}
        for packet in original.demux():
            if packet.size and change(packet):
                packet.stream = streams[packet.stream_index]
                copy.mux(packet)
    return str(output)
