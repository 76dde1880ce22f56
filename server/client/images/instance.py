"""Name an image that the service fetches from one of its DICOMweb sources."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """An instance in a source of the service; `Client.sources` lists the sources, `Client.instances` what they hold."""

    source: str
    study: str = field(repr=False)
    """Study Instance UID."""
    series: str = field(repr=False)
    """Series Instance UID."""
    instance: str = field(repr=False)
    """SOP Instance UID."""
