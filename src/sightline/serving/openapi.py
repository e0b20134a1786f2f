"""What the service promises, as an OpenAPI document: paths, parameters, and a schema for every answer."""

from typing import Any

from sightline.config import METHODS, ServeConfig
from sightline.data.decoding.formats import WANTED
from sightline.serving.forms import FIELDS, IMAGES

__all__ = ["ERRORS", "document"]

ERRORS = {
    400: "The form is broken, holds no image, or has a field that is unknown or there twice.",
    401: "The token is missing or wrong.",
    403: "A page of another site asks, or the request was sent to a name that is not this machine's.",
    404: "There is no such path.",
    405: "The path has no such method.",
    408: "The body did not come.",
    413: "Too many bytes, images or pixels.",
    415: "The body is no form.",
    422: "An image cannot be read, or a field has a value that is unknown or of no effect.",
    500: "Something went wrong in the server.",
    503: "Too many requests wait; `Retry-After` says after how many seconds to come again.",
}
"""What each status of an error means."""

TEXT = {"type": "string"}
NUMBER = {"type": "number"}
COUNT = {"type": "integer", "minimum": 0}
PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
REQUEST_ID = {"type": "string", "description": "Also the header X-Request-Id; the server's log has it."}


def _object(properties: dict[str, Any], optional: tuple[str, ...] = (), about: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", "properties": properties}
    found["required"] = [name for name in properties if name not in optional]
    return {**found, "description": about} if about else found


def _array(items: dict[str, Any], about: str = "", **limits: int) -> dict[str, Any]:
    found = {"type": "array", "items": items, **limits}
    return {**found, "description": about} if about else found


def _map(values: dict[str, Any], about: str) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values, "description": about}


def _known(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


SCHEMAS = {
    "Error": _object(
        {"error": {**TEXT, "description": "What was found, what was wanted, what to do."}, "request_id": REQUEST_ID}
    ),
    "Chance": _object({"class": TEXT, "probability": PROBABILITY}),
    "Explanation": _object(
        {
            "method": {**TEXT, "enum": list(METHODS)},
            "class": {**TEXT, "description": "The class that was asked about."},
            "overlay": {
                **TEXT,
                "description": "A PNG as a data URI: the image as the network sees it, brighter where it speaks for the class.",
            },
        }
    ),
    "Answer": _object(
        {
            "file": {**TEXT, "description": "Base name of the file."},
            "class": {**TEXT, "description": "The most probable class."},
            "probability": {**PROBABILITY, "description": "Of that class, calibrated."},
            "classes": _array(_known("Chance"), "The most probable classes, as many as `top` asks for."),
            "none_of_these": {
                "type": ["boolean", "null"],
                "description": "Whether the image looks like none of the classes; null of a classifier that cannot say.",
            },
            "set": _array(TEXT, "Classes that hold the true one as often as `coverage` asks for; may be empty."),
            "explanation": _known("Explanation"),
        },
        ("set", "explanation"),
    ),
    "Answers": _object(
        {
            "images": _array(_known("Answer"), "In the order in which they were sent."),
            "views": {**TEXT, "description": "Views of each image that were averaged."},
            "request_id": REQUEST_ID,
        }
    ),
    "Health": _object(
        {
            "status": {**TEXT, "enum": ["ok"]},
            "uptime_seconds": {**NUMBER, "minimum": 0},
            "waiting_images": {**COUNT, "description": "Images that are not answered yet."},
            "request_id": REQUEST_ID,
        }
    ),
    "Model": _object(
        {
            "classes": _array(TEXT, "In the order of their indices."),
            "size": _array(COUNT, "Height and width of what the network sees, in pixels.", minItems=2, maxItems=2),
            "views": {**TEXT, "description": "Views of an image that are averaged unless others are asked for."},
            "parameters": {"type": ["integer", "null"]},
            "accuracy": {
                "type": ["object", "null"],
                "properties": {
                    "value": PROBABILITY,
                    "interval": {"type": ["array", "null"], "items": PROBABILITY},
                    "n": COUNT,
                    "split": {"type": ["string", "null"]},
                },
                "description": "On images that it did not learn from, with its 95 % interval; null if it was not measured.",
            },
            "calibration": _object(
                {
                    "temperatures": _map(NUMBER, "By views."),
                    "n": {"type": ["integer", "null"], "description": "Images that it was calibrated on."},
                    "error": {
                        "type": ["number", "null"],
                        "description": "Expected calibration error, as measured with accuracy.",
                    },
                }
            ),
            "unknown": {
                "type": ["object", "null"],
                "properties": {
                    "share_of_own": PROBABILITY,
                    "rates": _map(_object({"n": COUNT, "rate": PROBABILITY}), "By set."),
                },
                "description": "How often images of other kinds are called none of the classes; null if it cannot say.",
            },
            "coverages": _array(PROBABILITY, "Of prediction sets that can be asked for."),
            "methods": _array(TEXT, "Explanations that can be asked for."),
            "versions": _map({"type": ["string", "null"]}, "That it was trained with."),
            "limits": _object(
                {"megabytes": NUMBER, "images": COUNT, "megapixels": NUMBER, "explained_images": COUNT},
                about="Of a request: its size, its images, the pixels of an image, and images of a request with `explain`.",
            ),
            "request_id": REQUEST_ID,
        }
    ),
}


def document(limits: ServeConfig, version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server.

    Args:
        limits: of the server, which also say whether it asks for a token.
        version: of sightline.
    """
    everywhere = [403, 405, 500] + ([401] if limits.token else [])
    header = {"name": "X-Request-Id", "in": "header", "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}}
    header["description"] = "An id of the caller's own; without it the server makes one."
    query = [{"name": name, "in": "query", "schema": schema} for name, schema in FIELDS.items()]
    image = {"type": "string", "contentMediaType": "application/octet-stream"}
    form = _object({IMAGES: _array(image, minItems=1, maxItems=limits.max_images), **FIELDS}, tuple(FIELDS))
    predict = {
        "operationId": "predict",
        "summary": "Classify images",
        "description": f"{WANTED}. A field may be in the form or in the query.",
        "parameters": [header, *query],
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "responses": _responses(_known("Answers"), [*everywhere, 400, 408, 413, 415, 422, 503]),
    }
    health = _read("health", "Whether the server is there, also when it is busy", "Health", header, [403, 405, 500])
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "sightline", "version": version, "description": "A classifier of images."},
        "paths": {
            "/api/predict": {"post": predict},
            "/api/health": {"get": {**health, "security": []}},
            "/api/model": {"get": _read("model", "What the classifier is and how good", "Model", header, everywhere)},
        },
        "components": {"schemas": SCHEMAS},
    }
    if limits.token:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
    return found


def _read(name: str, summary: str, schema: str, header: dict[str, Any], errors: list[int]) -> dict[str, Any]:
    """A path that only answers."""
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [header],
        "responses": _responses(_known(schema), errors),
    }


def _responses(schema: dict[str, Any], errors: list[int]) -> dict[str, Any]:
    """The answer, and an error for each status."""
    headers = {"X-Request-Id": {"schema": TEXT}}
    found: dict[str, Any] = {
        "200": {"description": "The answer.", "headers": headers, "content": {"application/json": {"schema": schema}}}
    }
    for status in sorted(errors):
        retry = {"Retry-After": {"schema": {"type": "integer"}}} if status == 503 else {}
        content = {"application/json": {"schema": _known("Error")}}
        found[str(status)] = {"description": ERRORS[status], "headers": {**headers, **retry}, "content": content}
    return found
