"""Tests of the door for notifications of object stores."""
