"""OpenAPI documents of tests, and plugins that make routes of them."""

from __future__ import annotations

import textwrap
from pathlib import Path

from gateway.endpoints.routing.specification.operations import Expansion
from gateway.endpoints.routing.specification.source import read_source

PETS = """\
openapi: 3.0.3
info: {title: Pets, version: "1"}
servers: [{url: "https://pets.example/v1/"}]
paths:
  /pets:
    get:
      summary: List
      tags: [pets]
      parameters:
      - {name: limit, in: query, schema: {type: integer, minimum: 1, default: 20}}
      - {name: tag, in: query, schema: {type: array, items: {enum: [red, blue]}}}
      - {name: ids, in: query, explode: false, schema: {type: array, items: {type: integer}}}
      - {name: X-Trace, in: header, required: true, schema: {type: string, minLength: 4}}
      responses:
        "200": {$ref: '#/components/responses/Pets'}
        default: {content: {application/json: {schema: {$ref: '#/components/schemas/Error'}}}}
    post:
      operationId: addPet
      requestBody:
        required: true
        content: {application/json: {schema: {$ref: '#/components/schemas/Pet'}}}
      responses: {"201": {description: Made}, 4XX: {description: No}}
  /pets/{pet-id}:
    parameters: [{name: pet-id, in: path, required: true, schema: {type: integer, format: int32}}]
    get: {responses: {"200": {description: One}}}
    head: {responses: {"200": {description: One}}}
    patch:
      requestBody:
        content:
          application/json: {schema: {$ref: '#/components/schemas/Pet'}}
          application/xml: {}
      responses: {"204": {description: Done}}
components:
  responses:
    Pets:
      description: All
      content:
        application/json: {schema: {type: array, items: {$ref: '#/components/schemas/Pet'}}}
  schemas:
    Pet:
      type: object
      required: [id, name]
      properties:
        id: {type: integer, readOnly: true}
        name: {type: string, nullable: true, example: Rex}
        age: {type: number, minimum: 0, exclusiveMinimum: true}
        friends: {type: array, items: {$ref: '#/components/schemas/Pet'}}
    Error:
      type: object
      required: [message]
      properties: {message: {type: string}}
"""


def plugin_text(
    file: str, more: str = "", upstream: str = "up", keys: str = "", auth: str = "none"
) -> str:
    """Return a plugin that makes routes of a document; `keys` are more of `openapi`."""
    text = f"openapi: {{file: {file}, upstreams: ['{upstream}']{keys}}}\n"
    return f"{text}proxy: {{authorization: {{auth: {auth}}}}}\n{textwrap.dedent(more)}"


def write_document(folder: Path, text: str, name: str = "pets.yaml") -> Path:
    """Write an OpenAPI document beside the plugins of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text)
    return file


def expanded(folder: Path, text: str, name: str = "pets.yaml") -> Expansion:
    """Return the operations of a document. Raises `ConfigError` for what is none."""
    return Expansion(read_source(write_document(folder, text, name)))


def faults_of(folder: Path, text: str) -> list[str]:
    """Return the faults of a document: `line: message`."""
    source = read_source(write_document(folder, text))
    Expansion(source)
    return [str(error).removeprefix(f"{source.file}:") for error in source.errors]
