"""JSON Schemas of routes: compiled at load, and checked for requests and for JSON in responses."""
