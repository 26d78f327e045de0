"""The steps of a route that neither run its code nor ask an upstream. `route_steps` has their order."""
