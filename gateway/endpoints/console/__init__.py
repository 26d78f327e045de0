"""The console: pages for people. They have no data: their scripts ask the API, as programs do.

`handler` serves them; `pages` has which page stands at which path; `static` has the files, which
`static_files` reads with those of the operator; `session` tells who calls.
"""
