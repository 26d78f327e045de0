"""Upload Gateway: a self-hosted async API gateway whose first job is files.

The rooms, top to bottom; imports only go down (`setup.cfg` holds the contract):

    commands/   one file a verb of the command line
    app         assembles every room, turns errors into answers
    uploads/    the door for PUT: admit, receive, commit, answer
    routing/    the door for routes: authorize, check, run scripts, ask upstreams
    observe     health, metrics, status
    commit/     the promise: group commit, publish, recover, reserve
    events/     the journal and the runner that delivers from it
    hooks       fires the events at the handlers of the plugins
    auth        who is asking, and is that enough
    installation  the gateways of one installation, and how they know each other's calls
    plugins/    YAML files -> checked, compiled, one generation
    scripting/  all a script can see, and the threads it runs in
    secrets     the keys of !secret values
    storage/    the directory tree and the bodies on their way into it
    settings    flags, environment, file -> one frozen object
    paths, redaction, signing, model, errors    pure foundations
"""

__version__ = "0.1.0"
