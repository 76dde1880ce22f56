"""Make images that carry a given text in their metadata."""

import io

import pydicom
from PIL import Image, PngImagePlugin
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage


def dicom(*, media: str = SecondaryCaptureImageStorage, **tags: str) -> bytes:
    """Return a 16-pixel DICOM file with the given tags."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = media
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = media, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.BurnedInAnnotation = "CT", "NO"
    dataset.Rows = dataset.Columns = 16
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(range(256))
    for name, value in tags.items():
        setattr(dataset, name, value)
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def png(text: str) -> bytes:
    """Return a PNG with `text` in a text chunk, in a compressed one, in Exif and in XMP."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", text)
    info.add_text(f"Key {text}"[:79], text, zip=True)
    info.add_itxt("XML:com.adobe.xmp", f"<x>{text}</x>")
    exif = Image.Exif()
    exif[0x010E] = text
    file = io.BytesIO()
    Image.linear_gradient("L").resize((48, 40)).save(file, format="PNG", pnginfo=info, exif=exif)
    return file.getvalue()
