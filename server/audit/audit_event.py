"""Write records of an audit trail as AuditEvent resources of FHIR R4."""

from typing import Any

from medmoe.server.audit.chain import AuditRecord

_EVENT_TYPE = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_INTERACTION = "http://hl7.org/fhir/restful-interaction"
_SOURCE = "http://terminology.hl7.org/CodeSystem/security-source-type"
_ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_ACTIVITY = {"start": ("110120", "Application Start"), "stop": ("110121", "Application Stop")}
_DIGEST = "urn:medmoe:hmac-sha256"
"""Prefix of the identifier systems of keyed digests."""
_SUCCESS, _MINOR, _SERIOUS = "0", "4", "8"
"""Codes of AuditEvent.outcome."""


def audit_event(record: AuditRecord) -> dict[str, Any]:
    """Return the AuditEvent of a record."""
    fields = record.fields
    event = fields["event"]
    is_request = "route" in fields
    resource: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": record.hash,
        "type": _coding(_EVENT_TYPE, "rest", "RESTful Operation")
        if is_request
        else _coding(_DCM, "110100", "Application Activity"),
        "action": "E",
        "recorded": fields["time"],
        "outcome": _outcome(fields),
        "agent": [_agent(fields)] if "subject" in fields else [{"who": {"display": "medmoe"}, "requestor": False}],
        "source": {"observer": {"display": "medmoe"}, "type": [_coding(_SOURCE, "4", "Application Server")]},
    }
    if is_request:
        kind = "search-type" if fields["method"] == "GET" else "operation"
        resource["subtype"] = [_coding(_INTERACTION, kind, kind)]
        resource["outcomeDesc"] = " ".join(filter(None, (event, str(fields["status"]), fields["error"])))
        resource["entity"] = _entities(fields)
    elif event in _ACTIVITY:
        resource["subtype"] = [_coding(_DCM, *_ACTIVITY[event])]
    elif event == "checkpoint":
        resource["outcomeDesc"] = f"{event} {fields['action']} {fields['checkpoint']}"
    return resource


def _agent(fields: Any) -> dict[str, Any]:
    subject = fields["subject"]
    who = (
        {"display": "anonymous"}
        if subject is None
        else {"identifier": {"system": "urn:medmoe:subject", "value": subject}}
    )
    return {"who": who, "requestor": True}


def _entities(fields: Any) -> list[dict[str, Any]]:
    """Return the request, the weights, and the digests of images and UIDs, as entities."""
    found = [
        _entity("urn:medmoe:request-id", fields["request_id"], name=fields["route"]),
        _entity("urn:medmoe:weights-sha256", fields["weights_sha256"], name="model weights"),
    ]
    digests = [*fields["images"], fields.get("listed", {})]
    found += [_entity(f"{_DIGEST}:{name}", value, name=name) for image in digests for name, value in image.items()]
    details = {
        name: fields[name] for name in ("calibrated", "abstained", "duration_seconds") if fields[name] is not None
    }
    found[0]["detail"] = [{"type": name, "valueString": str(value).lower()} for name, value in details.items()]
    return [entity for entity in found if entity["what"]["identifier"]["value"] is not None]


def _entity(system: str, value: str | None, *, name: str) -> dict[str, Any]:
    return {
        "what": {"identifier": {"system": system, "value": value}},
        "type": _coding(_ENTITY_TYPE, "2", "System Object"),
        "name": name,
    }


def _outcome(fields: Any) -> str:
    status = fields.get("status", 200)
    return _SUCCESS if status < 400 else _MINOR if status < 500 else _SERIOUS


def _coding(system: str, code: str, display: str) -> dict[str, str]:
    return {"system": system, "code": code, "display": display}
