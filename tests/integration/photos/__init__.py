"""The tests of plugins/photos."""
