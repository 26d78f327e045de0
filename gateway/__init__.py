"""Upload Gateway: a self-hosted async API gateway whose first job is files.

The rooms, top to bottom; imports only go down (`setup.cfg` holds the contract):

    commands/   one file a verb of the command line
    app         assembles every room, turns errors into answers
    uploads/    the door for PUT: admit, receive, commit, answer
    observe     health, metrics, status
    commit/     the promise: group commit, publish, recover, reserve
    events/     the journal and the runner that delivers from it
    hooks       fires the events at the handlers of the plugins
    auth        who is asking, and is that enough
    plugins/    YAML files -> checked, compiled, one generation
    scripting/  all a script can see, and the threads it runs in
    storage/    the directory tree and the bodies on their way into it
    settings    flags, environment, file -> one frozen object
    paths, redaction, model, errors    pure foundations
"""

__version__ = "0.1.0"
