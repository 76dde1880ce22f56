"""Write an answer as a DICOM structured report, and derive a FHIR DiagnosticReport from it.

Runs in the decoder processes: the patient's data go from the source object to the report and nowhere else.
"""
