"""Pages of the gateway for people: files of the package, without data. Their scripts ask the API.

`handler` serves them; `static` has the files: `gateway.css` and `dom.js` are for all pages, `docs.*` and
`docs-*.js` are the page of the operations.
"""
