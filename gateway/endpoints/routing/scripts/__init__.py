"""The scripts of routes: `compiler` compiles, `steps` run, on the objects of `request` and `values`."""
