"""Notifications of object stores."""
