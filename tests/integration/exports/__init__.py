"""The plugin exports, end to end and part by part."""
