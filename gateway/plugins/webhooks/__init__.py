"""Webhooks: plugins without Python that POST events to a URL, and may let its answer decide."""
