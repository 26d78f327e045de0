"""Tests of the published JSON Schema of plugin YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway.plugins.schema import SCHEMA_FILE, schema_text
from tests.support import PROJECT

ROOT = PROJECT
SAMPLES = [
    *sorted((ROOT / "plugins").rglob("*.yaml")),
    *sorted((ROOT / "tests/golden/plugins").glob("*.yaml")),
]
VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema_text()))


def test_the_schema_file_is_what_the_models_say() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), (
        "run: python -m gateway.plugins.schema"
    )


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
def test_every_shipped_and_published_plugin_fits_the_schema(file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
        VALIDATOR.validate(document)


@pytest.mark.parametrize(
    "document",
    [
        {"name": "a", "event": "APIGW.OnFileUploaded", "script": "", "on_error": "allow"},
        {"name": "a", "event": "APIGW.OnFileUploading", "script": "", "retry": {}},
        {"name": "a", "event": "APIGW.OnFileUploading", "script": "", "on_error": "hold"},
        {"name": "a", "event": "APIGW.OnFileReceived", "script": "", "retry": {}},
        {"name": "a", "event": "APIGW.OnFileReceived", "script": "", "hold": True, "on_error": "hold"},
        {"name": "a", "config": {}, "more": 1},
        {"name": "a"},
    ],
)
def test_what_the_loader_refuses_the_schema_refuses(document: Any) -> None:
    assert not VALIDATOR.is_valid(document)


def test_retries_go_with_a_handler_that_holds_on_error() -> None:
    document = {
        "name": "a",
        "event": "APIGW.OnFileReceived",
        "script": "",
        "on_error": "hold",
        "retry": {},
    }
    VALIDATOR.validate(document)
