"""Make documents of a DICOM file: its UIDs, and the report on its image."""

import io

from pydicom import dcmread
from pydicom.dataset import Dataset

from medmoe.server.errors import UnsupportedImage
from medmoe.server.imaging.formats.dicom.attributes import required_uids
from medmoe.server.imaging.formats.dicom.meta_header import with_meta_header
from medmoe.server.imaging.formats.sniff import from_text, sniff
from medmoe.server.imaging.reports.content import ReportContent, ReportFormat
from medmoe.server.imaging.reports.diagnostic_report import diagnostic_report
from medmoe.server.imaging.reports.structured_report import to_bytes, write_report


def identify(sent: str | bytes) -> bytes:
    """Return the InstanceUIDs of a DICOM file (base64 or bytes) as JSON.

    Raises MalformedImage, UnsupportedImage for another format, UnreadableImage where a UID is missing or invalid,
    ImageTooLarge, or anything that pydicom raises.
    """
    return required_uids(_header(sent)).model_dump_json().encode()


def make_report(sent: str | bytes, content: ReportContent, format_: ReportFormat) -> bytes:
    """Return the report: a DICOM file, or a FHIR DiagnosticReport as JSON. Raises what `identify` raises."""
    header = _header(sent)
    required_uids(header)
    report = write_report(header, content)
    return to_bytes(report) if format_ == "dicom" else diagnostic_report(report, made=content.made)


def _header(sent: str | bytes) -> Dataset:
    data = from_text(sent) if isinstance(sent, str) else sent
    if sniff(data) != "DICOM":
        raise UnsupportedImage("only an image in a DICOM file belongs to a study; a report needs one")
    body, _ = with_meta_header(data)
    return dcmread(io.BytesIO(body), stop_before_pixels=True)
